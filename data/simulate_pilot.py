"""Simulates the embedded table: a pilot sweep of small models whose true loss surface is known.

    python data/simulate_pilot.py        writes m3bayes/data/simulated_pilot.csv and simulated_pilot.json

The same files come out bit for bit on every machine: only ``random.random()`` is drawn from, which
Python keeps stable, and losses are rounded to five decimals.
"""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import jax
from scipy.stats import t as student_t

from m3bayes.laws import m3

FOLDER = Path(__file__).parent.parent / "m3bayes" / "data"
SEED = 20_241

# Of the size that byte-level models of 25e3 to 10e6 parameters have; losses in nats per byte.
COEFFICIENTS = {
    "E": 0.9,
    "A": 15.0,
    "B": 30.0,
    "P": 0.005,
    "alpha": 0.3,
    "beta": 0.32,
    "lambda": 0.08,
    "tau": 0.25,
    "eta": 0.7,
    "gamma": 0.2,
    "delta": 0.9,
    "kappa": 0.6,
    "omega": 0.5,
}
SIGMA, NU = 0.008, 6.0

SIZES = (25_000, 79_000, 250_000, 790_000, 2_500_000, 10_000_000)
TARGET_TOKENS = (50_000, 100_000, 200_000, 400_000, 800_000)
RATIOS = (0.03, 0.06, 0.12, 0.25, 0.5, 0.75)
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
COMPUTE = (1e11, 1e14)  # FLOP, 6 N D
EPOCHS = (0.5, 64.0)
REGIMES = {"monolingual": 40, "multilingual": 32, "two stages": 36}
REPLICATED = 12  # so many recipes are run once more with another seed

COLUMNS = (
    "run",
    "params",
    "target_tokens",
    "epochs",
    "target_ratio",
    "final_ratio",
    "first_ratio",
    "seed",
    "loss",
    "source",
)
Row = dict[str, float | int | str]


def table() -> list[Row]:
    """The runs, noise included."""
    draw = random.Random(SEED).random
    recipes: list[Row] = []
    for regime, count in REGIMES.items():
        wanted = len(recipes) + count
        while len(recipes) < wanted:
            proposal = _propose(regime, draw)
            if proposal is not None and proposal not in recipes:
                recipes.append(proposal)
    again = sorted(range(len(recipes)), key=lambda _: draw())[:REPLICATED]
    runs = [{**row, "seed": 1} for row in recipes] + [{**recipes[i], "seed": 2} for i in sorted(again)]
    return [
        {"run": f"pilot-{number:03d}", **row, "loss": _measure(row, draw), "source": "simulated"}
        for number, row in enumerate(runs, start=1)
    ]


def _propose(regime: str, draw: Callable[[], float]) -> Row | None:
    """One recipe of about a random compute, or None where its epochs fall outside the sweep."""

    def choose(values: tuple) -> float:
        return values[int(draw() * len(values))]

    low, high = COMPUTE
    compute = low * (high / low) ** draw()
    N, U = choose(SIZES), choose(TARGET_TOKENS)
    r = 1.0 if regime == "monolingual" else choose(RATIOS)
    k = float(f"{compute / (6 * N) * r / U:.2g}")
    if not EPOCHS[0] <= k <= EPOCHS[1]:
        return None
    r_f, first = r, ""
    if regime == "two stages":
        share, r_1 = choose(SHARES), choose((0.0, 0.0, 0.5)) * r
        r_f = round(r_1 + (r - r_1) / share, 3)
        first = round(r_1, 3)
        if r_f > 1:
            return None
    return {
        "params": N,
        "target_tokens": U,
        "epochs": k,
        "target_ratio": r,
        "final_ratio": r_f,
        "first_ratio": first,
    }


def _measure(row: Row, draw: Callable[[], float]) -> float:
    with jax.enable_x64(True):
        loss = float(m3().loss(COEFFICIENTS, {name: row[name] for name in m3().columns}))
    scatter = SIGMA * float(student_t.ppf(draw(), NU))
    return round(loss * math.exp(scatter), 5)


def csv_text() -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table())
    return text.getvalue()


def truth_text() -> str:
    truth = {
        "what": "what simulated_pilot.csv was simulated at; loss in nats per byte, U in bytes",
        "law": "m3",
        "coefficients": COEFFICIENTS,
        "noise": {"kind": "student-t on log loss", "sigma": SIGMA, "nu": NU},
        "seed": SEED,
    }
    return json.dumps(truth, indent=2) + "\n"


if __name__ == "__main__":
    (FOLDER / "simulated_pilot.csv").write_text(csv_text(), encoding="utf-8", newline="\n")
    (FOLDER / "simulated_pilot.json").write_text(truth_text(), encoding="utf-8", newline="\n")
