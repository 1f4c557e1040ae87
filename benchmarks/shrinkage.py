"""What do other languages' runs tell of a language with few runs? Error against runs available, measured pairs.

    python -m benchmarks.shrinkage [--runs 0,3,6,12,24] [--seeds 3] [--law target_ratio:repetition=true]

Each of German, French and Japanese is left out in turn: of its one-stage runs so many are kept, drawn at random, beside
all one-stage runs of the other two, and the rest is predicted: by the pooled posterior, and by a fit to the kept runs
alone where there are enough for one. RMSE of log loss, and share of losses that 90 % intervals of new runs hold, over
languages and seeds. Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import pandas as pd

import m3bayes as m3
from benchmarks.report import keep
from m3bayes.cli.options import named_law
from m3bayes.evaluation.scores import predictive


def scores(post: m3.Posterior, test: m3.Runs) -> dict[str, float]:
    found = predictive(post, test)
    lower, upper = found.interval(0.9)
    error = np.log(found.loss_mean) - np.log(test["loss"])
    held = (lower <= test["loss"]) & (test["loss"] <= upper)
    return {"rmse": float(np.sqrt(np.mean(error**2))), "coverage_90": float(held.mean())}


def one(runs: m3.Runs, law: m3.Law, language: str, kept: int, seed: int, counts: list[int]) -> list[dict]:
    own = np.flatnonzero(runs["language"] == language)
    order = np.random.default_rng(seed).permutation(own)
    test = runs.select(order[max(counts) :])  # the same runs for every number of kept ones
    others = np.flatnonzero(runs["language"] != language)
    begun = time.perf_counter()
    options = {"allow": "flagged", "progress": False, "draws": 500}
    pooled = m3.fit(runs.select(np.concatenate([others, order[:kept]])), law, pool="language", **options)
    post = pooled.of(language) if kept else pooled.new_group()
    row = {"language": language, "runs": kept, "seed": seed}
    rows = [{**row, "fit": "pooled", "verdict": pooled.verdict, **scores(post, test)}]
    try:
        alone = m3.fit(runs.select(order[:kept]), law, **options) if kept else None
    except m3.RunTableError:  # fewer runs than coefficients
        alone = None
    if alone is not None:
        rows.append({**row, "fit": "alone", "verdict": alone.verdict, **scores(alone, test)})
    print(rows, f"{time.perf_counter() - begun:.0f} s", flush=True)
    return rows


def mean_of(rows: list[dict], fit: str, kept: int) -> dict[str, object]:
    """Over languages and seeds; NaN where there was no such fit."""
    chosen = [row for row in rows if row["fit"] == fit and row["runs"] == kept]
    values = {name: [row[name] for row in chosen] for name in ("rmse", "coverage_90")}
    means = {name: float(np.mean(found)) if found else np.nan for name, found in values.items()}
    return {
        "fit": fit,
        "runs": kept,
        **means,
        "passed": sum(row["verdict"] == "passed" for row in chosen),
        "of": len(chosen),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", default="0,3,6,12,24")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--law", default="target_ratio:repetition=true")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.runs.split(",")]
    runs = m3.data.pilot_runs()
    runs = runs.select(runs["final_ratio"] == runs["target_ratio"])
    rows = [
        row
        for language in ("de", "fr", "ja")
        for seed in range(arguments.seeds)
        for kept in counts
        for row in one(runs, named_law(arguments.law), language, kept, seed, counts)
    ]
    means = pd.DataFrame(
        [mean_of(rows, fit, kept) for fit in ("pooled", "alone") for kept in counts]
    ).dropna()
    print(means.to_string())
    result = {"law": arguments.law, "rows": means.to_dict("records")}
    keep("shrinkage", "shrinkage", result, 0.0)
    print(json.dumps({"shrinkage": result}))


if __name__ == "__main__":
    main()
