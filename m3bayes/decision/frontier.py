"""frontier(posterior, compute, target_tokens) -> Frontier: what caution costs.

Every recipe of the frontier minimises (1 - w) E[v] + w CVaR[v] for some weight w, where v is the regret, the loss
above each draw's own optimum. At w = 0 that is the recipe of the smallest expected loss, at w = 1 the one whose
worst draws are the least bad. Recipes that another one beats in both are left out.

| symbol | meaning |
|---|---|
| v | regret by draw, the table's unit of loss |
| w | weight of the tail |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from jax.typing import ArrayLike

from m3bayes.decision.constraints import Constraint
from m3bayes.decision.cost import Cost, as_cost, six_nd
from m3bayes.decision.optimize import Surface, best, optima_by_regime
from m3bayes.decision.recommendation import UNITS, flagged, plain, recipe_row
from m3bayes.decision.risk import Risk, cvar, smooth_tail_mean, tail_mean
from m3bayes.decision.several_budgets import faces_within
from m3bayes.decision.space import RECIPE, space
from m3bayes.errors import Note, RecipeError, unique_notes
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import loss_draws
from m3bayes.recipe import Recipe

Number = float | int
WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
# recipes whose mean and CVaR agree to this share of the mean loss are one
SAME = 1e-9


@dataclass(frozen=True, eq=False)
class Frontier:
    """Recipes from the smallest mean regret to the smallest CVaR, none beaten by another in both.

    ``table``    one row a recipe, by rising ``mean``: ``weight`` w, ``mean`` and ``cvar`` of the regret, ``loss_mean``
                 (all in the table's unit of loss), ``regime``, and the recipe
    ``recipes``  the same, as recipes
    ``level``    the CVaR is the mean of the worst 1 - level of the draws
    """

    table: pd.DataFrame
    recipes: tuple[Recipe, ...]
    level: float
    compute: float
    target_tokens: float
    notes: tuple[Note, ...]

    def to_json(self) -> dict[str, Any]:
        """Numbers and texts alone, None for what is not a finite number."""
        notes = [{"code": n.code, "message": n.message, "about": list(n.about)} for n in self.notes]
        about = {"level": self.level, "compute": self.compute, "target_tokens": self.target_tokens}
        return plain(
            {"units": UNITS, "recipes": self.table.to_dict(orient="records"), **about, "notes": notes}
        )


def frontier(
    post: Posterior,
    *,
    compute: Number,
    target_tokens: Number,
    level: float = 0.9,
    weights: Sequence[float] = WEIGHTS,
    cost: Cost | Callable[[ArrayLike, ArrayLike], ArrayLike] | None = None,
    bounds: Mapping[str, Sequence[Number | None]] | None = None,
    freeze: Mapping[str, Number] | None = None,
    constraints: Sequence[Constraint] = (),
) -> Frontier:
    """The mean-CVaR frontier of the regret for a budget; compute in FLOP, the rest as for
    :func:`m3bayes.recommend`.

    ``level`` sets the tail, the worst 1 - level of the draws; ``weights`` are the w to minimise at, from 0 to 1.
    Raises as :func:`m3bayes.recommend`.
    """
    if not (weights and all(0 <= w <= 1 for w in weights)):
        raise RecipeError(f"weights are {list(weights)}; expected some numbers from 0 to 1")
    cvar(level)  # refuses what is no level
    with jax.enable_x64(True):
        asked = space(
            post.runs,
            post.law,
            compute=compute,
            target_tokens=target_tokens,
            cost=as_cost(six_nd() if cost is None else cost),
            bounds=bounds or {},
            freeze=freeze or {},
            constraints=constraints,
        )
        surface, c, extra = Surface(post.law, asked.cost), post.coefficients, asked.further_columns(post.law)
        parts, _ = faces_within(asked)
        found = optima_by_regime(surface, c, extra, parts)
        least = np.min([optimum.loss for optimum in found.values()], axis=0)
        rows: list[tuple[float, str, Recipe]] = []
        for regime, several in parts.items():
            near = [np.median(points, axis=0) for points in found[regime].points]
            for w in sorted(weights):
                risk = Risk("", blend, True, smooth_blend, (float(w), float(level)))
                there = best(surface, risk, c, extra, regime, several, near, least)
                recipe = asked.recipe(**{name: there.columns[name] for name in RECIPE})
                rows.append((float(w), regime, recipe))
    losses = loss_draws(post, [recipe for *_, recipe in rows])
    regrets = losses - np.minimum(least, losses.min(axis=1))[:, None]
    with jax.enable_x64(True):
        tails = np.array([float(tail_mean(jnp.asarray(values), level)) for values in regrets.T])
    points = np.column_stack([regrets.mean(axis=0), tails])
    kept = undominated(points, SAME * float(losses.mean()))
    table = pd.DataFrame(
        [
            {"weight": rows[i][0], "mean": points[i, 0], "cvar": points[i, 1], "loss_mean": losses[:, i].mean(),
             "regime": rows[i][1], **recipe_row(rows[i][2])}
            for i in kept
        ]
    )  # fmt: skip
    return Frontier(
        table=table,
        recipes=tuple(rows[i][2] for i in kept),
        level=float(level),
        compute=asked.compute,
        target_tokens=asked.target_tokens,
        notes=unique_notes([*flagged(post), *asked.notes]),
    )


def blend(values: Array, w: ArrayLike, level: ArrayLike) -> Array:
    """(1 - w) mean + w CVaR."""
    return jnp.mean(values) + w * (tail_mean(values, level) - jnp.mean(values))


def smooth_blend(values: Array, width: ArrayLike, w: ArrayLike, level: ArrayLike) -> Array:
    return jnp.mean(values) + w * (smooth_tail_mean(values, width, level) - jnp.mean(values))


def undominated(points: np.ndarray, same: float) -> list[int]:
    """Rows (mean, CVaR) that no other row is below or level with in both, by rising mean."""
    kept: list[int] = []
    for i in np.lexsort((points[:, 1], points[:, 0])):
        if not kept or points[i, 1] < points[kept[-1], 1] - same:
            kept.append(int(i))
    return kept
