"""recommend_averaged(posteriors, weights) -> Averaged: one recipe when no law is sure.

The recipe minimises a risk over the mixture of the laws' posteriors (:mod:`m3bayes.decision.mixture`). Beside it
stands what each law would have recommended by itself, and what all laws think of every such recipe.

    Var L = sum_i w_i v_i + sum_i w_i (m_i - m)^2        the second part is the disagreement of the laws

| symbol | meaning |
|---|---|
| w_i | weight of law i |
| m_i, v_i | mean and variance, over the draws of law i, of the loss of the recipe |
| m | sum_i w_i m_i |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from m3bayes.decision.mixture import mixture, normalised
from m3bayes.decision.recommend import recommend
from m3bayes.decision.recommendation import Recommendation, numbers, plain, recipe_row
from m3bayes.decision.regret import Interval, interval
from m3bayes.errors import M3BayesError, Note, unique_notes
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import loss_draws
from m3bayes.laws.law import RECIPE_COLUMNS, Law
from m3bayes.recipe import Recipe

Number = float | int
AVERAGED = "averaged"
# share of the variance from which on the laws, not their coefficients, are what is not known
DISAGREE = 0.5


@dataclass(frozen=True, eq=False)
class Averaged:
    """A recipe for a budget over several laws, and what each of them thinks of it. Losses in the table's unit.

    ``weights``        {law: w}, adding to 1
    ``recommendation`` over the mixture: the recipe, its loss, and its regret against each draw's optimum under the
                       draw's own law
    ``regret``         {law: regret of that recipe under the law}
    ``own``            {law: what it recommends by itself}
    ``cross_regret``   table of mean regrets: a row a law that judges, and last their average by weight; a column a law
                       whose own recipe is judged, and last the averaged recipe
    ``between``        share of the variance of the recipe's loss that is between laws
    ``posterior``      the mixture, for :func:`m3bayes.predict`, :func:`m3bayes.evaluate_plans` and the like
    ``notes``          those of the recommendation, and LAWS_DISAGREE
    """

    weights: Mapping[str, float]
    recommendation: Recommendation
    regret: Mapping[str, Interval]
    own: Mapping[str, Recommendation] = field(repr=False)
    cross_regret: pd.DataFrame
    between: float
    posterior: Posterior = field(repr=False)
    notes: tuple[Note, ...]

    @property
    def recipe(self) -> Recipe:
        return self.recommendation.recipe

    def table(self) -> pd.DataFrame:
        """A row a law: its weight, the regret of the averaged recipe under it, then its own recipe and that one's
        loss under it."""
        return pd.DataFrame.from_dict(
            {
                name: {
                    "weight": self.weights[name],
                    "regret_mean": regret.mean,
                    "regret_lower": regret.lower,
                    "regret_upper": regret.upper,
                    **recipe_row(self.own[name].recipe),
                    "loss_mean": self.own[name].loss.mean,
                }
                for name, regret in self.regret.items()
            },
            orient="index",
        ).rename_axis("law")

    def to_json(self) -> dict[str, Any]:
        """Everything but draws, as JSON has it: that of the recommendation, then what the laws think."""
        return self.recommendation.to_json() | plain(
            {
                "weights": self.weights,
                "regret_by_law": {name: numbers(found) for name, found in self.regret.items()},
                "own": {name: recipe_row(found.recipe) for name, found in self.own.items()},
                "cross_regret": self.cross_regret.to_dict(orient="index"),
                "between": self.between,
                "notes": [
                    {"code": note.code, "message": note.message, "about": list(note.about)}
                    for note in self.notes
                ],
            }
        )


def recommend_averaged(
    posteriors: Mapping[str, Posterior],
    weights: Mapping[str, Number],
    *,
    compute: Number,
    target_tokens: Number,
    ci: float = 0.9,
    **request: Any,
) -> Averaged:
    """The recipe of the smallest risk over several laws at once.

    ``posteriors``  {law: posterior}, all of the same runs and noise, all with a discrepancy or all without
    ``weights``     {law: weight}, of any sum: from :func:`m3bayes.rollout_weights`, or one's own belief. Those of
                    leave-one-out (``compare``) reward laws that pass well between runs, not those that hold beyond
    ``compute``, ``target_tokens``, ``ci`` and ``request``   as in :func:`m3bayes.recommend`; further columns are
                    frozen if any of the laws reads them

    Each draw has one law, and its regret is against its optimum under that law: the mixture has as many draws as the
    largest posterior, laws in proportion to their weights. A law of weight 0 has no say, but is asked what it thinks.
    Takes as long as a recommendation of each law and one of all together. Raises M3BayesError for posteriors that do
    not go together, weights that are none, and the errors of ``recommend``.
    """
    if AVERAGED in posteriors:
        raise M3BayesError(
            f"a posterior is named {AVERAGED!r}, which the averaged recipe is; name it by its law"
        )
    shares = normalised(posteriors, weights)
    mixed = mixture(posteriors, shares)
    further = tuple(
        dict.fromkeys(
            column
            for post in posteriors.values()
            for column in post.law.columns
            if column not in (*RECIPE_COLUMNS, "first_ratio")
        )
    )
    asked = {"compute": compute, "target_tokens": target_tokens, "ci": ci, **request}
    posts = {name: _reading(post, further) for name, post in posteriors.items()}
    best = recommend(_reading(mixed, further), **asked)
    own = {name: recommend(post, **asked) for name, post in posts.items()}
    recipes = {name: found.recipe for name, found in own.items()} | {AVERAGED: best.recipe}
    losses = {name: loss_draws(post, list(recipes.values())) for name, post in posts.items()}
    regrets = {name: losses[name] - _least(own[name], losses[name]) for name in posts}
    of_law = pd.DataFrame(
        {name: found.mean(axis=0) for name, found in regrets.items()}, index=list(recipes)
    ).T
    of_all = np.array(list(shares.values())) @ of_law.to_numpy()
    of_law.loc[AVERAGED] = of_all
    between = between_laws([found[:, -1] for found in losses.values()], list(shares.values()))
    return Averaged(
        weights=shares,
        recommendation=best,
        regret={name: interval(found[:, -1], ci) for name, found in regrets.items()},
        own=own,
        cross_regret=of_law.rename_axis(index="law that judges", columns="recipe of"),
        between=between,
        posterior=mixed,
        notes=unique_notes([*best.notes, *_disagree(between, shares)]),
    )


def between_laws(losses: Sequence[Float[np.ndarray, " draw"]], shares: Sequence[float]) -> float:
    """Share of the variance of a mixture that is between its parts, whose draws and weights are given; NaN where
    nothing varies."""
    w = np.array(shares)
    m = np.array([values.mean() for values in losses])
    within = w @ np.array([values.var() for values in losses])
    between = w @ (m - w @ m) ** 2
    return float(between / (between + within)) if between + within > 0 else np.nan


def _least(own: Recommendation, losses: Float[np.ndarray, "draw recipe"]) -> Float[np.ndarray, "draw 1"]:
    """The smallest loss that is known to be feasible, by draw: of the law's search, or of another law's recipe that
    it did not look at."""
    return np.minimum(own.optimum.draws["loss"], losses.min(axis=1))[:, None]


def _disagree(between: float, shares: Mapping[str, float]) -> list[Note]:
    if not between > DISAGREE:
        return []
    said = f"{between:.0%} of the variance of the recipe's loss is between laws, not between draws of one"
    return [Note("LAWS_DISAGREE", said, tuple(name for name, share in shares.items() if share > 0))]


def _reading(post: Posterior, further: tuple[str, ...]) -> Posterior:
    """The posterior with a law that also has the other laws' further columns, so that all judge the same recipes."""
    lacks = tuple(column for column in further if column not in post.law.columns)
    return replace(post, law=_also(post.law, lacks)) if lacks else post


@lru_cache(maxsize=32)
def _also(law: Law, columns: tuple[str, ...]) -> Law:
    return replace(law, columns=(*law.columns, *columns))
