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
TRILINGUAL = MAIN | {"lambda": 0.1, "tau_en": 0.5, "tau_fr": 0.3, "tau_ru": -0.15}
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


def trilingual_runs() -> Runs:
    """60 runs with English, French and Russian beside the target: none of them, each alone, and mixtures of two or
    three; in a third of the runs source text is repeated."""
    random = np.random.default_rng(3)
    shares = [
        (0, 0, 0),
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (1, 1, 0),
        (1, 0, 1),
        (0, 1, 1),
        (2, 1, 1),
        (1, 3, 1),
        (1, 1, 4),
    ]
    rows = []
    for i in range(60):
        N, U = np.exp(random.uniform(np.log([3e7, 2e8]), np.log([1e9, 4e9])))
        k = float(np.exp(random.uniform(np.log(0.5), np.log(8))))
        share = np.array(shares[i % len(shares)], float)
        r = 1.0 if not share.any() else float(random.uniform(0.15, 0.8))
        D_i = k * U * (1 - r) / r * share / max(share.sum(), 1)
        U_i = D_i / (random.uniform(1, 4) if i % 3 == 0 else 1.0)
        row = {"params": N, "target_tokens": U, "epochs": k, "target_ratio": r, "final_ratio": r}
        for s, D, unique in zip(("en", "fr", "ru"), D_i, U_i, strict=True):
            row |= {f"{s}_tokens": D, f"{s}_unique_tokens": unique}
        rows.append(row)
    return runs_from_frame(pd.DataFrame(rows).assign(loss=3.0), name="trilingual")


def by_hand(
    law: Law, centre: Mapping[str, float], runs: Runs, spread: float = 0.02, draws: int = 200, **changes
) -> Posterior:
    """A posterior of draws scattered about ``centre`` by factors of exp(spread); nothing is fitted."""
    random = np.random.default_rng(0)
    shape = (2, draws)
    values = {n: centre[n] * np.exp(spread * random.normal(size=shape)) for n in law.names}
    values |= {"sigma": np.full(shape, 0.01), "nu": np.full(shape, 6.0)}
    return Posterior(law=law, noise=student_t(), runs=runs, draws=values, settings={"seed": 0}, **changes)
