"""The search for a recipe and a mix of sources: log N, log T and the tokens of each source, on a polytope.

    minimise  risk over draws of L(N, T, D_1 .. D_m)
    within    bounds on N, k = T / U, r = T / D, D = T + S and S = sum_i D_i,  cost(N, D) <= C,  0 <= D_i <= most_i

In these variables a source that is left out, or used up, is a corner of what is feasible, where the optimum mostly is.
Starts come from grids over the faces of the request (:mod:`m3bayes.decision.faces`), each filled with source text in
several orders; sequential quadratic programming goes on from the best of them (SLSQP of scipy; Kraft 1988).

| symbol | meaning | unit |
|---|---|---|
| N, U, k, r | as in :mod:`m3bayes.recipe` | |
| T, S, D | target tokens seen, source tokens, all tokens | table's |
| D_i, most_i | tokens of source i, and how many there may be | table's |
| z | (log N, log T, D_1 / most_1, ..) | - |
| q | log D, log r, S in units of all there may be, and the log of each cost | - |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int

from m3bayes.decision.choice import Choice, choices, simplest
from m3bayes.decision.cost import Cost
from m3bayes.decision.descents import blocks
from m3bayes.decision.faces import Face, packed, recipe_at, unpacked
from m3bayes.decision.optimize import SEARCHED, WIDTHS, Draws
from m3bayes.decision.risk import Risk
from m3bayes.decision.several_budgets import faces_within
from m3bayes.decision.space import Space
from m3bayes.decision.starts import grid
from m3bayes.errors import InfeasibleError
from m3bayes.inference.posterior import Posterior
from m3bayes.laws.atlas import tokens_of, unique_tokens_of
from m3bayes.laws.law import Law
from m3bayes.recipe import Recipe

Sources = Float[np.ndarray, " source"]
Point = Float[np.ndarray, " variable"]
Points = Float[np.ndarray, "point variable"]
Form = tuple[Callable[..., Array], tuple[float, ...]]

# points that are gone on from; a descent ends where a step gains less than this, in the loss's unit, or after so many
KEPT, GAIN, STEPS = 8, 1e-13, 200
# points looked at in one call
BLOCK = 256
# ends of a range, and shares of what there is of a source, that differ by rounding alone
SAME = 1e-12


@dataclass(frozen=True, eq=False)
class Mixture:
    """A request: ``space`` says all but the mix, ``unique`` how many different tokens there are of each source and
    ``most`` how many may be seen; ``faces`` are those of the recipes of one stage."""

    space: Space
    faces: Sequence[Face]
    sources: tuple[str, ...]
    unique: Sources
    most: Sources


def mixture(space: Space, sources: tuple[str, ...], unique: Sources, most: Sources) -> Mixture:
    """The request for recipes of one stage with at most so many tokens of each source. Raises InfeasibleError."""
    bound = space["source_tokens"]
    if bound.low > most.sum():
        raise InfeasibleError(
            f"no recipe is feasible: {bound.low_text}, but there are {most.sum():.4g} of all sources together"
        )
    if most.sum() < bound.high:
        bound = replace(bound, high=float(most.sum()), high_from="all there is")
    space = replace(space, bounds={**space.bounds, "source_tokens": bound})
    found, excluded = faces_within(space)
    if "single-stage" not in found:
        raise InfeasibleError(f"no recipe of one stage is feasible: {excluded['single-stage']}")
    faces = found["single-stage"]
    if all(face.r[0] >= 1 for face in faces):
        most = np.zeros_like(most)
    return Mixture(space, faces, sources, unique, most)


def best_mix(post: Posterior, asked: Mixture, risk: Risk) -> Choice:
    """The recipe of the smallest risk, with the tokens of each source in ``extra``.

    No worse than any point that the search starts from. Raises InfeasibleError where rounding leaves none of them.
    """
    law, c, room = post.law, post.coefficients, _room(asked)
    count = len(next(iter(c.values())))
    some = {name: values[:: -(-count // SEARCHED)] for name, values in c.items()}
    exact: Form = (risk.function, risk.at)
    smooth: list[Form] = [(risk.smooth, (width, *risk.at)) for width in WIDTHS] if risk.smooth else []
    with jax.enable_x64(True):
        z, label = _starts(asked, room)
        points = z
        for form in smooth or [exact]:
            begun = _lowest_of_each(_values(law, asked, form, some, points), label)[:KEPT]
            points = np.stack([_descended(law, asked, room, form, some, start) for start in points[begun]])
            label, z = np.arange(len(points)), np.concatenate([z, points])
        lowest = z[_lowest_of_each(_values(law, asked, exact, c, z), np.arange(len(z)))[:KEPT]]
        ends = [_descended(law, asked, room, form, c, lowest[0]) for form in (*smooth[1:], exact)]
    recipes = [recipe for point in (*ends, *lowest) if (recipe := _recipe(asked, point))]
    if not recipes:
        raise InfeasibleError("no recipe was found: bounds leave less room than rounding takes; widen them")
    return simplest(choices(post, risk, recipes, np.zeros(count)))


def _lowest_of_each(
    values: Float[np.ndarray, " point"], label: Int[np.ndarray, " point"]
) -> Int[np.ndarray, " label"]:
    """The lowest point of each label, the lowest of all first."""
    order = np.argsort(values, kind="stable")
    return order[np.sort(np.unique(label[order], return_index=True)[1])]


# --- points and recipes -------------------------------------------------------------------------------------


class _Fixed(NamedTuple):
    """What turns a point z into a recipe: U, U_i, and the tokens in a unit of z."""

    U: float
    unique: Sources
    scale: Sources


def _fixed(asked: Mixture) -> _Fixed:
    return _Fixed(asked.space.target_tokens, asked.unique, np.where(asked.most > 0, asked.most, 1.0))


def _columns(sources: tuple[str, ...], fixed: _Fixed, z: Array) -> dict[str, Array]:
    T, D_i = jnp.exp(z[1]), z[2:] * fixed.scale
    r = T / (T + jnp.sum(D_i))
    return {
        "params": jnp.exp(z[0]),
        "target_tokens": jnp.asarray(fixed.U),
        "epochs": T / fixed.U,
        "target_ratio": r,
        "final_ratio": r,
        **{tokens_of(s): D_i[i] for i, s in enumerate(sources)},
        **{unique_tokens_of(s): jnp.asarray(fixed.unique[i]) for i, s in enumerate(sources)},
    }


def _recipe(asked: Mixture, z: Point) -> Recipe | None:
    """The recipe at a point, rounding taken back to the bounds; None where it breaks them by more."""
    space = asked.space
    share = np.where(z[2:] < SAME, 0.0, np.where(z[2:] > 1 - SAME, 1.0, z[2:]))
    D_i = share * asked.most
    T, S = math.exp(z[1]), float(D_i.sum())
    N = min(math.exp(z[0]), space.cost.params(space.compute, T + S))
    r = T / (T + S)
    found = space.recipe(params=N, epochs=T / space.target_tokens, target_ratio=r, final_ratio=r)
    if S > 0:
        D_i = np.minimum(D_i * (found.source_tokens / S), asked.most)
    extra = {tokens_of(s): float(D) for s, D in zip(asked.sources, D_i, strict=True)}
    # of what is read: text that is left over is worth nothing, and is no extrapolation
    read = np.minimum(asked.unique, D_i)
    extra |= {unique_tokens_of(s): float(U) for s, U in zip(asked.sources, read, strict=True)}
    return None if space.why_not(found) else replace(found, extra=extra)


# --- what is feasible ---------------------------------------------------------------------------------------


class _Room(NamedTuple):
    """Ends of z, and of q."""

    low: Point
    high: Point
    q_low: Float[np.ndarray, " quantity"]
    q_high: Float[np.ndarray, " quantity"]


def _room(asked: Mixture) -> _Room:
    space, total = asked.space, float(asked.most.sum())
    N, k, D, S = (space[name] for name in ("params", "epochs", "tokens", "source_tokens"))
    ratios = (space["target_ratio"], space["final_ratio"])
    r = (max(bound.low for bound in ratios), min(bound.high for bound in ratios))
    unit, nothing = float(_fixed(asked).scale.sum()), (-math.inf, math.inf)
    ends = [
        (_log(N.low), _log(N.high)),
        (_log(k.low * space.target_tokens), _log(k.high * space.target_tokens)),
        *((0.0, float(most > 0)) for most in asked.most),
    ]
    q = [
        (_log(D.low), _log(D.high)),
        # what holds by itself is no limit: it would be the same one twice where it binds
        (_log(r[0]), _log(r[1]) if r[1] < 1 else math.inf) if total else nothing,
        (S.low / unit if S.low > 0 else -math.inf, S.high / unit if S.high < total else math.inf)
        if total
        else nothing,
        *((-math.inf, math.log(budget.most)) for budget in space.budgets),
    ]
    return _Room(*np.array(ends).T, *np.array(q).T)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _starts(asked: Mixture, room: _Room) -> tuple[Points, Int[np.ndarray, " point"]]:
    """Points of grids over the faces, their source text taken from each source first, and from all in proportion.

    With a label for each face and way to take it.
    """
    fixed, t = _fixed(asked), grid("single-stage", 4)
    found = []
    for face in asked.faces:
        x = _recipes_on(asked.space.cost, packed(face), t)
        N, T, r = (np.asarray(x[name]) for name in ("params", "epochs", "target_ratio"))
        T = T * fixed.U
        S = np.minimum(T * (1 - r) / r, asked.most.sum())
        found += [
            np.column_stack([np.log(N), np.log(T), D_i / fixed.scale]) for D_i in _filled(S, asked.most)
        ]
    label = np.repeat(np.arange(len(found)), len(t))
    return np.clip(np.concatenate(found), room.low, room.high), label


def _filled(S: Float[np.ndarray, " point"], most: Sources) -> list[Float[np.ndarray, "point source"]]:
    """Ways to take S tokens from the sources."""
    result = [S[:, None] * (most / max(most.sum(), 1e-300))]
    for first in np.flatnonzero(most):
        left, D_i = S, np.zeros((len(S), len(most)))
        for source in (first, *np.delete(np.arange(len(most)), first)):
            D_i[:, source] = np.minimum(left, most[source])
            left = left - D_i[:, source]
        result.append(D_i)
    return result


# --- the search ---------------------------------------------------------------------------------------------


def _values(law: Law, asked: Mixture, form: Form, c: Draws, z: Points) -> Float[np.ndarray, " point"]:
    """The risk at each point, over the draws of c."""
    function, at = form
    parts = [
        np.asarray(_risks(law, asked.sources, function, at, dict(c), _fixed(asked), z[rows]))
        for rows in blocks(len(z), BLOCK)
    ]
    return np.concatenate(parts)[: len(z)]


def _descended(law: Law, asked: Mixture, room: _Room, form: Form, c: Draws, start: Point) -> Point:
    """Where a descent ends that starts at a point; the point where it ends outside what is feasible."""
    from scipy.optimize import minimize  # takes a quarter of a second, which fits have no use for

    (function, at), fixed, costs = form, _fixed(asked), tuple(budget.cost for budget in asked.space.budgets)
    free = np.flatnonzero(room.high > room.low)
    if not len(free):
        return start
    low, high = room.low[free], room.high[free]
    held = room.q_high - room.q_low <= SAME
    below, above = (np.flatnonzero(np.isfinite(ends) & ~held) for ends in (room.q_low, room.q_high))

    def at_point(y: np.ndarray) -> np.ndarray:
        z = start.copy()
        z[free] = y
        return z

    def risk(y: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _risk_and_slope(law, asked.sources, function, at, dict(c), fixed, at_point(y))
        return float(value), np.asarray(slope)[free]

    def q(y: np.ndarray) -> np.ndarray:
        return np.asarray(_quantities(costs, fixed, at_point(y)))

    def slopes(y: np.ndarray) -> np.ndarray:
        return np.asarray(_slopes(costs, fixed, at_point(y)))[:, free]

    constraints = [
        {
            "type": "ineq",
            "fun": lambda y: np.r_[(q(y) - room.q_low)[below], (room.q_high - q(y))[above]],
            "jac": lambda y: np.r_[slopes(y)[below], -slopes(y)[above]],
        },
        {"type": "eq", "fun": lambda y: (q(y) - room.q_high)[held], "jac": lambda y: slopes(y)[held]},
    ]
    with np.errstate(invalid="ignore"):
        found = minimize(
            risk,
            start[free],
            jac=True,
            method="SLSQP",
            bounds=np.column_stack([low, high]),
            constraints=constraints,
            options={"ftol": GAIN, "maxiter": STEPS},
        )
    end = at_point(np.clip(found.x, low, high))
    return end if _recipe(asked, end) else start


# --- what is compiled ---------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def _recipes_on(cost: Cost, face: Array, t: Array) -> dict[str, Array]:
    return jax.vmap(lambda t: recipe_at(unpacked(face), t, cost))(t)


def _risk(
    law: Law, sources: tuple[str, ...], function: Callable[..., Array], at, c, fixed: _Fixed, z: Array
) -> Array:
    x = _columns(sources, fixed, z)
    return function(jax.vmap(law.loss, in_axes=(0, None))(c, x), *at)


_risk_and_slope = jax.jit(jax.value_and_grad(_risk, argnums=6), static_argnums=(0, 1, 2))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _risks(
    law: Law, sources: tuple[str, ...], function: Callable[..., Array], at, c, fixed: _Fixed, z: Array
) -> Array:
    values = lax.map(lambda point: _risk(law, sources, function, at, c, fixed, point), z, batch_size=64)
    return jnp.where(jnp.isnan(values), jnp.inf, values)


def _q(costs: tuple[Cost, ...], fixed: _Fixed, z: Array) -> Array:
    N, T, D_i = jnp.exp(z[0]), jnp.exp(z[1]), z[2:] * fixed.scale
    S = jnp.sum(D_i)
    log_D = jnp.log(T + S)
    in_units = S / jnp.sum(jnp.asarray(fixed.scale))
    return jnp.stack([log_D, z[1] - log_D, in_units, *(jnp.log(cost.flops(N, T + S)) for cost in costs)])


_quantities = jax.jit(_q, static_argnums=0)
_slopes = jax.jit(jax.jacfwd(_q, argnums=2), static_argnums=0)
