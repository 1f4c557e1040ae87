"""P5: mean, sd, 5 % and 95 % of the loss of 10^6 recipes over 4000 draws, beside plain numpy.

    python -m benchmarks.prediction [--recipes 1000000 --draws 4000 --peer-recipes 2000]

Prints a table, then one line of JSON. The posterior is made by hand (draws about the coefficients of the
embedded table), since only its size matters. The peer is the formula written with numpy's broadcasting and
np.quantile, which holds all its draws in memory and is therefore run on fewer recipes; ratios are of time a
recipe. Peak memory is that of the whole process, both posteriors and all results included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from m3bayes.data import simulated_runs, simulated_truth
from m3bayes.inference.noise import student_t
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import predict
from m3bayes.laws import chinchilla, m3
from m3bayes.laws.law import Law

CI = 0.9
TARGET = {"chinchilla": 40.0, "m3": 90.0}  # seconds
TARGET_GIB = 1.5


def hand_made_posterior(law: Law, draws: int, seed: int = 0) -> Posterior:
    """Draws with logs .03 wide about the truth of the embedded table; four chains."""
    rng = np.random.default_rng(seed)
    shape = (4, draws // 4)
    truth = simulated_truth()["coefficients"]
    values = {name: truth[name] * np.exp(0.03 * rng.standard_normal(shape)) for name in law.names}
    values |= {"sigma": np.full(shape, 0.008), "nu": np.full(shape, 6.0)}
    return Posterior(law, student_t(), simulated_runs(), values, settings={"seed": seed})


def random_recipes(rows: int, seed: int = 0) -> pd.DataFrame:
    """Recipes all over the range of the embedded table and somewhat beyond, half of them in two stages."""
    rng = np.random.default_rng(seed)
    r = rng.uniform(0.05, 1.0, rows)
    return pd.DataFrame(
        {
            "params": np.exp(rng.uniform(np.log(5e4), np.log(5e6), rows)),
            "target_tokens": np.exp(rng.uniform(np.log(3e5), np.log(2e7), rows)),
            "epochs": np.exp(rng.uniform(np.log(0.5), np.log(30), rows)),
            "target_ratio": r,
            "final_ratio": np.where(rng.random(rows) < 0.5, r, r + rng.random(rows) * (1 - r)),
        }
    )


def numpy_chinchilla(c: Mapping[str, np.ndarray], x: Mapping[str, np.ndarray]) -> np.ndarray:
    T = x["epochs"] * x["target_tokens"]
    return c["E"] + c["A"] * x["params"] ** -c["alpha"] + c["B"] * T ** -c["beta"]


def numpy_m3(c: Mapping[str, np.ndarray], x: Mapping[str, np.ndarray]) -> np.ndarray:
    N, U, k, r, r_f = (x[name] for name in x)
    extra = np.maximum(k - 1, 0)
    worth = np.where(k <= 1, k, 1 - np.expm1(-c["lambda"] * extra) / c["lambda"])
    Q, S = U * worth, k * U * (1 - r) / r
    D_eff = r_f ** c["gamma"] * Q * (1 + c["tau"] * S / (c["eta"] * Q)) ** c["eta"]
    overfitting = c["P"] * extra ** c["delta"] * (N / U) ** c["kappa"] * r_f ** c["omega"]
    return c["E"] + c["A"] * N ** -c["alpha"] + c["B"] * D_eff ** -c["beta"] + overfitting


def plain_numpy(surface: Callable, post: Posterior, recipes: pd.DataFrame) -> np.ndarray:
    """(mean / sd / lower / upper, recipe), as one would write it in five minutes."""
    c = {name: values[:, None] for name, values in post.coefficients.items()}
    loss = surface(c, {name: recipes[name].to_numpy() for name in recipes})
    ends = np.quantile(loss, [(1 - CI) / 2, (1 + CI) / 2], axis=0)
    return np.stack([loss.mean(axis=0), loss.std(axis=0, ddof=1), *ends])


def measure(law: Law, surface: Callable, recipes: int, draws: int, peer_recipes: int) -> dict:
    post, table = hand_made_posterior(law, draws), random_recipes(recipes)

    def timed(call: Callable) -> tuple[float, float, object]:
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        return time.perf_counter() - wall, time.process_time() - cpu, result

    first, _, _ = timed(lambda: predict(post, table.iloc[:1], ci=CI, new_run=False))  # compiles
    seconds, cpu_seconds, ours = timed(lambda: predict(post, table, ci=CI, new_run=False))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    few = table.iloc[:peer_recipes]
    peer_seconds, _, theirs = timed(lambda: plain_numpy(surface, post, few))
    same = np.stack([ours.loss_mean, ours.loss_sd, ours.loss_lower, ours.loss_upper])[:, : len(few)]
    difference = float(np.max(np.abs(same / theirs - 1)))
    a_recipe, peer_a_recipe = seconds / recipes, peer_seconds / len(few)
    return {
        "law": law.name,
        "recipes": recipes,
        "draws": draws,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "first_call_seconds": first,
        "peak_GiB": peak / 2**30,
        "us_a_recipe": a_recipe * 1e6,
        "numpy_us_a_recipe": peer_a_recipe * 1e6,
        "numpy_over_ours": peer_a_recipe / a_recipe,
        "largest_relative_difference": difference,
        "target_seconds": TARGET[law.name],
        "target_GiB": TARGET_GIB,
    }


def main(argv: list[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prediction", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--recipes", type=int, default=1_000_000)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--peer-recipes", type=int, default=2000)
    given = parser.parse_args(argv)
    results = []
    print(
        f"P5: mean, sd, 5 % and 95 % of {given.recipes} recipes x {given.draws} draws, {os.cpu_count()} cores"
    )
    print(f"{'law':<11}{'s':>8}{'CPU s':>8}{'target':>8}{'GiB':>6}{'us/recipe':>11}{'numpy':>9}{'ratio':>7}")
    for law, surface in ((chinchilla(), numpy_chinchilla), (m3(), numpy_m3)):
        r = measure(law, surface, given.recipes, given.draws, min(given.peer_recipes, given.recipes))
        results.append(r)
        print(
            f"{r['law']:<11}{r['seconds']:>8.1f}{r['cpu_seconds']:>8.1f}{r['target_seconds']:>8.0f}"
            f"{r['peak_GiB']:>6.2f}{r['us_a_recipe']:>11.1f}{r['numpy_us_a_recipe']:>9.1f}"
            f"{r['numpy_over_ours']:>7.1f}",
            flush=True,
        )
    print(json.dumps({"P5": results}))
    return results


if __name__ == "__main__":
    main()
