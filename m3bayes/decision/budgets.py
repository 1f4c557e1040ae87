"""Every draw's optima at many budgets: what maps over compute and target text are made of.

| symbol | meaning | unit |
|---|---|---|
| C | compute | FLOP |
| U = D_T | unique target tokens | table's |
| D*(C), N*(C) | compute-optimal tokens and size of monolingual training without repetition, a draw each | table's |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from m3bayes.decision.baselines import fresh_tokens
from m3bayes.decision.constraints import Constraint
from m3bayes.decision.cost import Cost, as_cost, six_nd
from m3bayes.decision.faces import Regime
from m3bayes.decision.nearby import nearby_optima
from m3bayes.decision.optimize import Draws, Optima, Surface, best, optima
from m3bayes.decision.recommendation import flagged
from m3bayes.decision.risk import mean
from m3bayes.decision.several_budgets import faces_within
from m3bayes.decision.space import RECIPE, Bounds, Space, space
from m3bayes.errors import InfeasibleError, Note, RecipeError
from m3bayes.inference.posterior import Posterior, thinned
from m3bayes.inference.predict import loss_draws
from m3bayes.recipe import Recipe

Number = float | int
CostLike = Cost | Callable[[ArrayLike, ArrayLike], ArrayLike]
Grid = Sequence[Number] | np.ndarray
Found = dict[Regime, Optima]
Recommended = tuple[Recipe, Float[np.ndarray, " draw"], Space]
MOST_DRAWS = 1000
# along a row of budgets, one in so many is searched from scratch
EVERY = 3


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked at every budget alike: a posterior's draws, a cost model, bounds, what is frozen, constraints."""

    post: Posterior
    cost: Cost
    bounds: Bounds
    freeze: Mapping[str, Number]
    constraints: Sequence[Constraint] = ()

    @property
    def coefficients(self) -> Draws:
        return self.post.coefficients

    def at(self, compute: Number, target_tokens: Number) -> Space:
        with jax.enable_x64(True):
            return space(
                self.post.runs,
                self.post.law,
                compute=compute,
                target_tokens=target_tokens,
                cost=self.cost,
                bounds=self.bounds,
                freeze=self.freeze,
                constraints=self.constraints,
            )

    def surface(self, space: Space) -> Surface:
        return Surface(self.post.law, space.cost)

    def notes(self, compute: Grid, target_tokens: Grid) -> list[Note]:
        """On the posterior, and on the corners of a map."""
        corners = [
            (C, U) for C in (min(compute), max(compute)) for U in (min(target_tokens), max(target_tokens))
        ]
        return [*flagged(self.post), *(note for corner in corners for note in self.at(*corner).notes)]


def request(
    post: Posterior,
    cost: CostLike | None,
    bounds: Bounds | None,
    freeze: Mapping[str, Number] | None = None,
    most: int = MOST_DRAWS,
    constraints: Sequence[Constraint] = (),
) -> Request:
    """A request over at most ``most`` of the draws, evenly thinned."""
    cost = as_cost(six_nd() if cost is None else cost)
    remembering = _Remembering(
        cost.name, cost.function, cost.params_for, tokens_for=cost.tokens_for, unit=cost.unit
    )
    return Request(thinned(post, most), remembering, bounds or {}, freeze or {}, tuple(constraints))


def regime_optima(
    asked: Request,
    space: Space,
    near: Sequence[Mapping[Regime, Optima]] = (),
) -> Found:
    """Each draw's optima by regime; regimes without a feasible recipe are left out, maybe all of them.

    Where a regime has optima ``near``, those of one or two other budgets, its search starts from them alone.
    """
    found: Found = {}
    c = asked.coefficients
    with jax.enable_x64(True):
        try:
            parts, _ = faces_within(space)
        except InfeasibleError:
            return {}
        surface, extra = asked.surface(space), space.further_columns(asked.post.law)
        for regime, boxes in parts.items():
            starts = [other[regime].columns for other in near if regime in other]
            # the monolingual regime has few faces, which are searched as fast from scratch
            if starts and regime != "monolingual":
                loss, columns = nearby_optima(surface, c, extra, boxes, [starts[0], starts[-1]])
                found[regime] = Optima(loss, columns, ())
            else:
                found[regime] = optima(surface, c, extra, regime, boxes)
    return found


def along_text(asked: Request, compute: Number, target_tokens: Grid) -> list[Found]:
    """Optima at one compute along D_T: every third from scratch, those between from their neighbours."""
    last = len(target_tokens) - 1
    scratch = sorted({*range(0, last + 1, EVERY), last})
    found = {i: regime_optima(asked, asked.at(compute, target_tokens[i])) for i in scratch}
    for left, right in pairwise(scratch):
        near = [found[left], found[right]]
        for i in range(left + 1, right):
            found[i] = regime_optima(asked, asked.at(compute, target_tokens[i]), near)
    return [found[i] for i in range(last + 1)]


def recommended(asked: Request, space: Space) -> Recommended:
    """The recipe of the smallest expected loss, its losses (draw,), and the space it is from. Raises
    InfeasibleError where there is none."""
    with jax.enable_x64(True):
        parts, _ = faces_within(space)
        surface, c, extra = asked.surface(space), asked.coefficients, space.further_columns(asked.post.law)
        centre = np.full(4, 0.5)
        found = [
            best(surface, mean(), c, extra, regime, boxes, [centre] * len(boxes))
            for regime, boxes in parts.items()
        ]
        columns = min(found, key=lambda each: each.risk).columns
        recipe = space.recipe(**{name: columns[name] for name in RECIPE})
    return recipe, loss_draws(asked.post, recipe)[:, 0], space


def check_feasible(asked: Request, compute: Grid, target_tokens: Grid) -> None:
    """Raise the last cell's InfeasibleError where no cell of a map has a feasible recipe."""
    last = None
    with jax.enable_x64(True):
        for C in compute:
            for U in target_tokens:
                try:
                    faces_within(asked.at(C, U))
                    return
                except InfeasibleError as error:
                    last = error
    assert last is not None
    raise InfeasibleError(f"nowhere on the map: {last}")


def fresh(asked: Request, compute: Number) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
    """D*(C) and N*(C) of each draw, whatever the constraints."""
    with jax.enable_x64(True):
        space = replace(asked, constraints=()).at(compute, 1.0)
        D = fresh_tokens(
            space, asked.surface(space), asked.coefficients, space.further_columns(asked.post.law)
        )
        low, high = np.log(1e-3 / space.cost.unit_params), np.log(1e30 / space.cost.unit_params)
        log_N = jax.vmap(lambda log_D: space.cost.log_params(jnp.log(float(compute)), log_D, low, high))(
            np.log(D)
        )
        return D, np.exp(np.asarray(log_N))


def increasing(name: str, values: Grid) -> Float[np.ndarray, " value"]:
    """``values`` as an array. Raises RecipeError unless they are positive, finite numbers that increase."""
    given = np.asarray(values, dtype=object)
    numbers = all(isinstance(value, Real) and not isinstance(value, bool) for value in given.ravel())
    try:
        array = given.astype(np.float64) if numbers else np.empty(0)
    except OverflowError:
        array = np.empty(0)
    if (
        array.ndim != 1
        or not array.size
        or not np.all(np.diff(array, prepend=0.0) > 0)
        or np.isinf(array[-1])
    ):
        raise RecipeError(
            f"{name} is {values!r}; expected positive numbers that increase, as np.geomspace gives"
        )
    return array


class _Remembering(Cost):
    """A cost whose tokens for a budget are remembered: faces of one budget ask for them at every D_T."""

    def tokens(self, C: Number, N: Number) -> float:
        return _tokens(self, C, N)


@lru_cache(maxsize=4096)
def _tokens(cost: Cost, C: Number, N: Number) -> float:
    return Cost.tokens(cost, C, N)
