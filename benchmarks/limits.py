"""Where the time of a fit and of predictions goes, and how far it is from what the machine must do at least.

    python -m benchmarks.limits [--repeats 5]

A warm fit, of Chinchilla on a second data set of its size and of M3 on the simulated table, in stages: the table made
canonical and the mode found; the chains; the draws read, judged and put together. The floor of the chains is the cost
of one gradient, measured in a loop that does nothing else, times the leapfrog steps of the draws kept, over the cores;
warm-up comes on top of that. The floor of one
gradient is that of its exponentials and logarithms, counted in its compiled form, at what one costs in an array of the
same length. Predictions have one, a recipe and a draw, of the same kind. Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.posterior import data_set
from benchmarks.prediction import CI, hand_made_posterior, random_recipes
from m3bayes.data import simulated_runs
from m3bayes.inference import noise
from m3bayes.inference.coordinates import Coordinates, coordinates
from m3bayes.inference.data import canonical
from m3bayes.inference.evaluation import PLAIN_SUMS
from m3bayes.inference.fit import attempts_of, first_starts, fit, key_words_of
from m3bayes.inference.mode import find_mode
from m3bayes.inference.noise import Noise
from m3bayes.inference.predict import predict
from m3bayes.inference.sampler import sample
from m3bayes.laws import chinchilla, m3
from m3bayes.laws.law import Law
from m3bayes.runs import Runs

CHAINS, DRAWS = 4, 1000
GRADIENTS = 20_000
RECIPES = 100_000
# what is counted as one function of an element
FUNCTIONS = r"(?:exponential|log|exponential-minus-one|log-plus-one|power|logistic|tanh)"


def seconds_of(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begun


def median_of(repeats: int, call: Callable[[], object]) -> float:
    call()  # compiles
    return statistics.median(seconds_of(call) for _ in range(repeats))


def a_gradient(space: Coordinates, arrays: Mapping, q: np.ndarray, repeats: int) -> float:
    """Seconds of one gradient of the potential, on one core."""

    @jax.jit
    def plain(q, arrays):
        def step(_, q):
            # so small a step that it stays there, and the compiler cannot leave any out
            return q - 1e-12 * jax.grad(space.potential)(q, arrays)

        return jax.lax.fori_loop(0, GRADIENTS, step, q)

    compiled = plain.lower(q, arrays).compile(compiler_options=PLAIN_SUMS)
    return median_of(repeats, lambda: compiled(q, arrays)) / GRADIENTS


def functions_in(space: Coordinates, arrays: Mapping, q: np.ndarray) -> float:
    """Elements that exponentials, logarithms and powers go over in one potential and gradient, as compiled."""
    text = jax.jit(jax.value_and_grad(space.potential)).lower(q, arrays).compile().as_text()
    sizes = re.findall(rf"= f64\[([\d,]*)\]\S* {FUNCTIONS}\(", text or "")
    return float(sum(np.prod([int(n) for n in size.split(",") if n]) for size in sizes))


def a_function(size: int, repeats: int) -> float:
    """Seconds of one exponential of one element, on one core, over arrays that stay in its cache."""
    with jax.enable_x64(True):

        @jax.jit
        def plain(x):
            return jax.lax.fori_loop(0, GRADIENTS, lambda _, x: jnp.exp(-x), x)

        x = jnp.full(size, 0.5)
        return median_of(repeats, lambda: plain(x)) / GRADIENTS / size


def of_fit(law: Law, scatter: Noise, first: Runs, second: Runs, repeats: int) -> dict:
    stages: dict[str, list[float]] = {"mode": [], "chains": []}
    fit(first, law, noise=scatter, progress=False, allow="flagged")
    whole, leapfrogs, per_draw = [], [], []
    for seed in range(repeats):
        begun = time.perf_counter()
        post = fit(second, law, noise=scatter, seed=seed, progress=False, allow="flagged")
        whole.append(time.perf_counter() - begun)
        with jax.enable_x64(True):
            begun = time.perf_counter()
            table = canonical(second, law, scatter)
            space = coordinates(law, scatter, 0)
            mode = find_mode(law, scatter, 0, table.arrays, np.random.default_rng(seed))
            stages["mode"].append(time.perf_counter() - begun)
            attempt = attempts_of(law, scatter, 0, None, DRAWS)[0]
            frame, starts, _ = first_starts(mode, CHAINS, seed)
            keys = list(jax.random.wrap_key_data(jnp.asarray(key_words_of(seed, 1, CHAINS))))
            begun = time.perf_counter()
            ran = sample(
                space, table.arrays, frame, starts, keys,
                warmup=attempt.warmup, draws=DRAWS, target_accept=attempt.target_accept,
            )  # fmt: skip
            stages["chains"].append(time.perf_counter() - begun)
        leapfrogs.append(sum(chain.statistics["n_steps"].sum() for chain in ran))
        per_draw.append(leapfrogs[-1] / CHAINS / DRAWS)
        attempts = post.settings["attempts"]
    with jax.enable_x64(True):
        arrays, q = dict(table.arrays), jnp.asarray(mode.q[0])
        gradient = a_gradient(space, arrays, q, repeats)
        functions = functions_in(space, arrays, q)
        size = int(table.arrays["y"].size)
    one = a_function(size, repeats)
    chains, gradients = statistics.median(stages["chains"]), statistics.median(leapfrogs)
    floor = gradients * gradient / min(os.cpu_count() or 1, CHAINS)
    return {
        "law": law.name,
        "runs": len(second),
        "attempts": attempts,
        "fit_seconds": statistics.median(whole),
        "mode_seconds": statistics.median(stages["mode"]),
        "chains_seconds": chains,
        "leapfrogs_a_draw": statistics.median(per_draw),
        "gradient_us": gradient * 1e6,
        "floor_of_chains_seconds": floor,
        "chains_over_floor": chains / floor,
        "functions_a_gradient": functions,
        "function_ns": one * 1e9,
        "gradient_over_its_functions": gradient / (functions * one),
    }


def of_predictions(law: Law, repeats: int) -> dict:
    post, recipes = hand_made_posterior(law, 4000), random_recipes(RECIPES)
    seconds = median_of(min(repeats, 3), lambda: predict(post, recipes, ci=CI, new_run=False).loss_mean)
    one = a_function(4000, repeats) / (os.cpu_count() or 1)
    return {
        "law": law.name,
        "recipes": RECIPES,
        "seconds": seconds,
        "ns_a_loss": seconds / RECIPES / 4000 * 1e9,
        "exponentials_a_loss": seconds / RECIPES / 4000 / one,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.limits", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    simulated = simulated_runs()
    fits = [
        of_fit(chinchilla(), noise.normal(), data_set(0), data_set(1), repeats),
        of_fit(m3(), noise.student_t(), simulated, simulated, repeats),
    ]
    predictions = [of_predictions(law, repeats) for law in (chinchilla(), m3())]
    for row in (*fits, *predictions):
        print(
            ", ".join(
                f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in row.items()
            )
        )
    print(json.dumps({"limits": {"fits": fits, "predictions": predictions}}))


if __name__ == "__main__":
    main()
