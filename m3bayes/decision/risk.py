"""Risks: the one number that a recipe's losses come to over the draws, and that is minimised.

L_d is the loss of a recipe in draw d, L*_d the smallest of all feasible recipes in that draw. A risk takes the
losses L_d, or the regrets L_d - L*_d, to a number. Regrets show what a wrong recipe costs: the tails of the
losses themselves are mostly those draws in which everything costs much (a large E), whatever the recipe.

Quantiles and shares of draws have kinks wherever two draws change places. The search therefore goes over a
smooth form, in which each draw is spread over a ``width`` in units of the draws' standard deviation, and which
is the exact one in the limit of no width; what is chosen and reported goes by the exact form.

| symbol | meaning |
|---|---|
| v | losses or regrets by draw |
| s | width times the standard deviation of v, logistic scale of the smoothing |
| q | share of the draws below a quantile, or outside the tail of a CVaR |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from m3bayes.errors import RecipeError

KINDS = "mean, quantile:Q, cvar:Q, regret-quantile:Q, regret-cvar:Q"


@dataclass(frozen=True)
class Risk:
    """A risk of one recipe, called with its losses or regrets (draw,), never lower where they are all higher.

    ``name``       for reports
    ``function``   (values, *at) -> scalar, differentiable by jax almost everywhere
    ``of_regret``  the values are regrets, not losses
    ``smooth``     (values, width, *at) -> scalar, twice differentiable; None where ``function`` is that
    ``at``         numbers that both take: one compilation serves all of them
    """

    name: str
    function: Callable[..., Array]
    of_regret: bool = False
    smooth: Callable[..., Array] | None = None
    at: tuple[float, ...] = ()

    def __call__(self, values: Array) -> Array:
        return self.function(values, *self.at)


def mean() -> Risk:
    """The expected loss, in its unit. The expected regret has the same optimum."""
    return Risk("mean", jnp.mean)


def quantile(q: float) -> Risk:
    """The loss that a share ``q`` of the draws stays below, in the table's unit."""
    return Risk(f"quantile:{_share(q):g}", exact_quantile, False, smooth_quantile, (float(q),))


def cvar(level: float) -> Risk:
    """Mean loss of the worst ``1 - level`` of the draws, in the table's unit (Rockafellar and Uryasev 2000)."""
    return Risk(f"cvar:{_share(level):g}", tail_mean, False, smooth_tail_mean, (float(level),))


def regret_quantile(q: float) -> Risk:
    """The regret that a share ``q`` of the draws stays below, in the table's unit."""
    return Risk(f"regret-quantile:{_share(q):g}", exact_quantile, True, smooth_quantile, (float(q),))


def regret_cvar(level: float) -> Risk:
    """Mean regret of the worst ``1 - level`` of the draws, in the table's unit."""
    return Risk(f"regret-cvar:{_share(level):g}", tail_mean, True, smooth_tail_mean, (float(level),))


def probability_of(loss_at_most: float) -> Risk:
    """The probability of a loss above ``loss_at_most`` (the table's unit): its optimum makes a loss at most
    that most likely."""
    if not math.isfinite(loss_at_most):
        raise RecipeError(f"loss_at_most is {loss_at_most}; expected a finite loss in the table's unit")
    name = f"P(loss > {loss_at_most:g})"
    return Risk(name, share_above, False, smooth_share_above, (float(loss_at_most),))


def parse(text: str) -> Risk:
    """A risk from its name: mean, quantile:Q, cvar:Q, regret-quantile:Q or regret-cvar:Q.

    Raises RecipeError for anything else.
    """
    kind, colon, number = text.strip().partition(":")
    known = {
        "quantile": quantile,
        "cvar": cvar,
        "regret-quantile": regret_quantile,
        "regret-cvar": regret_cvar,
    }
    if kind == "mean" and not colon:
        return mean()
    try:
        return known[kind](float(number))
    except (KeyError, ValueError):
        raise RecipeError(
            f"risk {text!r} is not known; expected one of {KINDS}, with Q between 0 and 1"
        ) from None


def as_risk(risk: Risk | Callable[[Array], Array] | None) -> Risk:
    """The risk itself, the mean for None, or a function of the losses (draw,) as a risk."""
    if risk is None:
        return mean()
    if not callable(risk):
        raise RecipeError(
            f"risk is {risk!r}; expected one of m3bayes.risk, or a function of the losses (draw,)"
        )
    return risk if isinstance(risk, Risk) else Risk(getattr(risk, "__name__", "risk"), risk)


# --- exact and smooth forms of (draw,) values --------------------------------------------------------------


def exact_quantile(values: Array, q: ArrayLike) -> Array:
    """As `jnp.quantile`, between two draws on the line from one to the other."""
    place = q * jnp.asarray(values.size - 1.0)
    rank = jnp.floor(place)
    lower = value_of_rank(values, rank)
    following = jnp.min(jnp.where(values > lower, values, jnp.inf))
    upper = jnp.where(jnp.sum(values <= lower) > rank + 1, lower, following)
    between = (place > rank) & (upper > lower)
    return jnp.where(between, lower + (place - rank) * (upper - lower), lower)


def tail_mean(values: Array, level: ArrayLike) -> Array:
    """Mean of the worst 1 - level of the values; the draw at the edge counts with the part of it inside."""
    inside = (1 - jnp.asarray(level)) * values.size
    edge = value_of_rank(values, values.size - jnp.ceil(inside))
    worse = values > edge
    return (jnp.sum(jnp.where(worse, values, 0.0)) + (inside - jnp.sum(worse)) * edge) / inside


def value_of_rank(values: Array, rank: ArrayLike) -> Array:
    """The value that ``rank`` others are below, from 0, without sorting, which is slow: by counting how many are at
    most a limit, which is moved until it separates that value from the one before."""
    fixed = lax.stop_gradient(values)

    def unfinished(state: tuple[Array, ...]) -> Array:
        _, low, high, below, _ = state
        middle = (low + high) / 2
        return (below != rank) & (low < middle) & (middle < high)

    def narrow(state: tuple[Array, ...]) -> tuple[Array, ...]:
        turn, low, high, below, within = state
        # in turn where the counts at both ends say that it is, and halfway
        share = jnp.where(turn % 2 == 0, (rank + 0.5 - below) / (within - below), 0.5)
        limit = low + share * (high - low)
        limit = jnp.where((low < limit) & (limit < high), limit, (low + high) / 2)
        count = jnp.sum(fixed <= limit)
        less = count <= rank
        return (
            turn + 1,
            jnp.where(less, limit, low),
            jnp.where(less, high, limit),
            jnp.where(less, count, below),
            jnp.where(less, within, count),
        )

    # a recipe may have an infinite loss in some draws
    finite = jnp.isfinite(fixed)
    least, most = jnp.min(fixed), jnp.max(jnp.where(finite, fixed, -jnp.inf))
    margin = (most - least) / values.size + 1e-12 * (jnp.abs(least) + jnp.abs(most)) + 1e-300
    start = (jnp.zeros((), int), least - margin, most + margin, jnp.zeros((), int), jnp.sum(finite))
    low = lax.while_loop(unfinished, narrow, start)[1]
    return jnp.min(jnp.where(values > low, values, jnp.inf))


def share_above(values: Array, limit: ArrayLike) -> Array:
    return jnp.mean(values > limit, dtype=values.dtype)


def smooth_quantile(values: Array, width: ArrayLike, q: ArrayLike) -> Array:
    """The x below which a share q lies of the draws, each spread over a logistic distribution of scale s."""
    s = _scale(values, width)
    # from the root, a Newton step differentiates exactly once, the second one twice
    x = _smooth_root(*(lax.stop_gradient(each) for each in (values, s, jnp.asarray(q))))
    for _ in range(2):
        below = jax.nn.sigmoid((x - values) / s)
        x = x - (jnp.mean(below) - q) / jnp.mean(below * (1 - below) / s)
    return x


def smooth_tail_mean(values: Array, width: ArrayLike, level: ArrayLike) -> Array:
    """min over x of x + E[s log(1 + exp((v - x) / s))] / (1 - level): its minimum is the smooth quantile."""
    s, x = _scale(values, width), smooth_quantile(values, width, level)
    return x + jnp.mean(s * jax.nn.softplus((values - x) / s)) / (1 - level)


def smooth_share_above(values: Array, width: ArrayLike, limit: ArrayLike) -> Array:
    return jnp.mean(jax.nn.sigmoid((values - limit) / _scale(values, width)))


def _scale(values: Array, width: ArrayLike) -> Array:
    # the floor keeps draws that agree (a standard deviation of 0) differentiable
    return jnp.sqrt(jnp.var(values) + 1e-24) * width


def _smooth_root(values: Array, s: Array, q: Array) -> Array:
    """Newton's method from the normal distribution's quantile, kept inside a shrinking bracket."""
    guess = jnp.mean(values) + jnp.std(values) * jax.scipy.special.ndtri(q)

    def step(state: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array, Array]:
        count, low, high, x, _ = state
        below = jax.nn.sigmoid((x - values) / s)
        error, slope = jnp.mean(below) - q, jnp.mean(below * (1 - below)) / s
        low, high = jnp.where(error < 0, x, low), jnp.where(error < 0, high, x)
        newton = x - error / slope
        to = jnp.where((newton > low) & (newton < high), newton, (low + high) / 2)
        return count + 1, low, high, to, jnp.abs(to - x)

    def unfinished(state: tuple[Array, Array, Array, Array, Array]) -> Array:
        return (state[0] < 60) & (state[4] > 1e-4 * s)

    start = (jnp.zeros((), int), jnp.min(values) - 40 * s, jnp.max(values) + 40 * s, guess, jnp.inf * s)
    return lax.while_loop(unfinished, step, start)[3]


def _share(q: float) -> float:
    if not 0 < q < 1:
        raise RecipeError(f"the level of a risk is {q}; expected a share of the draws between 0 and 1")
    return q
