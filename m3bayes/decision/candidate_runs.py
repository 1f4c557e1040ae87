"""Runs to choose from where the user names none."""

from __future__ import annotations

import math

import jax
import numpy as np
import pandas as pd

from m3bayes.decision.budgets import CostLike, Number, request
from m3bayes.decision.space import ranges
from m3bayes.errors import InfeasibleError
from m3bayes.inference.posterior import Posterior
from m3bayes.table_checks import VARIABLES

CANDIDATES = 48


def candidate_runs(
    post: Posterior, budget: Number, *, seed: int = 0, cost: CostLike | None = None
) -> pd.DataFrame:
    """Recipes to choose from: 48 spread over the range of the runs in N, U, k, r and r_f, each within the budget.

    A third each monolingual, single-stage and two-stage, as far as the runs had such. For laws that read the
    recipe's own columns only. Raises InfeasibleError where the budget pays for none.
    """
    from scipy.stats import qmc  # slow to import

    runs, ends = post.runs, ranges(post.runs)
    u = qmc.Sobol(6, rng=np.random.default_rng(seed)).random_base2(12)

    def between(i: int, low: float, high: float) -> np.ndarray:
        return np.exp(math.log(low) + u[:, i] * math.log(high / low))

    N, k = between(0, *ends["params"]), between(1, *ends["epochs"])
    U = between(2, float(runs["target_tokens"].min()), float(runs["target_tokens"].max()))
    kind = np.floor(3 * u[:, 5])
    r_f = np.where(kind == 0, 1.0, between(4, *ends["final_ratio"]))
    low, high = ends["last_stage_share"]
    share = np.where(kind == 2, low + u[:, 3] * (high - low), 1.0)
    r = share * r_f
    D = k * U / r
    asked = request(post, cost, None)
    with jax.enable_x64(True):
        flops = np.asarray(asked.cost.in_units(runs.unit_params, runs.unit_tokens).flops(N, D))
    inside = flops <= budget
    for name, values in {
        "target_ratio": r,
        "final_ratio": r_f,
        "tokens": D,
        "source_tokens": D * (1 - r),
    }.items():
        inside &= (values >= ends[name][0] * (1 - 1e-9)) & (values <= ends[name][1] * (1 + 1e-9))
    rows = np.flatnonzero(inside)[:CANDIDATES]
    if not len(rows):
        raise InfeasibleError(
            f"no run in the range of the runs costs at most {budget:.4g} FLOP; raise the budget or give candidates"
        )
    first = np.where(kind == 2, 0.0, np.nan)
    named = dict(zip(VARIABLES, (N, U, k, r, r_f, first), strict=True))
    return pd.DataFrame({name: values[rows] for name, values in named.items()})
