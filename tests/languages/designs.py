"""Designs of 48 runs, and posteriors made by hand, for the laws of many languages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from m3bayes.inference.noise import student_t
from m3bayes.inference.posterior import Posterior
from m3bayes.laws.law import Law
from m3bayes.runs import Runs, runs_from_frame

MAIN = {"E": 1.7, "A": 400.0, "B": 900.0, "alpha": 0.34, "beta": 0.31}
MULTILINGUAL = MAIN | {"phi": 0.11, "psi": -0.04}
# head start 2.8e9 tokens at N = 3e8, twice that at 9e8; the curves cross at 7e9 and 1.4e10
CONTINUED = MAIN | {"G": 0.0589, "zeta": 0.2, "rho": 0.6}


def multilingual_runs() -> Runs:
    """Four sizes, 1 to 16 languages with 1 / K of the text each, three amounts of it a language."""
    rows = [
        {"params": N, "target_tokens": T * N / 1e8, "epochs": 1.0, "target_ratio": 1 / K,
         "final_ratio": 1 / K, "languages": K}
        for N in (3e7, 1e8, 3e8, 1e9)
        for K in (1.0, 2.0, 5.0, 16.0)
        for T in (3e8, 2e9, 1.2e10)
    ]  # fmt: skip
    return runs_from_frame(pd.DataFrame(rows).assign(loss=3.0), name="multilingual")


def continued_runs() -> Runs:
    """Four sizes, from scratch and from a checkpoint, six amounts of text."""
    rows = [
        {"params": N, "target_tokens": T, "epochs": 1.0, "start": start, "continued": continued}
        for N in (3e7, 1e8, 3e8, 1e9)
        for start, continued in (("scratch", 0.0), ("checkpoint", 1.0))
        for T in (2e8, 8e8, 3e9, 1.2e10, 5e10, 2e11)
    ]
    return runs_from_frame(pd.DataFrame(rows).assign(loss=3.0), name="continued")


def by_hand(
    law: Law, centre: Mapping[str, float], runs: Runs, spread: float = 0.02, draws: int = 200, **changes
) -> Posterior:
    """A posterior of draws scattered about ``centre`` by factors of exp(spread); nothing is fitted."""
    random = np.random.default_rng(0)
    shape = (2, draws)
    values = {n: centre[n] * np.exp(spread * random.normal(size=shape)) for n in law.names}
    values |= {"sigma": np.full(shape, 0.01), "nu": np.full(shape, 6.0)}
    return Posterior(law=law, noise=student_t(), runs=runs, draws=values, settings={"seed": 0}, **changes)
