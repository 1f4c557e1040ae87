"""What a training run costs: 6 N D, attention counted too, fitted to logged FLOP, hours or money, or a user's function.

| symbol | meaning | unit |
|---|---|---|
| N | model parameters, without embeddings | parameters |
| D | all tokens seen, of both languages | tokens |
| C | what training costs | FLOP, or the cost's own unit |
| l, d | layers, width of the model | - |
| L | context | tokens |
| u | utilisation, FLOP of the model / FLOP that the machine could do | - |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from m3bayes.decision.cost_model import Cost, CostFunction
from m3bayes.errors import RecipeError, RunTableError
from m3bayes.runs import Runs

__all__ = ["Cost", "as_cost", "fitted", "hours", "money", "six_nd", "tightest", "with_attention"]

Number = float | int
OfSize = Callable[[ArrayLike], ArrayLike]
# sizes and tokens at which a cost is looked at between two ends
LOOKED_AT = 65


def six_nd() -> Cost:
    """C = 6 N D (Kaplan et al. 2020): what the matrix products of a dense transformer cost."""
    return Cost("6ND", _six_nd, _other_of_six_nd, tokens_for=_other_of_six_nd)


def with_attention(context: Number, aspect: Number | OfSize = 100.0) -> Cost:
    """C = (6 N + 12 l d L) D: 6 N D, and what attention over ``context`` = L tokens costs.

    Forward, a token's scores and its mix of values take 2 L d each a layer; the backward pass takes twice the
    forward one: 3 (2 + 2) l d L a token (PaLM, arXiv 2204.02311, appendix B, and Hoffmann et al. 2022,
    appendix F, without the softmax). Kernels that skip what a causal mask hides do half of it, which is what
    Kaplan et al. 2020 (table 1) count: give half the context for that.
    ``aspect`` is d / l, or a function of plain N giving it, written for jax; with N = 12 l d^2 (Kaplan et al.)
    it settles l d = (N / 12)^(2/3) (d / l)^(-1/3). Raises RecipeError where either is not above 0.
    """
    if not (0 < context < math.inf and (callable(aspect) or 0 < aspect < math.inf)):
        raise RecipeError(
            f"context is {context} and aspect {aspect}; expected tokens and d / l, both above 0"
        )
    shape = "" if callable(aspect) else f", d/l = {aspect:g}"
    return as_cost(Cost(f"6ND and attention over {context:g} tokens{shape}", _Attention(context, aspect)))


def fitted(runs: Runs) -> Cost:
    """C = c N^a D^b, by least squares of log C on log N and log D over the runs whose ``flops`` are logged.

    The name has c, a, b and the scatter, the standard deviation of log C about the fit; ``function`` has them as
    fields. Raises RunTableError where ``flops`` are missing, of fewer than 4 runs, or where N and D do not vary
    apart from each other; RecipeError where the fitted cost falls with N or D.
    """
    if "flops" not in runs.columns:
        raise RunTableError(f"{runs.name} has no column flops to fit a cost to; log it, or count 6 N D")
    flops = np.asarray(runs["flops"], float)
    logged = np.isfinite(flops)
    N, D = runs["params"][logged] * runs.unit_params, runs.tokens[logged] * runs.unit_tokens
    if len(N) < 4:
        raise RunTableError(f"{runs.name}: flops are logged of {len(N)} runs; a fitted cost needs 4 or more")
    logs = np.log(np.stack([N, D]))
    centre = logs.mean(axis=1, keepdims=True)
    x = np.column_stack([np.ones(len(N)), *(logs - centre)])
    if np.linalg.matrix_rank(x, tol=1e-6) < 3:
        raise RunTableError(
            f"{runs.name}: params and tokens of the runs with flops do not vary apart from each other; "
            "a fitted cost needs that, 6 N D does not"
        )
    (level, a, b), *_ = np.linalg.lstsq(x, np.log(flops[logged]))
    scatter = float(np.sqrt(np.sum((np.log(flops[logged]) - x @ [level, a, b]) ** 2) / (len(N) - 3)))
    power = Power(float(np.exp(level - a * centre[0, 0] - b * centre[1, 0])), float(a), float(b), scatter)
    name = f"{power.c:.3g} N^{a:.3g} D^{b:.3g} fitted to flops, scatter {scatter:.2g}"
    if min(a, b) <= 0:
        raise RecipeError(f"cost {name} falls with N or D; expected one that increases: look at column flops")
    return Cost(
        name,
        power,
        Power(power.c ** (-1 / a), 1 / power.a, -power.b / power.a),
        tokens_for=Power(power.c ** (-1 / b), 1 / power.b, -power.a / power.b),
    )


def money(
    price_per_flop: Number,
    utilisation: Number | OfSize = 1.0,
    *,
    flops: Cost | None = None,
    unit: str = "money",
) -> Cost:
    """Price of ``flops`` (default 6 N D) at a price for each FLOP that the machine could do.

    ``price_per_flop``  a machine hour's price / (3600 x its peak FLOP a second), in the currency that ``unit`` names
    ``utilisation``     u, the share of that peak the training attains; or a function of plain N, written for jax

    A budget is then a sum of that currency. Raises RecipeError where the price or u is not above 0, or where the
    price falls with N (u rises faster than N).
    """
    if not 0 < price_per_flop < math.inf:
        raise RecipeError(f"price is {price_per_flop} {unit} a FLOP; expected a number above 0")
    flops = six_nd() if flops is None else flops
    if callable(utilisation):
        name = f"{flops.name} at {price_per_flop:.4g} {unit} a FLOP, utilisation by N"
        return as_cost(Cost(name, _Priced(flops.function, price_per_flop, utilisation), unit=unit))
    if not 0 < utilisation <= 1:
        raise RecipeError(f"utilisation is {utilisation}; expected a share above 0 and at most 1")
    name = f"{flops.name} at {price_per_flop:.4g} {unit} a FLOP, utilisation {utilisation:g}"
    factor = price_per_flop / utilisation
    return Cost(
        name,
        _Times(flops.function, factor),
        flops.params_for and _At(flops.params_for, factor),
        tokens_for=flops.tokens_for and _At(flops.tokens_for, factor),
        unit=unit,
    )


def hours(flop_per_second: Number, utilisation: Number | OfSize = 1.0, *, flops: Cost | None = None) -> Cost:
    """Wall-clock hours of ``flops`` (default 6 N D) on machines that could do so many FLOP a second together.

    ``utilisation`` as for :func:`money`. A budget is then in hours.
    """
    if not 0 < flop_per_second < math.inf:
        raise RecipeError(f"flop_per_second is {flop_per_second}; expected FLOP a second, above 0")
    return money(1 / (3600.0 * flop_per_second), utilisation, flops=flops, unit="hours")


def tightest(budgets: Sequence[tuple[Cost, Number]]) -> Cost:
    """Several budgets as one, in the unit of the first: what a recipe costs, or more where another budget is
    used up sooner. ``budgets`` are (cost, what there is of it).

    A recipe is within all of them where it costs at most the first one. Increases in N and D as they do, with a kink
    where another budget takes over: ``constraints=`` of :func:`m3bayes.recommend` cuts its search there, searches
    that are given this cost do not. Costs with other budgets are compiled anew.
    """
    for cost, most in budgets:
        if not 0 < most < math.inf:
            raise RecipeError(f"the budget of cost {cost.name} is {most} {cost.unit}; expected one above 0")
    (first, most), *others = budgets
    if not others:
        return first
    costs = [cost for cost, _ in budgets]
    factors = [1.0, *(most / budget for _, budget in others)]

    def inverse(name: str) -> _Smallest | None:
        each = [getattr(cost, name) for cost in costs]
        if not all(each):
            return None
        return _Smallest(tuple(_At(one, factor) for one, factor in zip(each, factors, strict=True)))

    return Cost(
        "; ".join([f"{first.name} <= {most:.4g}", *(f"{c.name} <= {b:.4g}" for c, b in others)]),
        _Largest(tuple(_Times(c.function, factor) for c, factor in zip(costs, factors, strict=True))),
        inverse("params_for"),
        tokens_for=inverse("tokens_for"),
        unit=first.unit,
    )


def as_cost(cost: Cost | CostFunction) -> Cost:
    """A user's function as a Cost. Raises RecipeError where it is not a positive, increasing FLOP count."""
    if not isinstance(cost, Cost):
        cost = Cost(getattr(cost, "__name__", "cost"), cost)
    corners = [(1e6, 1e9), (2e6, 1e9), (1e6, 2e9)]
    try:
        base, more_params, more_tokens = (float(jax.jit(cost.function)(N, D)) for N, D in corners)
    except Exception as error:
        said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise RecipeError(
            f"cost {cost.name} failed at N = 1e6, D = 1e9 ({said}); "
            "expected a function of (params, tokens) giving FLOP, written for jax"
        ) from None
    if not (0 < base < more_params < math.inf and base < more_tokens < math.inf):
        raise RecipeError(
            f"cost {cost.name} is {base:g} {cost.unit} at N = 1e6, D = 1e9, {more_params:g} at twice N and "
            f"{more_tokens:g} at twice D; expected a positive FLOP count that increases in both"
        )
    return cost


def check_increases(cost: Cost, params: tuple[float, float], tokens: tuple[float, float]) -> None:
    """Raise RecipeError where a cost does not increase between the ends, in its units, of N and of D."""
    N, D = (np.geomspace(*ends, LOOKED_AT) for ends in (params, tokens))
    sides = [("N", N, (N, tokens[0])), ("N", N, (N, tokens[1]))]
    sides += [("D", D, (params[0], D)), ("D", D, (params[1], D))]
    for letter, along, at in sides:
        values = np.broadcast_to(np.asarray(cost.flops(*at)), along.shape)
        falls = np.flatnonzero(~(np.diff(values) > 0) & (np.diff(along) > 0))
        if len(falls):
            here, there = along[falls[0]], along[falls[0] + 1]
            raise RecipeError(
                f"cost {cost.name} is {values[falls[0]]:.4g} {cost.unit} at {letter} = {here:.4g} and "
                f"{values[falls[0] + 1]:.4g} at {letter} = {there:.4g}; expected one that increases in both"
            )


# --- functions with equality, so that equal costs are compiled once ------------------------------------------


def _six_nd(N: ArrayLike, D: ArrayLike) -> Array:
    return 6.0 * jnp.asarray(N) * D


def _other_of_six_nd(C: ArrayLike, one: ArrayLike) -> ArrayLike:
    """N of D, or D of N."""
    return C / 6.0 / one


@dataclass(frozen=True)
class Power:
    """c x^a y^b; solved for x or y it is another one. ``scatter`` is that of the logs it was fitted to."""

    c: float
    a: float
    b: float
    scatter: float = math.nan

    def __call__(self, x: ArrayLike, y: ArrayLike) -> Array:
        return self.c * jnp.asarray(x) ** self.a * jnp.asarray(y) ** self.b


@dataclass(frozen=True)
class _Attention:
    context: Number
    aspect: Number | OfSize

    def __call__(self, N: ArrayLike, D: ArrayLike) -> Array:
        aspect = self.aspect(N) if callable(self.aspect) else self.aspect
        layers_times_width = (jnp.asarray(N) / 12) ** (2 / 3) * jnp.asarray(aspect) ** (-1 / 3)
        return (6.0 * jnp.asarray(N) + 12.0 * layers_times_width * self.context) * D


@dataclass(frozen=True)
class _Priced:
    flops: CostFunction
    price: Number
    utilisation: OfSize

    def __call__(self, N: ArrayLike, D: ArrayLike) -> Array:
        return jnp.asarray(self.flops(N, D)) * self.price / self.utilisation(N)


@dataclass(frozen=True)
class _Times:
    function: CostFunction
    factor: float

    def __call__(self, N: ArrayLike, D: ArrayLike) -> Array:
        return jnp.asarray(self.function(N, D)) * self.factor


@dataclass(frozen=True)
class _At:
    """The inverse of a cost that was multiplied by a factor."""

    inverse: Callable[[ArrayLike, ArrayLike], ArrayLike]
    factor: float

    def __call__(self, C: ArrayLike, other: ArrayLike) -> ArrayLike:
        return self.inverse(C / self.factor, other)


@dataclass(frozen=True)
class _Largest:
    functions: tuple[CostFunction, ...]

    def __call__(self, N: ArrayLike, D: ArrayLike) -> Array:
        return reduce(jnp.maximum, (jnp.asarray(function(N, D)) for function in self.functions))


@dataclass(frozen=True)
class _Smallest:
    inverses: tuple[_At, ...]

    def __call__(self, C: ArrayLike, other: ArrayLike) -> Array:
        return reduce(jnp.minimum, (jnp.asarray(inverse(C, other)) for inverse in self.inverses))
