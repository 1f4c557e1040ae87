"""Many fits: seconds a table against the number of tables, and of one fit against the number of runs.

    python -m benchmarks.many_fits [--tables 5,20 --runs 50,500,5000,50000 --laws chinchilla,m3]

Prints a table, then one line of JSON. Tables of Chinchilla's law have 200 runs, those of M3 are simulated from its
prior for the 120 recipes of the embedded table. Everything is compiled before it is timed. Side by side:

- "loop of fit": `fit` for one table after the other, its chains one a thread.
- "fit_many": the same draws, one table a thread; "folder": each posterior also written to its file; "float32": chains
  in float32, with the largest difference of a mean, in combined Monte Carlo standard errors, that a table has at the
  median and at most (of some six means a table; 4 by chance in one of 16,000 means).
- "fit_many in batches": the path for accelerators, here on the processor, which it is not made for.
- "numpyro": Chinchilla only, a loop of `MCMC` at its best on one device (see `benchmarks.posterior`), few tables.

Log likelihoods are not kept. Peak memory is that of the whole process up to then.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

import m3bayes as m3
from benchmarks import posterior
from m3bayes.inference import noise
from m3bayes.inference.precision import Precision
from m3bayes.inference.simulate import simulate
from m3bayes.laws.law import Law
from m3bayes.runs import Runs, runs_from_frame

PEER_TABLES = 3
BATCHED_TABLES = 8


def tables_of(law: Law, count: int) -> list[Runs]:
    if law.name == "chinchilla":
        return [posterior.data_set(number) for number in range(count)]
    keys = [jax.random.fold_in(jax.random.key(0), number) for number in range(count)]
    return [simulate(law, m3.data.simulated_runs(), key, noise=noise.normal()).runs for key in keys]


class Seconds(NamedTuple):
    """``cpu`` is of all threads, and hardly grows when others use the machine too."""

    wall: float
    cpu: float


def timed[**Given, Result](
    call: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
) -> tuple[Seconds, Result]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = call(*args, **kwargs)
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu), result


def many(law: Law, counts: Sequence[int]) -> list[dict]:
    """A row a method and number of tables; seconds are those of a table."""
    shared = {"noise": noise.normal()}
    tables = tables_of(law, max(counts))
    rows = []

    def row(method: str, count: int, seconds: Seconds, **more: object) -> None:
        wall, cpu = seconds.wall / count, seconds.cpu / count
        rows.append(
            {"law": law.name, "method": method, "tables": count, "seconds": wall, "cpu_seconds": cpu, **more}
        )
        print(
            f"{law.name:<12}{method:<22}{count:>6} tables{wall:>9.3f} s, {cpu:.3f} s of CPU a table",
            flush=True,
        )

    def loop(some: Sequence[Runs]) -> None:
        for table in some:
            m3.fit(table, law, **shared, allow="flagged", progress=False)

    def at_once(some: Sequence[Runs], precision: Precision = "float64") -> m3.Fits:
        return m3.fit_many(some, law, **shared, precision=precision, log_likelihood=False)

    def kept(some: Sequence[Runs]) -> m3.Fits:
        with tempfile.TemporaryDirectory() as folder:
            return m3.fit_many(some, law, **shared, folder=folder, log_likelihood=False)

    def batched(some: Sequence[Runs]) -> m3.Fits:
        return m3.fit_many(some, law, **shared, devices=jax.devices()[:1], batch=len(some))

    loop(tables[:1])
    at_once(tables[:1], "float32")
    for count in sorted(counts):
        seconds, _ = timed(loop, tables[:count])
        row("loop of fit", count, seconds)
        seconds, fits = timed(at_once, tables[:count])
        row("fit_many", count, seconds, verdicts=fits.table["verdict"].value_counts().to_dict())
        seconds, narrow = timed(at_once, tables[:count], "float32")
        row("fit_many, float32", count, seconds, **apart(fits, narrow))
        del fits, narrow
        seconds, _ = timed(kept, tables[:count])
        row("fit_many, folder", count, seconds, peak_GiB=peak_GiB())
    some = tables[:BATCHED_TABLES]
    first, _ = timed(batched, some)
    seconds, _ = timed(batched, some)
    row("fit_many in batches", len(some), seconds, first_call_seconds=first.wall)
    if law.name == "chinchilla":
        run = posterior.numpyro_best("sequential")
        run(tables[0], 0)
        few = tables[:PEER_TABLES]
        seconds, _ = timed(lambda: [run(table, 0) for table in few])
        row("numpyro", len(few), seconds)
    return rows


def apart(one: m3.Fits, other: m3.Fits) -> dict[str, object]:
    """How far posteriors of the same tables differ, and how many were sampled in which precision."""
    names = [name for name in one.posteriors if name in other.posteriors]
    largest = []
    for name in names:
        a, b = one[name].summary(), other[name].summary()
        largest.append((abs(a["mean"] - b["mean"]) / np.hypot(a["mcse_mean"], b["mcse_mean"])).max())
    precisions = [str(other[name].settings["precision"]) for name in names]
    return {
        "difference_median": float(np.median(largest)),
        "difference_largest": float(np.max(largest)),
        "precisions": {kind: precisions.count(kind) for kind in sorted(set(precisions))},
        "verdicts": other.table["verdict"].value_counts().to_dict(),
    }


def peak_GiB() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 2**30


def long_table(runs: int) -> Runs:
    """Chinchilla's law measured at so many recipes, with scatter .01."""
    rng, truth = np.random.default_rng(runs), posterior.TRUTH
    N = np.exp(rng.uniform(np.log(1e7), np.log(5e9), runs))
    D = np.exp(rng.uniform(np.log(2e8), np.log(1e11), runs))
    loss = truth["E"] + truth["A"] * N ** -truth["alpha"] + truth["B"] * D ** -truth["beta"]
    columns = {"params": N, "target_tokens": D, "epochs": 1.0, "target_ratio": 1.0, "final_ratio": 1.0}
    return runs_from_frame(pd.DataFrame(columns | {"loss": loss * np.exp(0.01 * rng.standard_normal(runs))}))


def growth(lengths: Sequence[int]) -> list[dict]:
    """One fit of Chinchilla's law, 4 x 250 draws, the log likelihood of every draw and run included."""
    law, rows = m3.laws.chinchilla(), []
    for runs in lengths:
        table = long_table(runs)

        settings = {"noise": noise.normal(), "draws": 250, "allow": "flagged", "progress": False}
        m3.fit(table, law, **settings)
        seconds, post = timed(m3.fit, table, law, **settings)
        attempts = post.settings["attempts"]
        rows.append({"runs": runs, **seconds._asdict(), "attempts": attempts, "peak_GiB": peak_GiB()})
        print(f"one fit of {runs:>6} runs{seconds.wall:>9.2f} s, {attempts} attempt(s)", flush=True)
    return rows


def of_chains() -> list[dict]:
    """One fit of Chinchilla's law against its chains; those of 32 draws are judged in groups."""
    law, table, rows = m3.laws.chinchilla(), posterior.data_set(0), []
    for chains, draws in ((1, 1000), (4, 1000), (16, 1000), (64, 1000), (128, 32)):
        settings = {"noise": noise.normal(), "chains": chains, "draws": draws, "allow": "flagged"}
        m3.fit(table, law, **settings, progress=False)
        seconds, post = timed(m3.fit, table, law, **settings, progress=False)
        attempts, verdict = post.settings["attempts"], post.verdict
        r_hat = "no R-hat" if chains == 1 else "nested R-hat" if draws < 200 else "R-hat"
        row = {
            "chains": chains,
            "draws": draws,
            **seconds._asdict(),
            "attempts": attempts,
            "verdict": verdict,
        }
        rows.append({**row, "r_hat": r_hat})
        print(
            f"one fit of {chains:>4} x {draws:<5}{seconds.wall:>9.2f} s, {attempts} attempt(s), {verdict}",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", default="5,20")
    parser.add_argument("--runs", default="50,500,5000,50000")
    parser.add_argument("--laws", default="chinchilla,m3")
    given = parser.parse_args()
    counts, lengths = (list(map(int, text.split(","))) for text in (given.tables, given.runs))
    print(f"many fits, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    load = os.getloadavg()[0]
    rows = [row for name in given.laws.split(",") for row in many(m3.laws.named(name), counts)]
    result = {
        "device": jax.devices()[0].device_kind,
        "load_at_start": load,
        "many": rows,
        "growth": growth(lengths),
        "chains": of_chains(),
        "accelerator": None,  # benchmarks.gpu measures it, where there is one
    }
    print(json.dumps({"many_fits": result}))


if __name__ == "__main__":
    main()
