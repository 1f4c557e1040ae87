"""Small tables and a small law for tests of many fits; also a program that fits them, for tests of processes.

    python -m tests.inference.many_tables FOLDER TABLES [INDEX COUNT PORT]

fits them into FOLDER, as one of several processes of jax.distributed where these are given.
"""

from __future__ import annotations

import os
import sys

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

import m3bayes as m3
from m3bayes.inference.noise import normal
from m3bayes.laws import Coefficient, Law, additive_law
from m3bayes.runs import Runs
from tests.inference import simulated

SHORT = {"draws": 300, "chains": 4, "noise": normal()}


def _law() -> Law:
    """L = E + B D^-beta."""
    return additive_law(
        "data_only",
        lambda c, x: {"E": jnp.ones(()), "B": (x["epochs"] * x["target_tokens"]) ** -c["beta"]},
        [
            Coefficient("E", dist.Beta(2, 2), of_loss=True),
            Coefficient("B", dist.LogNormal(-1.9, 1), of_loss=True, at={"T": "-beta"}),
            Coefficient("beta", dist.LogNormal(-1, 0.5)),
        ],
    )


def table(number: int, rows: int = 30) -> Runs:
    recipes = simulated.monolingual(rows, seed=number)
    return simulated.measured(LAW, {"E": 1.7, "B": 410.0, "beta": 0.285}, recipes, sigma=0.02, seed=number)


def tables(count: int) -> dict[str, Runs]:
    return {f"table {number}": table(number) for number in range(count)}


if __name__ == "__main__" and len(sys.argv) > 3:  # laws already compute, and no process may before this
    jax.distributed.initialize(
        f"127.0.0.1:{sys.argv[5]}", int(sys.argv[4]), int(sys.argv[3]), heartbeat_timeout_seconds=600
    )
LAW = _law()


def main() -> None:
    folder, count = sys.argv[1:3]
    m3.fit_many(
        tables(int(count)), LAW, **SHORT, folder=folder, report=lambda done, name: print(done, flush=True)
    )
    print("all", flush=True)
    sys.stdin.read()  # jax ends the other processes when the first one ends
    os._exit(0)  # an orderly end waits for processes that were killed


if __name__ == "__main__":
    main()
