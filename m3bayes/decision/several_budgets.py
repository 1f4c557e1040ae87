"""Faces of a request with several budgets: cut at the tokens where another budget becomes the tightest.

Within all budgets N may be as large as the tightest of them allows, which has a kink where two of them cross, and
the optimum often lies there. Cut there, every face is smooth and the crossing is one of its corners.

| symbol | meaning | unit |
|---|---|---|
| D | all tokens seen | table's |
| N | parameters | table's |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from m3bayes.decision.faces import Face, Regime, faces
from m3bayes.decision.space import ROUNDING, Space
from m3bayes.errors import InfeasibleError

# tokens at which the tightest budget is looked up, before it is bisected where it changes
LOOKED_AT = 65
# cuts are moved apart by this share, so that the slope at a face's end is that of its own side
APART = 1e-9


def faces_within(space: Space) -> tuple[dict[Regime, tuple[Face, ...]], dict[Regime, str]]:
    """As :func:`m3bayes.decision.faces.faces`, for any number of budgets."""
    _check_budgets(space)
    whole, excluded = faces(space)
    cuts = crossings(space)
    if not cuts:
        return whole, excluded
    tokens = space["tokens"]
    found: dict[Regime, tuple[Face, ...]] = dict.fromkeys(whole, ())
    ends = [tokens.low / (1 + APART), *cuts, tokens.high / (1 - APART)]
    for low, high in pairwise(ends):
        piece = replace(tokens, low=low * (1 + APART), high=high * (1 - APART))
        try:
            several, _ = faces(replace(space, bounds={**space.bounds, "tokens": piece}))
        except InfeasibleError:
            continue
        for regime, some in several.items():
            found[regime] += some
    # where all of a regime lies on a cut, no piece has it
    return {regime: some or whole[regime] for regime, some in found.items()}, excluded


def _check_budgets(space: Space) -> None:
    """Raise InfeasibleError for the first budget, in its own unit, that the cheapest recipe is beyond."""
    N, k = space["params"], space["epochs"]
    tokens = k.low * space.target_tokens / space["target_ratio"].high
    text = f"{k.low_text} over {space.target_tokens:.4g} target tokens"
    if tokens < space["tokens"].low:
        tokens, text = space["tokens"].low, space["tokens"].low_text
    for budget in space.budgets:
        spent, unit = float(budget.cost.flops(N.low, tokens)), budget.cost.unit
        if spent > budget.most * (1 + ROUNDING):
            raise InfeasibleError(
                f"no recipe is feasible: {N.low_text} and {text} already cost {spent:.4g} {unit}, "
                f"more than {space.limit_text(budget)}"
            )


def crossings(space: Space) -> list[float]:
    """The D within their bounds at which another budget begins to limit N, rising."""
    if len(space.budgets) == 1:
        return []
    N, D = space["params"], space["tokens"]
    high = min(D.high, space.cost.tokens(space.compute, N.low))
    if not D.low < high:
        return []

    def tightest(log_D: float) -> int:
        tokens = math.exp(log_D)
        return int(np.argmin([budget.cost.params(budget.most, tokens) for budget in space.budgets]))

    logs = np.linspace(math.log(D.low), math.log(high), LOOKED_AT).tolist()
    found = [tightest(log_D) for log_D in logs]
    changes = [i for i in range(1, LOOKED_AT) if found[i] != found[i - 1]]
    cuts = [math.exp(_change(tightest, logs[i - 1], logs[i])) for i in changes]
    return [cut for cut in cuts if D.low * (1 + 2 * APART) < cut < D.high * (1 - 2 * APART)]


def _change(of: Callable[[float], int], low: float, high: float) -> float:
    """Where a step function first differs from its value at ``low``."""
    before = of(low)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle) == before else (low, middle)
    return low
