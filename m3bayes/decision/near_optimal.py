"""The near-optimal set {x : P(L(x) - L* <= tolerance) >= .9}: how freely one may choose.

L(x) is the loss of recipe x and L* the smallest over all feasible recipes, both by draw. The set has no
simple form; it is described by the recipes of it that a search finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import pandas as pd
from jax import Array
from jaxtyping import Float

from m3bayes.decision.cost import Cost
from m3bayes.decision.faces import Face, Regime, arrays, recipe_at
from m3bayes.decision.optimize import Optima
from m3bayes.decision.space import RECIPE, Space
from m3bayes.decision.starts import Points
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import loss_draws
from m3bayes.recipe import Recipe
from m3bayes.table_checks import same_ratio

PROBABILITY = 0.9
BLOCK = 512


@dataclass(frozen=True, eq=False)
class NearOptimal:
    """Recipes that are within ``tolerance`` of the optimum with at least ``probability``.

    ``ranges``       {variable: (low, high)} of N, k, r, r_f over the members found; empty if there are none
    ``recipes``      the members, one row each, with their ``probability``
    ``candidates``   how many recipes were looked at
    ``probability_recommended``  that of the recommended recipe, a member or not
    """

    tolerance: float | int
    probability: float
    ranges: Mapping[str, tuple[float, float]]
    recipes: pd.DataFrame
    candidates: int
    probability_recommended: float

    @property
    def size(self) -> int:
        return len(self.recipes)


def near_optimal(
    post: Posterior,
    space: Space,
    faces: Mapping[Regime, Sequence[Face]],
    found: Mapping[Regime, Optima],
    least: Float[np.ndarray, " draw"],
    recommended: Recipe,
    its_loss: Float[np.ndarray, " draw"],
    tolerance: float | int,
    seed: int,
) -> NearOptimal:
    """Search the faces for near-optimal recipes; ``least`` is L* by draw, ``its_loss`` the recommended recipe's.

    Candidates are the recommended recipe, points spread over every face, and points scattered about the
    draws' optima; then, twice, points scattered about the members that reach farthest in each variable.
    """
    random = np.random.default_rng(seed)
    limit = least + tolerance
    boxes = [face for regime in faces for face in faces[regime]]
    points = [_first_points(t, random) for regime in faces for t in found[regime].points]
    of_recommended = float(np.mean(its_loss <= limit))
    start = {name: [getattr(recommended, name)] for name in RECIPE} | {"probability": [of_recommended]}
    members = [pd.DataFrame(start).iloc[: int(of_recommended >= PROBABILITY)]]
    candidates = 1
    for scale in (0.05, 0.01, None):
        tables = [_columns(face, space.cost, t) for face, t in zip(boxes, points, strict=True)]
        table = {name: np.concatenate([columns[name] for columns in tables]) for name in tables[0]}
        probability = _probabilities(post, space, table, limit)
        candidates += len(probability)
        inside = np.flatnonzero(probability >= PROBABILITY)
        members.append(pd.DataFrame({**table, "probability": probability}).iloc[inside])
        if scale is None or not len(inside):
            break
        reach = np.stack([table[name][inside] for name in RECIPE])
        ends = inside[np.unique([reach.argmin(axis=1), reach.argmax(axis=1)])]
        at = np.repeat(np.arange(len(boxes)), [len(t) for t in points])[ends]
        t = np.concatenate(points)[ends]
        points = [_scatter(t[at == box], 16, scale, random) for box in range(len(boxes))]
    recipes = pd.DataFrame(pd.concat(members, ignore_index=True), columns=[*RECIPE, "probability"])
    return NearOptimal(
        tolerance=tolerance,
        probability=PROBABILITY,
        ranges=_ranges(recipes),
        recipes=recipes,
        candidates=candidates,
        probability_recommended=of_recommended,
    )


def _ranges(recipes: pd.DataFrame) -> dict[str, tuple[float, float]]:
    if recipes.empty:
        return {}
    values = {name: recipes[name].to_numpy() for name in RECIPE}
    return {name: (float(column.min()), float(column.max())) for name, column in values.items()}


def _first_points(optima: Float[np.ndarray, "draw 4"], random: np.random.Generator) -> Points:
    """96 points all over a face, some of their coordinates at an end, and 160 about some draws' optima."""
    spread, ends = random.uniform(size=(2, 96, 4))
    spread = np.where(ends < 0.15, 0.0, np.where(ends > 0.7, 1.0, spread))
    some = optima[random.integers(len(optima), size=40)]
    return np.concatenate([spread, _scatter(some, 4, 0.1, random)])


def _scatter(
    points: Points, copies: int, scale: float, random: np.random.Generator
) -> Float[np.ndarray, "copy 4"]:
    """Normal noise on some coordinates of copies of the points, kept to the box."""
    copied = np.repeat(points, copies, axis=0)
    moved = random.uniform(size=copied.shape) < 0.6
    return np.clip(copied + moved * random.normal(0, scale, copied.shape), 0.0, 1.0)


def _columns(face: Face, cost: Cost, t: Points) -> dict[str, np.ndarray]:
    """Recipes at the points of a face, which are padded to one size to be compiled once."""
    columns = _recipes_at(cost, arrays(face), np.pad(t, ((0, -len(t) % 256), (0, 0))))
    return {name: np.asarray(values)[: len(t)] for name, values in columns.items()}


@partial(jax.jit, static_argnums=0)
def _recipes_at(cost: Cost, face: Face, t: Array) -> dict[str, Array]:
    return jax.vmap(lambda t: recipe_at(face, t, cost))(t)


def _probabilities(
    post: Posterior, space: Space, table: Mapping[str, np.ndarray], limit: Float[np.ndarray, " draw"]
) -> Float[np.ndarray, " recipe"]:
    """P(L(x) <= limit) of recipes, a block at a time: all draws of all recipes would not fit into memory."""
    total = len(table["params"])
    two_stages = ~same_ratio(table["target_ratio"], table["final_ratio"])
    columns = {
        **table,
        **{name: np.full(total, value) for name, value in space.extra.items()},
        "first_ratio": np.where(two_stages, space.first_ratio, np.nan),
    }
    blocks = [slice(i, i + BLOCK) for i in range(0, total, BLOCK)]
    losses = (loss_draws(post, {name: values[rows] for name, values in columns.items()}) for rows in blocks)
    return np.concatenate([(loss <= limit[:, None]).mean(axis=0) for loss in losses])
