"""What runs not yet made would say: their outcomes in draws that play the truth, and the weights that these give the
other draws.

| symbol | meaning |
|---|---|
| x_i | a candidate run |
| m, d | a draw that plays the truth, a draw that is weighted |
| s, t | scatter of log loss and its shape: sigma and Student-t or normal |
| w_md | prod_i p(y_mi given x_i, d), with y_mi = log L_m(x_i) + s_mi t_mi |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from m3bayes.decision.budgets import Number, Request, recommended, regime_optima
from m3bayes.decision.regret import best_regime, optimum_columns
from m3bayes.decision.space import RECIPE
from m3bayes.errors import RecipeError
from m3bayes.inference import new_run
from m3bayes.inference.posterior import Posterior, thinned
from m3bayes.inference.predict import loss_draws
from m3bayes.table_checks import same_ratio

# draws that play the truth, draws that are weighted, draws whose optima are the decisions
TRUTHS, WEIGHTED, DECISIONS = 256, 768, 192
# fewest effective draws that a decision rests on; steps of the search for the power of the weights
FEWEST, HALVINGS = 30, 10


class Outcomes(NamedTuple):
    """``y`` (truth, candidate) simulated log losses; ``mean``, ``scale`` (draw, candidate), and ``nu`` (draw,)
    or None, of the draws that are weighted."""

    y: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    nu: np.ndarray | None


def split(total: int) -> tuple[np.ndarray, np.ndarray]:
    """Which draws play the truth, at most a quarter of them, evenly spaced, and which are weighted."""
    truths = np.arange(0, total, (TRUTHS + WEIGHTED) // TRUTHS)
    return truths, np.setdiff1d(np.arange(total), truths)


def simulated(
    post: Posterior, columns: Mapping[str, np.ndarray], noise: new_run.Scatter, random: np.random.Generator
) -> Outcomes:
    loss = loss_draws(post, columns)
    scale = np.sqrt(noise.sigma[noise.group].T ** 2 + (noise.se / loss) ** 2)
    truths, weighted = split(len(loss))
    shape = (len(truths), loss.shape[1])
    if post.noise.kind == "normal":
        nu, t = None, random.standard_normal(shape)
    else:
        nu = post.draws["nu"].reshape(-1)
        t = random.standard_t(nu[truths, None], shape)
        nu = nu[weighted]
    mean = np.log(loss)
    return Outcomes(mean[truths] + scale[truths] * t, mean[weighted], scale[weighted], nu)


def log_likelihood(outcomes: Outcomes, row: int) -> Float[np.ndarray, "truth draw"]:
    """Of each draw given each truth's outcome of one candidate, without constants common to all draws."""
    scale, nu = outcomes.scale[:, row], outcomes.nu
    squared = ((outcomes.y[:, row, None] - outcomes.mean[:, row]) / scale) ** 2
    if nu is None:
        return -0.5 * squared - np.log(scale)
    constant = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - 0.5 * np.log(nu) - np.log(scale)
    return constant - (nu + 1) / 2 * np.log1p(squared / nu)


def regret_of(asked: Request, compute: Number, target_tokens: Number) -> Callable[[np.ndarray], np.ndarray]:
    """Regret, in the draw that plays the truth, of the recipe that is best by weighted mean loss.

    Decisions are optima of evenly spaced draws, and the recipe recommended now.
    """
    few = Request(thinned(asked.post, DECISIONS), asked.cost, asked.bounds, asked.freeze)
    space = few.at(compute, target_tokens)
    now, *_ = recommended(few, space)
    found = regime_optima(few, space)
    optima = optimum_columns(found, best_regime(found))
    columns = {name: np.append(optima[name], getattr(now, name)) for name in RECIPE}
    two_stages = ~same_ratio(columns["target_ratio"], columns["final_ratio"])
    columns |= {name: np.full(len(two_stages), value) for name, value in space.extra.items()}
    columns |= {"target_tokens": np.full(len(two_stages), space.target_tokens)}
    columns |= {"first_ratio": np.where(two_stages, space.first_ratio, np.nan)}
    loss = loss_draws(asked.post, columns)
    regret = loss - loss.min(axis=1, keepdims=True)
    truths, weighted = split(len(regret))
    in_truth, in_weighted = regret[truths], regret[weighted]

    def score(weights: np.ndarray) -> np.ndarray:
        chosen = np.argmin(weights @ in_weighted, axis=1)
        return in_truth[np.arange(len(truths)), chosen]

    return score


def error_of(post: Posterior, goal: Callable) -> Callable[[np.ndarray], np.ndarray]:
    """Squared error of a quantity's weighted mean, in the draw that plays the truth."""
    values = np.asarray(goal(post.coefficients), dtype=np.float64)
    total = len(next(iter(post.coefficients.values())))
    if values.shape != (total,) or not np.all(np.isfinite(values)):
        raise RecipeError(
            f"goal gave {values.shape} values, some maybe not finite; expected a finite one a draw, ({total},)"
        )
    truths, weighted = split(total)
    return lambda weights: (values[truths] - weights @ values[weighted]) ** 2


def weights_of(log_weights: Float[np.ndarray, "truth draw"]) -> Float[np.ndarray, "truth draw"]:
    """Normalised weights; where they would leave fewer than FEWEST effective draws, the power of them, below 1,
    that leaves so many: as if the outcomes said less than they do."""
    weights = normalised(log_weights)
    low = np.flatnonzero(effective(weights) < FEWEST)
    if not len(low):
        return weights
    some, least, most = log_weights[low], np.zeros(len(low)), np.ones(len(low))
    for _ in range(HALVINGS):
        power = (least + most) / 2
        enough = effective(normalised(power[:, None] * some)) >= FEWEST
        least, most = np.where(enough, power, least), np.where(enough, most, power)
    weights[low] = normalised(least[:, None] * some)
    return weights


def normalised(log_weights: np.ndarray) -> np.ndarray:
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def effective(weights: np.ndarray) -> Float[np.ndarray, " truth"]:
    return 1 / np.sum(weights**2, axis=1)
