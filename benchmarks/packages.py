"""Beside the packages that fit the same law: `chinchilla` 0.2 (a point) and `simple-scaling-laws` 0.2 (intervals).

    python -m benchmarks.packages [--tables 20]

Prints a table, then one line of JSON. Chinchilla's law, tables of 200 runs with scatter .01 (`benchmarks.posterior`).

- "point": `m3bayes.inference.point_fit` and `chinchilla.Chinchilla.fit` of one table, both from the field's 4500
  starts or better, on the same objective (Huber loss of log loss, delta .001); seconds and the objective reached.
- "intervals": for every table 4000 draws of `m3bayes.fit` and of `simple_scaling_laws.fit` ("separable-power"),
  and a 90 % interval of the mean loss at ten times the largest N and D. Seconds a table, how many intervals hold
  the truth, their median width in log loss. The first table, which compiles, is not timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

import m3bayes as m3
from benchmarks.point_fits import DELTA, GRID, objective_at
from benchmarks.posterior import TRUTH, data_set
from m3bayes.inference.noise import normal
from m3bayes.inference.point_fit import point_fit
from m3bayes.runs import Runs

DRAWS, CI = 4000, 0.9

# a process without jax, since the package forks
CHINCHILLA = """
import json, sys, time
from functools import partial
from chinchilla import Chinchilla
from chinchilla._metrics import log_huber
given = json.load(open(sys.argv[1]))
huber = partial(log_huber, delta=given["delta"])
fitted = Chinchilla(sys.argv[2], param_grid=given["grid"], loss_fn=huber, log_level=50)
for N, D, loss in given["runs"]:
    fitted.database.append(N=N, D=D, loss=loss)
begun = time.perf_counter()
fitted.fit()
seconds = time.perf_counter() - begun
names = ("E", "A", "B", "alpha", "beta")
print(json.dumps({"seconds": seconds, **{name: float(getattr(fitted, name)) for name in names}}))
"""


def point() -> dict:
    runs = data_set(1)
    point_fit(data_set(0), m3.laws.chinchilla())
    begun = time.perf_counter()
    ours = point_fit(runs, m3.laws.chinchilla())
    seconds = time.perf_counter() - begun
    names = ("e", "a", "b", "alpha", "beta")
    grid = {name: sorted({float(v) for v in GRID[:, i]}) for i, name in enumerate(names)}
    rows = np.stack([runs["params"], runs["target_tokens"], runs["loss"]], axis=1).tolist()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "runs.json"
        table.write_text(json.dumps({"grid": grid, "delta": DELTA, "runs": rows}), encoding="utf-8")
        ran = subprocess.run(
            [sys.executable, "-c", CHINCHILLA, str(table), folder],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    theirs = json.loads(ran.stdout.splitlines()[-1])
    best = objective_at(ours.coefficients, runs)
    return {
        "seconds": seconds,
        "chinchilla_seconds": theirs["seconds"],
        "ratio": theirs["seconds"] / seconds,
        "chinchilla_excess": objective_at(theirs, runs) / best - 1,
    }


Ends = tuple[float, float]


def ours(runs: Runs, N: float, D: float) -> Ends:
    post = m3.fit(runs, m3.laws.chinchilla(), noise=normal(), draws=DRAWS // 4, progress=False)
    found = m3.predict(post, m3.Recipe(params=N, target_tokens=D, epochs=1), ci=CI, new_run=False)
    return float(found.loss_lower[0]), float(found.loss_upper[0])


def simple_scaling_laws(runs: Runs, N: float, D: float) -> Ends:
    import polars as pl
    import simple_scaling_laws

    table = {
        "training_run_id": [str(number) for number in range(len(runs))],
        "model_size__n_params": runs["params"],
        "dataset_size__n_tokens": runs["target_tokens"],
        "test_loss__nats": runs["loss"],
    }
    model = simple_scaling_laws.fit(pl.DataFrame(table), law="separable-power", n_draws=DRAWS, seed=0)
    place = pl.DataFrame({"model_size__n_params": [N], "dataset_size__n_tokens": [D]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is beyond the runs is the point
        found = model.predict(place, quantiles=[(1 - CI) / 2, 0.5, (1 + CI) / 2])
    values = sorted(float(found[name][0]) for name in found.columns if name.startswith("test_loss__"))
    return values[0], values[-1]


def intervals(name: str, method: Callable[[Runs, float, float], Ends], tables: int) -> dict:
    seconds, held, widths = [], [], []
    for number in range(tables + 1):
        runs = data_set(number)
        N, D = (10 * float(runs[column].max()) for column in ("params", "target_tokens"))
        truth = TRUTH["E"] + TRUTH["A"] * N ** -TRUTH["alpha"] + TRUTH["B"] * D ** -TRUTH["beta"]
        begun = time.perf_counter()
        low, high = method(runs, N, D)
        seconds.append(time.perf_counter() - begun)
        held.append(low <= truth <= high)
        widths.append(np.log(high / low))
    row = {
        "method": name,
        "tables": tables,
        "seconds": float(np.median(seconds[1:])),
        "held": int(sum(held[1:])),
        "width": float(np.median(widths[1:])),
    }
    print(
        f"{name:<22}{row['seconds']:>8.3f} s a table, {row['held']} of {tables} intervals hold the truth, "
        f"median width {row['width']:.4f}",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=20)
    given = parser.parse_args()
    one = point()
    print(
        f"point fit: {one['seconds'] * 1e3:.1f} ms, chinchilla {one['chinchilla_seconds']:.1f} s "
        f"({one['ratio']:,.0f} times as long), its objective {one['chinchilla_excess']:+.1e} relative to ours",
        flush=True,
    )
    methods = {"m3bayes": ours, "simple-scaling-laws": simple_scaling_laws}
    rows = [intervals(name, method, given.tables) for name, method in methods.items()]
    print(json.dumps({"packages": {"point": one, "intervals": rows}}))


if __name__ == "__main__":
    main()
