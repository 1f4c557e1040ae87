"""Posteriors made by hand, for tests that need draws but no fit."""

from __future__ import annotations

import numpy as np
import pandas as pd

from m3bayes.inference.noise import Noise, student_t
from m3bayes.inference.posterior import Posterior
from m3bayes.laws import chinchilla, m3
from m3bayes.laws.law import Law
from m3bayes.runs import Runs, runs_from_frame

# plausible coefficients: value, sd of its log (of itself for gamma and omega)
CENTRE = {
    "E": (1.7, 0.02), "A": (400.0, 0.05), "alpha": (0.34, 0.004), "B": (410.0, 0.05), "beta": (0.285, 0.004),
    "P": (0.02, 0.2), "lambda": (0.07, 0.3), "tau": (0.25, 0.1), "eta": (0.85, 0.05), "gamma": (0.1, 0.03),
    "delta": (0.9, 0.1), "kappa": (0.5, 0.1), "omega": (1.0, 0.2),
}  # fmt: skip
SIGNED = ("gamma", "omega")


def runs(rows: int = 60, seed: int = 0) -> Runs:
    """A small design over all four variables, single-stage and two-stage, one epoch and many."""
    rng = np.random.default_rng(seed)
    r = np.where(rng.random(rows) < 0.4, 1.0, rng.uniform(0.1, 0.9, rows))
    r_f = np.where(rng.random(rows) < 0.5, r, np.minimum(1.0, r * rng.uniform(1.0, 3.0, rows)))
    frame = pd.DataFrame(
        {
            "params": np.exp(rng.uniform(np.log(2e7), np.log(1e9), rows)),
            "target_tokens": np.exp(rng.uniform(np.log(1e8), np.log(1e10), rows)),
            "epochs": np.where(rng.random(rows) < 0.3, 1.0, np.exp(rng.uniform(0, np.log(20), rows))),
            "target_ratio": r,
            "final_ratio": r_f,
            "loss": np.full(rows, 3.0),
        }
    )
    table = runs_from_frame(frame)
    truth = posterior(m3(), table, chains=1, draws=1, spread=0.0)
    from m3bayes.inference.predict import loss_draws

    frame["loss"] = loss_draws(truth, frame)[0] * np.exp(0.01 * rng.standard_t(5, rows))
    return runs_from_frame(frame)


def posterior(
    law: Law | None = None,
    table: Runs | None = None,
    *,
    noise: Noise | None = None,
    groups: tuple[str, ...] = (),
    chains: int = 2,
    draws: int = 200,
    spread: float = 1.0,
    seed: int = 0,
) -> Posterior:
    """Draws about ``CENTRE``, ``spread`` times as wide; sigma .01 (rising with the group), nu about 5."""
    law, noise = law or chinchilla(), noise or student_t()
    rng = np.random.default_rng(seed)
    shape = (chains, draws)
    values: dict[str, np.ndarray] = {}
    for name in law.names:
        value, sd = CENTRE[name]
        z = spread * sd * rng.standard_normal(shape)
        values[name] = value + z if name in SIGNED else value * np.exp(z)
    # A and alpha move together, as in a fit, so that the terms themselves stay put
    values["A"] *= np.exp(18.0 * (values["alpha"] - CENTRE["alpha"][0]))
    values["B"] *= np.exp(21.0 * (values["beta"] - CENTRE["beta"][0]))
    if "eta" in values:
        values["eta"] = np.minimum(values["eta"], 1.0)
    sigma = 0.01 * np.exp(0.1 * spread * rng.standard_normal(shape))
    values["sigma"] = sigma if noise.by is None else sigma[..., None] * (1.0 + np.arange(len(groups)))
    if noise.kind == "student-t":
        values["nu"] = 2.0 + rng.gamma(3.0, 1.0, shape)
    settings = {"seed": seed, "chains": chains, "draws": draws}
    table = runs() if table is None else table
    return Posterior(law, noise, table, values, groups=groups, settings=settings)
