"""The recipe of the smallest risk of a request, regime by regime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from m3bayes.decision.faces import Face, Regime
from m3bayes.decision.optimize import Optima, Surface, best, each_regime
from m3bayes.decision.risk import Risk
from m3bayes.decision.space import RECIPE, Space
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import loss_draws
from m3bayes.recipe import Recipe

# risks that agree to this share are a tie, which the simpler regime wins
TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Choice:
    """A recipe, its loss by draw, and its risk."""

    recipe: Recipe
    loss: Float[np.ndarray, " draw"]
    risk: float


def choices(
    post: Posterior, risk: Risk, recipes: Sequence[Recipe], least: Float[np.ndarray, " draw"]
) -> list[Choice]:
    """Recipes with their losses and risks; regrets count from ``least``, the draws' smallest losses."""
    base = least if risk.of_regret else np.zeros_like(least)
    losses = loss_draws(post, list(recipes)).T
    return [
        Choice(recipe, loss, float(risk(jnp.asarray(loss - base))))
        for recipe, loss in zip(recipes, losses, strict=True)
    ]


def search(
    post: Posterior,
    space: Space,
    faces: Mapping[Regime, Sequence[Face]],
    risk: Risk,
    least: Float[np.ndarray, " draw"],
    found: Mapping[Regime, Optima] | None = None,
) -> dict[Regime, Choice]:
    """The best recipe of each regime over its faces, the simplest regime first. ``found`` are the draws' own
    optima on them, where they are known."""
    surface, extra = Surface(post.law, space.cost), space.further_columns(post.law)

    def solve(regime: Regime) -> Recipe:
        several = faces[regime]
        starts = (
            [np.full(4, 0.5)] * len(several)
            if found is None
            else [np.median(points, axis=0) for points in found[regime].points]
        )
        columns = best(surface, risk, post.coefficients, extra, regime, several, starts, least).columns
        return space.recipe(**{name: columns[name] for name in RECIPE})

    recipes = each_regime(faces, solve)
    return dict(zip(faces, choices(post, risk, list(recipes.values()), least), strict=True))


def simplest(several: Iterable[Choice]) -> Choice:
    """The first, in the order given, of those whose risk is the smallest."""
    several = list(several)
    smallest = min(choice.risk for choice in several)
    return next(choice for choice in several if choice.risk <= smallest + TIE * abs(smallest))
