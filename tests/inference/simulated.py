"""Small tables whose truth is known, for tests of the engine."""

from __future__ import annotations

import jax
import numpy as np
import pandas as pd

from m3bayes.laws.law import Law
from m3bayes.runs import Runs, runs_from_frame

CHINCHILLA = {"E": 1.7, "A": 400.0, "B": 410.0, "alpha": 0.34, "beta": 0.285}
M3 = CHINCHILLA | {
    "P": 0.05, "lambda": 0.1, "tau": 0.25, "eta": 0.85, "gamma": 0.15, "delta": 0.9, "kappa": 0.5, "omega": 1.2,
}  # fmt: skip


def monolingual(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Recipes of one epoch over target text alone."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "params": np.exp(random.uniform(np.log(1e7), np.log(5e9), rows)),
            "target_tokens": np.exp(random.uniform(np.log(2e8), np.log(1e11), rows)),
            "epochs": 1.0,
            "target_ratio": 1.0,
            "final_ratio": 1.0,
        }
    )


def mixed(rows: int = 80, seed: int = 0) -> pd.DataFrame:
    """Recipes over all four variables."""
    random = np.random.default_rng(seed)
    r = np.where(random.random(rows) < 0.3, 1.0, random.uniform(0.1, 0.9, rows))
    two_stage = (random.random(rows) < 0.5) & (r < 1)
    return monolingual(rows, seed).assign(
        epochs=np.exp(random.uniform(np.log(0.5), np.log(30), rows)),
        target_ratio=r,
        final_ratio=np.where(two_stage, np.minimum(1.0, r * random.uniform(1.2, 4.0, rows)), r),
        first_ratio=np.where(two_stage, 0.0, np.nan),
    )


def measured(
    law: Law, truth: dict[str, float], recipes: pd.DataFrame, sigma: float = 0.01, seed: int = 0
) -> Runs:
    """The recipes with losses of a law and normal scatter of the log loss."""
    with jax.enable_x64(True):
        columns = {name: np.asarray(recipes[name]) for name in law.columns}
        surface = np.asarray(jax.vmap(law.log_loss, in_axes=(None, 0))(truth, columns))
    scatter = sigma * np.random.default_rng(seed + 1).normal(size=len(recipes))
    return runs_from_frame(recipes.assign(loss=np.exp(surface + scatter)))
