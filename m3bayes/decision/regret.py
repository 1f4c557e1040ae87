"""What not knowing the loss surface costs: regimes, regret and the near-optimal set, from the draws' own optima.

L_d(x) is the loss of recipe x in draw d and L*_d its smallest over all feasible recipes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import pandas as pd
from jax import Array
from jaxtyping import Bool, Float

from m3bayes.decision.cost import Cost
from m3bayes.decision.faces import REGIMES, Face, Regime, arrays, recipe_at
from m3bayes.decision.optimize import Optima
from m3bayes.decision.space import RECIPE, Space
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import loss_draws
from m3bayes.recipe import Recipe
from m3bayes.table_checks import same_ratio

# regimes are nested: of those whose losses agree to this share, the simplest counts as best
SAME = 1e-6
NEAR_PROBABILITY = 0.9


@dataclass(frozen=True, eq=False)
class Interval:
    """A quantity over the draws: mean, median, and the equal-tailed interval that was asked for."""

    mean: float
    median: float
    lower: float
    upper: float
    draws: Float[np.ndarray, " draw"]


def interval(draws: Float[np.ndarray, " draw"], ci: float) -> Interval:
    lower, median, upper = np.quantile(draws, [(1 - ci) / 2, 0.5, (1 + ci) / 2])
    return Interval(float(np.mean(draws)), float(median), float(lower), float(upper), draws)


def best_regime(found: Mapping[Regime, Optima]) -> np.ndarray:
    """(draw,) name of the simplest regime whose optimum is within SAME of the best."""
    names = [regime for regime in REGIMES if regime in found]
    losses = np.stack([found[regime].loss for regime in names])
    near = losses <= losses.min(axis=0) * (1 + SAME)
    return np.array(names)[np.argmax(near, axis=0)]


def optimum_columns(found: Mapping[Regime, Optima], regime: np.ndarray) -> dict[str, Float[np.ndarray, " draw"]]:
    """N, k, r, r_f, D and the loss at each draw's optimum in its best regime."""
    result = {}
    for name in (*RECIPE, "target_tokens"):
        result[name] = np.select([regime == r for r in found], [found[r].columns[name] for r in found])
    loss = np.select([regime == r for r in found], [found[r].loss for r in found])
    tokens = result["epochs"] * result.pop("target_tokens") / result["target_ratio"]
    return {**result, "tokens": tokens, "loss": loss}


def regime_table(
    found: Mapping[Regime, Optima], excluded: Mapping[Regime, str], margin: float, ci: float
) -> pd.DataFrame:
    """One row a regime. ``probability_best``; the ``gain`` of its optimum over that of the simpler regimes (loss,
    mean and interval); ``probability_gain``, that it is more than the margin; ``excluded``: why it has no
    feasible recipe. NaN where there is nothing to compare."""
    best = best_regime(found)
    rows = {}
    simpler = None
    for regime in REGIMES:
        row = {"probability_best": float(np.mean(best == regime)), "excluded": excluded.get(regime, "")}
        if regime in found:
            loss = found[regime].loss
            if simpler is not None:
                gain = interval(simpler - loss, ci)
                row |= {"gain_mean": gain.mean, "gain_lower": gain.lower, "gain_upper": gain.upper}
                row["probability_gain"] = float(np.mean(gain.draws > margin))
            simpler = loss if simpler is None else np.minimum(simpler, loss)
        rows[regime] = row
    columns = ["probability_best", "gain_mean", "gain_lower", "gain_upper", "probability_gain", "excluded"]
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns).rename_axis("regime")


@dataclass(frozen=True, eq=False)
class NearOptimal:
    """The recipes x with P(L(x) - L* <= tolerance) >= probability, as far as a search through candidates finds them.

    ``ranges``       {variable: (low, high)} of N, k, r, r_f over the members; empty where there are none
    ``recipes``      the members, one row each, with ``probability``
    ``candidates``   how many recipes were looked at
    """

    tolerance: float | int
    probability: float
    ranges: Mapping[str, tuple[float, float]]
    recipes: pd.DataFrame
    candidates: int

    @property
    def size(self) -> int:
        return len(self.recipes)


def near_optimal(
    post: Posterior,
    space: Space,
    faces: Mapping[Regime, Sequence[Face]],
    found: Mapping[Regime, Optima],
    loss: Float[np.ndarray, " draw"],
    recommended: Recipe,
    tolerance: float | int,
    seed: int,
) -> NearOptimal:
    """Search the faces for near-optimal recipes; ``loss`` are the draws' L*.

    Candidates are the recommended recipe, points spread over every face, and points scattered about the draws'
    optima; then, twice, points scattered about the members that reach farthest in each variable.
    """
    random = np.random.default_rng(seed)
    where = [(regime, index) for regime in faces for index in range(len(faces[regime]))]
    points = [_first_points(found[regime].points[index], random) for regime, index in where]
    names = (*RECIPE, "target_tokens")
    members: list[pd.DataFrame] = []
    candidates = 0
    start = pd.DataFrame({name: [getattr(recommended, name)] for name in names})
    for scale in (0.05, 0.01, 0.0):
        tables = [
            pd.DataFrame(_columns(face, space.cost, t)).assign(at=at, point=range(len(t)))
            for at, (face, t) in enumerate(zip((faces[r][i] for r, i in where), points, strict=True))
            if len(t)
        ]
        table = pd.concat([*([start.assign(at=-1, point=0)] if not members else []), *tables], ignore_index=True)
        table["probability"] = _probability(post, space, table, loss + tolerance)
        candidates += len(table)
        inside = table[table["probability"] >= NEAR_PROBABILITY]
        members.append(inside)
        inside = inside[inside["at"] >= 0]
        if inside.empty or not scale:
            break
        extremes = {inside[name].idxmin() for name in RECIPE} | {inside[name].idxmax() for name in RECIPE}
        here = inside.loc[sorted(extremes)]
        points = [
            _scatter(points[at][here.loc[here["at"] == at, "point"].to_numpy()], 16, scale, random)
            for at in range(len(where))
        ]
    recipes = pd.concat(members, ignore_index=True)[[*RECIPE, "probability"]]
    ranges = {name: (float(recipes[name].min()), float(recipes[name].max())) for name in RECIPE if len(recipes)}
    return NearOptimal(tolerance, NEAR_PROBABILITY, ranges, recipes, candidates)


def _first_points(optima: Float[np.ndarray, "draw 4"], random: np.random.Generator) -> Float[np.ndarray, "point 4"]:
    """96 points all over a face, some of their coordinates at an end, and 160 about the optima of some draws."""
    spread, ends = random.uniform(size=(2, 96, 4))
    spread = np.where(ends < 0.15, 0.0, np.where(ends > 0.7, 1.0, spread))
    some = optima[random.integers(len(optima), size=40)]
    return np.concatenate([spread, _scatter(some, 4, 0.1, random)])


def _scatter(
    points: Float[np.ndarray, "point 4"], copies: int, scale: float, random: np.random.Generator
) -> Float[np.ndarray, "copy 4"]:
    """Normal noise on some coordinates of copies of the points, kept to the box."""
    copied = np.repeat(points, copies, axis=0)
    moved = random.uniform(size=copied.shape) < 0.6
    return np.clip(copied + moved * random.normal(0, scale, copied.shape), 0.0, 1.0)


def _columns(face: Face, cost: Cost, t: Float[np.ndarray, "point 4"]) -> dict[str, np.ndarray]:
    """Recipes at the points of a face, which are padded to one size to be compiled once."""
    columns = _recipes_at(cost, arrays(face), np.pad(t, ((0, -len(t) % 256), (0, 0))))
    return {name: np.asarray(values)[: len(t)] for name, values in columns.items()}


@partial(jax.jit, static_argnums=0)
def _recipes_at(cost: Cost, face: Face, t: Array) -> dict[str, Array]:
    return jax.vmap(lambda t: recipe_at(face, t, cost))(t)


def _probability(
    post: Posterior, space: Space, table: pd.DataFrame, limit: Float[np.ndarray, " draw"]
) -> Float[np.ndarray, " recipe"]:
    """P(L(x) <= limit) of the rows of a table, a block at a time: all draws of all recipes would not fit."""
    blocks = []
    for start in range(0, len(table), 512):
        rows = table.iloc[start : start + 512]
        columns = {name: rows[name].to_numpy() for name in (*RECIPE, "target_tokens")}
        columns |= {name: np.full(len(rows), value) for name, value in space.extra.items()}
        two_stages = ~same_ratio(columns["target_ratio"], columns["final_ratio"])
        columns["first_ratio"] = np.where(two_stages, space.first_ratio, np.nan)
        inside: Bool[np.ndarray, "draw recipe"] = loss_draws(post, columns) <= limit[:, None]
        blocks.append(inside.mean(axis=0))
    return np.concatenate(blocks)
