"""The map of regimes and the threshold of two-stage training: 64 x 64 cells x 1000 draws x three regimes, M3.

    python -m benchmarks.threshold_map [--cells 64 --draws 1000 --repeats 3]

Prints a table, then one line of JSON. The map is that of :func:`m3bayes.decision.guidelines.regimes`, by root search
along the target text. Compute runs from a tenth of the embedded table's largest run to 30 times it, the text over
the table's range. Draws are made by hand about the table's true coefficients, since only their number matters. The
first call compiles; the others are warm, their median is given. CPU seconds are those of all threads.

What is saved by not searching every cell must not change it: some cells are searched by themselves, every draw and
regime from scratch. ``seconds_a_cell`` is what that takes, ``difference`` the largest one of a regime's probability,
``moved`` the share of the draws that have another best regime on the map than at the cell, on average over cells.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from benchmarks.prediction import hand_made_posterior
from m3bayes.data import simulated_runs
from m3bayes.decision import guidelines
from m3bayes.decision.budgets import regime_optima, request
from m3bayes.decision.faces import REGIMES
from m3bayes.decision.guidelines import RegimeMap
from m3bayes.decision.regret import best_regime
from m3bayes.inference.posterior import Posterior
from m3bayes.laws import m3

TARGET_SECONDS = 120.0
SEARCHED = 12


def grids(cells: int) -> tuple[np.ndarray, np.ndarray]:
    runs = simulated_runs()
    U = runs["target_tokens"]
    return np.geomspace(0.1, 30.0, cells) * runs.compute.max(), np.geomspace(U.min(), U.max(), cells)


def timed[Result](call: Callable[[], Result]) -> tuple[dict[str, float], Result]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}, result


def against_cells(post: Posterior, found: RegimeMap, seed: int = 0) -> dict[str, float]:
    """Some cells of the map against searches of their own."""
    asked = request(post, None, None)
    random = np.random.default_rng(seed)
    feasible = np.argwhere(~np.isnan(found.probability["monolingual"]))
    some = random.choice(feasible, size=SEARCHED, replace=False)
    differences, seconds = [], []
    for i, j in some:
        begun = time.perf_counter()
        space = asked.at(float(found.compute[i]), float(found.target_tokens[j]))
        best = best_regime(regime_optima(asked, space))
        seconds.append(time.perf_counter() - begun)
        differences.append([found.probability[name][i, j] - np.mean(best == name) for name in REGIMES])
    apart = np.abs(differences)
    return {
        "cells_searched": SEARCHED,
        "seconds_a_cell": statistics.median(seconds),
        "difference": float(apart.max()),
        "moved": float(apart.sum(axis=1).mean() / 2),
    }


def measure(cells: int, draws: int, repeats: int) -> dict:
    post = hand_made_posterior(m3(), draws)
    compute, text = grids(cells)
    first, found = timed(lambda: guidelines.regimes(post, compute, text))
    warm = [timed(lambda: guidelines.regimes(post, compute, text))[0] for _ in range(repeats)]
    return {
        "cells": cells * cells,
        "draws": draws,
        "first_call_seconds": first["seconds"],
        "first_call_cpu_seconds": first["cpu_seconds"],
        **{name: statistics.median(each[name] for each in warm) for name in first},
        "target_seconds": TARGET_SECONDS,
        **against_cells(post, found),
    }


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.threshold_map", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--cells", type=int, default=64, help="along each axis")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(argv)
    jax.devices()  # the backend starts before the clock does
    r = measure(given.cells, given.draws, given.repeats)
    print(f"threshold map: {r['cells']} cells x {r['draws']} draws x 3 regimes, {os.cpu_count()} cores")
    print(f"{'':<12}{'s':>8}{'CPU s':>8}")
    print(f"{'first call':<12}{r['first_call_seconds']:>8.1f}{r['first_call_cpu_seconds']:>8.1f}")
    print(f"{'warm':<12}{r['seconds']:>8.1f}{r['cpu_seconds']:>8.1f}")
    print(
        f"cells by themselves: {r['seconds_a_cell']:.2f} s each; probabilities differ by {r['difference']:.3f} at "
        f"most, {r['moved']:.2%} of the draws have another regime"
    )
    print(json.dumps({"map": r}))
    return r


if __name__ == "__main__":
    main()
