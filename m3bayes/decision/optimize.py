"""Minimising a loss over the boxes of :mod:`m3bayes.decision.faces`: by draw, and one recipe for all.

Both go the same way: a grid with the corners of the box in it, then projected Newton from every local minimum of
the grid. All faces of a regime, and all draws, make one list of descents.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float

from m3bayes.decision.cost import Cost
from m3bayes.decision.descents import blocks, descend_all, in_threads
from m3bayes.decision.faces import Face, Regime, free_coordinates, packed, recipe_at, unpacked
from m3bayes.decision.kinks import at_random, by_adam
from m3bayes.decision.newton import STEPS, Point, Way, descend
from m3bayes.decision.risk import Risk
from m3bayes.decision.starts import grid, local_minima, starts
from m3bayes.errors import LawError
from m3bayes.laws.law import Law

Draws = Mapping[str, Float[np.ndarray, " draw"]]

# draws of a grid, and descents, at a time; descents over all draws at a time
BLOCK, FEW = 1024, 6
# of the smooth forms of risks, in standard deviations of the draws
WIDTHS = (0.3, 0.03)
# draws that smooth forms are searched over; recipes that lie so far apart, parts of the box, go down those of all draws
SEARCHED, APART = 512, 0.01


@dataclass(frozen=True)
class Surface:
    """A law's loss at points of faces, at a cost. Hashable, so that it can be static under jit."""

    law: Law
    cost: Cost

    def loss(self, c: Mapping[str, Array], extra: Mapping[str, Array], face: Face, t) -> Array:
        """Loss of one draw's coefficients ``c`` at a point (4,); ``extra`` are further columns. inf where it is
        NaN."""
        loss = jnp.asarray(self.law.loss(c, {**recipe_at(face, t, self.cost), **extra}))
        return jnp.where(jnp.isnan(loss), jnp.inf, loss)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("at", "c", "least", "extra"),
    meta_fields=("surface", "form"),
)
@dataclass(frozen=True)
class Objective:
    """``form(values, *at)`` of the losses above ``least`` (draw,) over all draws of the coefficients ``c``."""

    surface: Surface
    form: Callable[..., Array]
    # what JAX puts into leaves is not always an array
    at: Any
    c: Any
    least: Any
    extra: Any

    def __call__(self, face: Face, t) -> Array:
        """The risk at a point (4,) of a face: differentiable in it and in the face (its log_C)."""
        losses = jax.vmap(lambda c: self.surface.loss(c, self.extra, face, t))(self.c)
        return self.form(losses - self.least, *self.at)


def objectives(
    surface: Surface,
    risk: Risk,
    c: Draws,
    extra: Mapping[str, float],
    least: Float[np.ndarray, " draw"] | None = None,
) -> tuple[Objective, ...]:
    """The exact risk; before it, if it has them, its smooth forms, wide and narrow. ``least`` are the draws'
    smallest losses, which a risk of regrets is counted from."""
    base = least if risk.of_regret and least is not None else np.zeros(len(next(iter(c.values()))))
    forms = [(risk.smooth, (width, *risk.at)) for width in WIDTHS] if risk.smooth else []
    return tuple(
        Objective(surface, form, at, dict(c), base, dict(extra))
        for form, at in [*forms, (risk.function, risk.at)]
    )


def _thinned(
    c: Draws, extra: Mapping[str, float], least: Float[np.ndarray, " draw"] | None
) -> tuple[Mapping[str, Float[np.ndarray, " kept"]], Mapping[str, float], Float[np.ndarray, " kept"] | None]:
    """At most SEARCHED of the draws, evenly spaced."""
    every = -(-len(next(iter(c.values()))) // SEARCHED)
    return (
        {name: values[::every] for name, values in c.items()},
        extra,
        None if least is None else least[::every],
    )


@dataclass(frozen=True)
class Optima:
    """The best recipe of each draw: its loss and its columns; and good ``points`` on each face."""

    loss: Float[np.ndarray, " draw"]
    columns: Mapping[str, Float[np.ndarray, " draw"]]
    points: Sequence[Float[np.ndarray, "draw 4"]]


@dataclass(frozen=True)
class Best:
    """The recipe of the smallest risk: its risk, its columns, and where it lies."""

    risk: float
    columns: Mapping[str, float]
    face: Face
    t: Float[np.ndarray, " 4"]


def optima(
    surface: Surface, c: Draws, extra: Mapping[str, float], regime: Regime, faces: Sequence[Face]
) -> Optima:
    """The optimum of each draw over the faces of a regime.

    ``c`` are the law's coefficients, {name: (draw,)}. Raises LawError where a draw has no finite loss.
    """
    free, extra = free_coordinates(faces), dict(extra)
    rows_of_faces, rows_of_c = (
        np.stack([packed(face) for face in faces]),
        np.stack([c[n] for n in surface.law.names]),
    )
    count = rows_of_c.shape[1]

    def on_grid(face: int, rows: np.ndarray) -> tuple[Array, Array, Array]:
        return _on_grid(surface, regime, free, rows_of_c[:, rows], extra, rows_of_faces[face])

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        jobs = [(face, rows) for face in range(len(faces)) for rows in blocks(count, BLOCK)]
        done = iter(in_threads(pool, on_grid, jobs))
        found = [
            [np.concatenate(parts, axis=-1)[..., :count] for parts in zip(*of_face, strict=True)]
            for of_face in zip(*[done] * len(blocks(count, BLOCK)), strict=True)
        ]
        least, lowest, minimum = (np.stack(parts) for parts in zip(*found, strict=True))
        face, point, draw = np.nonzero(minimum)
        rows, t = starts(regime, free, point)
        face, draw = face[rows], draw[rows]

        def descend_some(rows: np.ndarray, t: np.ndarray, steps: int) -> Way:
            return _descend_draws(
                surface, free, rows_of_c[:, draw[rows]], extra, rows_of_faces[face[rows]], t, steps
            )

        t, value = descend_all(pool, descend_some, BLOCK, t, draw, least.min(axis=0))
        places = grid(regime, free)[lowest]
        order = np.argsort(-value, kind="stable")  # of several descents on a face the lowest is written last
        order = order[value[order] <= least[face[order], draw[order]]]
        least[face[order], draw[order]], places[face[order], draw[order]] = value[order], t[order]
        best = np.argmin(least, axis=0)
        loss, place = (each[best, np.arange(count)] for each in (least, places))
        if not np.all(np.isfinite(loss)):
            bad = int(np.argmin(np.isfinite(loss)))
            raise LawError(
                f"law {surface.law.name} has no finite loss at any feasible recipe in draw {bad + 1}"
            )
        recipes = in_threads(
            pool,
            lambda rows: _recipes_at(surface.cost, rows_of_faces[best[rows]], place[rows]),
            [(rows,) for rows in blocks(count, BLOCK)],
        )
    columns = {name: np.concatenate([some[name] for some in recipes])[:count] for name in recipes[0]}
    return Optima(loss, columns, list(places))


def optima_by_regime(
    surface: Surface, c: Draws, extra: Mapping[str, float], faces: Mapping[Regime, Sequence[Face]]
) -> dict[Regime, Optima]:
    """:func:`optima` of each regime."""
    return each_regime(faces, lambda regime: optima(surface, c, extra, regime, faces[regime]))


def each_regime[Result](
    faces: Mapping[Regime, Sequence[Face]], solve: Callable[[Regime], Result]
) -> dict[Regime, Result]:
    """``solve`` of each regime. Where r is held at 1 one stage is monolingual, and is not solved again."""
    found: dict[Regime, Result] = {}
    for regime, several in faces.items():
        if "monolingual" in found and regime == "single-stage" and all(face.r[0] >= 1 for face in several):
            found[regime] = found["monolingual"]
        else:
            found[regime] = solve(regime)
    return found


def best(
    surface: Surface,
    risk: Risk,
    c: Draws,
    extra: Mapping[str, float],
    regime: Regime,
    faces: Sequence[Face],
    given: Sequence[Float[np.ndarray, " 4"]],
    least: Float[np.ndarray, " draw"] | None = None,
) -> Best:
    """The recipe of a regime with the smallest risk over the draws; never worse than ``given``, points of the
    faces in their order (as many a face as there are), nor, if it has no smooth form, than the grids.

    A risk with a smooth form is searched in that, wide, over some of the draws; what is best by the exact one then
    goes down the narrow one of all draws, and from there past the kinks of the exact one (of a quantile, of the
    worst draw), which stop Newton.
    """
    free, rows_of_faces = free_coordinates(faces), np.stack([packed(face) for face in faces])
    *smooth, exact = objectives(surface, risk, c, extra, least)
    *_, thinned = of_some = objectives(surface, risk, *_thinned(c, extra, least)) if smooth else (exact,)
    with jax.enable_x64(True), ThreadPoolExecutor(os.cpu_count() or 1) as pool:

        def minima(objective: Objective) -> tuple[np.ndarray, np.ndarray]:
            def on_grid(face: int) -> tuple[Array, Array]:
                return _risk_on_grid(objective, regime, free, rows_of_faces[face])

            found = in_threads(pool, on_grid, [(face,) for face in range(len(faces))])
            lowest, minimum = zip(*found, strict=True)
            face, point = np.nonzero(np.stack(minimum))
            rows, t = starts(regime, free, point)
            each = np.arange(len(faces))
            return np.append(face[rows], each), np.concatenate([t, grid(regime, free)[list(lowest)]])

        def lowered(objective: Objective, face: np.ndarray, t: np.ndarray) -> np.ndarray:
            def some(rows: np.ndarray, t: np.ndarray, steps: int) -> Way:
                return _descend_risk(objective, rows_of_faces[face[rows]], t, steps)

            return descend_all(pool, some, FEW, t, np.zeros(len(t), int), np.array([np.inf]))[0]

        def risks(objective: Objective, face: np.ndarray, t: np.ndarray) -> np.ndarray:
            def some(rows: np.ndarray) -> Array:
                return _risks(objective, rows_of_faces[face[rows]], t[rows])

            return np.concatenate(in_threads(pool, some, [(rows,) for rows in blocks(len(t), FEW)]))[: len(t)]

        def ranked(face: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            """The best first, with its risk."""
            values = risks(exact, face, t)
            # where the exact one does not tell (no draw at all is below a limit), a smooth one may
            first = risks(of_some[0], face, t) if smooth else values
            order = np.lexsort((first, values))
            return face[order], t[order], values[order]

        begun = _each_once((np.arange(len(faces)), np.stack(given)), minima(of_some[0]))
        tried = _each_once(begun, (begun[0], lowered(of_some[0], *begun)), *[minima(thinned)] * bool(smooth))
        face, t, values = ranked(*tried)
        if smooth:
            few = _apart(face, t)

            def polished(row: np.ndarray) -> Way:
                return _descend_risk(smooth[-1], rows_of_faces[face[row]], t[row], STEPS)

            ways = in_threads(pool, polished, [(row,) for row in few[:, None]])
            ends = np.concatenate([way.t.T for way in ways])
            face, t, values = ranked(*_each_once((face[:1], t[:1]), (face[few], ends)))
        here, point = rows_of_faces[face[0]], Point(jnp.asarray(t[0]), jnp.asarray(values[0]))
        if smooth:
            point = at_random(pool, exact, free, here, point)
        else:
            point = by_adam(exact, here, point)
            way = _descend_risk(exact, *(jnp.tile(each, (FEW, 1)) for each in (here, point.t)), STEPS)
            point = Point(way.t[:, 0], way.value[0])
        recipe = _recipes_at(surface.cost, here[None], point.t[None])
        columns = {name: float(value[0]) for name, value in recipe.items()}
        return Best(float(point.value), columns, unpacked(jnp.asarray(here)), np.asarray(point.t))


def _each_once(*several: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Points (face, t) one after the other, without those that are where another one is already."""
    face, t = (np.concatenate(parts) for parts in zip(*several, strict=True))
    _, first = np.unique(np.column_stack([face, t.round(6)]), axis=0, return_index=True)
    first.sort()
    return face[first], t[first]


def _apart(face: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The first of points (face, t), and the first of those that lie APART from it or on another face."""
    others = (face != face[0]) | (np.abs(t - t[0]).max(axis=1) > APART)
    return np.append(0, np.flatnonzero(others)[:1])


# --- what is compiled ------------------------------------------------------------------------------------


def _coordinates(t: tuple[Array, ...]) -> tuple[ArrayLike, ...]:
    """All four coordinates from those that have room."""
    return (*t, *(0.5,) * (4 - len(t)))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _on_grid(
    surface: Surface, regime: Regime, free: int, c: Array, extra, face: Array
) -> tuple[Array, Array, Array]:
    """Of each draw on one face: the lowest value on the grid, its index, and (point, draw) the local minima."""
    of_draws = jax.vmap(surface.loss, in_axes=(0, None, None, None))
    named, face_ = dict(zip(surface.law.names, c, strict=True)), unpacked(face)
    values = lax.map(lambda t: of_draws(named, extra, face_, t), jnp.asarray(grid(regime, free)))
    return jnp.min(values, axis=0), jnp.argmin(values, axis=0), local_minima(values, regime, free)


@partial(jax.jit, static_argnums=(0, 1))
def _descend_draws(
    surface: Surface, free: int, c: Array, extra, faces: Array, t: Array, steps: ArrayLike
) -> Way:
    """So many steps of as many descents, each with its own coefficients and face, from points (descent, 4)."""

    def loss(c: Array, face: Array, t: tuple[Array, ...]) -> Array:
        named = dict(zip(surface.law.names, c, strict=True))
        return surface.loss(named, extra, unpacked(face), _coordinates(t))

    return descend(lambda t: jax.vmap(loss, in_axes=(1, 0, 0))(c, faces, t), t.T[:free], steps)


@partial(jax.jit, static_argnums=0)
def _recipes_at(cost: Cost, faces: Array, t: Array) -> dict[str, Array]:
    return jax.vmap(lambda face, t: recipe_at(unpacked(face), t, cost))(faces, t)


@partial(jax.jit, static_argnums=(1, 2))
def _risk_on_grid(objective: Objective, regime: Regime, free: int, face: Array) -> tuple[Array, Array]:
    """The index of the lowest risk on a face's grid, and its local minima (point,)."""
    here, points = unpacked(face), jnp.asarray(grid(regime, free))
    values = lax.map(lambda t: objective(here, t), points, batch_size=64)
    values = jnp.where(jnp.isnan(values), jnp.inf, values)
    return jnp.argmin(values), local_minima(values, regime, free)


@jax.jit
def _descend_risk(objective: Objective, faces: Array, t: Array, steps: ArrayLike) -> Way:
    def risk(t: tuple[Array, ...]) -> Array:
        return jax.vmap(lambda face, t: objective(unpacked(face), t))(faces, t)

    return descend(risk, t.T, steps)


@jax.jit
def _risks(objective: Objective, faces: Array, t: Array) -> Array:
    values = jax.vmap(lambda face, t: objective(unpacked(face), t))(faces, t)
    return jnp.where(jnp.isnan(values), jnp.inf, values)
