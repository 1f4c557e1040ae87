"""Minimising a loss over the boxes of :mod:`m3bayes.decision.faces`: per draw, and one recipe for all draws.

Both go the same way: a grid with the corners of the box in it, then projected Newton from its best points. The
step solves (H + changes that make it positive definite) p = -g on the coordinates that are not held by a bound,
and the best of a ladder of lengths along the projected ray is taken, so that no step goes up. Newton converges
to rounding in a few steps, and a bound it runs into is reached exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jaxtyping import Float

from m3bayes.decision.cost import Cost
from m3bayes.decision.faces import FREE, Face, Regime, recipe_at
from m3bayes.decision.risk import Risk
from m3bayes.errors import LawError
from m3bayes.laws.law import Law

# step lengths tried along a ray, longest first
LADDER = (1.0, 0.5, 0.2, 0.05, 1e-2, 1e-3, 1e-5)
# a step that promises less than this share of the loss is rounding
ROUNDING = 1e-13


Draws = Mapping[str, Float[np.ndarray, " draw"]]


class Point(NamedTuple):
    """A point of a box and the value there."""

    t: Array
    value: Array


def newton(f: Callable[[Array], Array], t: Array, iterations: int) -> Point:
    """Minimise f over [0, 1]^n, n <= 4, from t; never ends above f(t)."""
    ladder = jnp.asarray(LADDER)

    def gradient(t: Array) -> tuple[Array, Array]:
        g = jax.jacfwd(f)(t)
        return g, g

    def step(carry: tuple[Array, Point, Array]) -> tuple[Array, Point, Array]:
        count, (t, value), _ = carry
        # forward twice: for four variables cheaper than forward over reverse
        H, g = jax.jacfwd(gradient, has_aux=True)(t)
        g = jnp.where(jnp.isfinite(g), g, 0.0)
        H = jnp.where(jnp.isfinite(H), H, 0.0)
        held = ((t <= 0) & (g >= 0)) | ((t >= 1) & (g <= 0))
        g = jnp.where(held, 0.0, g)
        H = jnp.where(held[:, None] | held[None, :], 0.0, H)
        p = -_solve_positive(H, g)
        trials = jnp.clip(t + ladder[:, None] * p, 0.0, 1.0)
        values = jax.vmap(f)(trials)
        values = jnp.where(jnp.isfinite(values), values, jnp.inf)
        best = jnp.argmin(values)
        better = values[best] < value
        promise = -jnp.dot(g, p)
        t = jnp.where(better, trials[best], t)
        done = ~better | (promise < ROUNDING * jnp.abs(value))
        return count + 1, Point(t, jnp.where(better, values[best], value)), done

    def unfinished(carry: tuple[Array, Point, Array]) -> Array:
        return (carry[0] < iterations) & ~carry[2]

    start = (jnp.zeros((), int), Point(t, f(t)), jnp.zeros((), bool))
    return lax.while_loop(unfinished, step, start)[1]


def _solve_positive(H: Array, g: Array) -> Array:
    """H^-1 g with H made positive definite: L D L' with |pivots|, kept off zero. Unrolled: n <= 4, vmapped widely."""
    n = g.shape[0]
    least = 1e-8 * jnp.max(jnp.abs(H)) + 1e-300
    L = [[jnp.zeros(()) for _ in range(n)] for _ in range(n)]
    D = []
    for i in range(n):
        for j in range(i):
            inner = sum((L[i][m] * D[m] * L[j][m] for m in range(j)), start=jnp.zeros(()))
            L[i][j] = (H[i, j] - inner) / D[j]
        pivot = H[i, i] - sum((L[i][m] ** 2 * D[m] for m in range(i)), start=jnp.zeros(()))
        D.append(jnp.maximum(jnp.abs(pivot), least))
    y = []
    for i in range(n):
        y.append(g[i] - sum((L[i][m] * y[m] for m in range(i)), start=jnp.zeros(())))
    x = [jnp.zeros(())] * n
    for i in reversed(range(n)):
        x[i] = y[i] / D[i] - sum((L[m][i] * x[m] for m in range(i + 1, n)), start=jnp.zeros(()))
    return jnp.stack(x)


# points a coordinate of the starting grid, by the number of coordinates
GRID = {2: 13, 3: 7, 4: 5}
ADAM_STEPS = 100


@dataclass(frozen=True)
class Surface:
    """A law's losses at points of faces: ``loss(c, extra, face, t)`` of one draw. Hashable, so static under jit."""

    law: Law
    cost: Cost

    def loss(self, c: Mapping[str, Array], extra: Mapping[str, Array], face: Face, t: Array) -> Array:
        return jnp.asarray(self.law.loss(c, {**recipe_at(face, t, self.cost), **extra}))


@dataclass(frozen=True)
class Optima:
    """The best recipe of each draw: its loss and its columns."""

    loss: Float[np.ndarray, " draw"]
    columns: Mapping[str, Float[np.ndarray, " draw"]]


@dataclass(frozen=True)
class Best:
    """The recipe of the smallest risk: its risk, its columns, and where it lies."""

    risk: float
    columns: Mapping[str, float]
    face: Face
    t: Float[np.ndarray, " free"]


@lru_cache
def grid(free: int) -> Float[np.ndarray, "point free"]:
    """The starting grid on [0, 1]^free, its corners included."""
    axes = np.meshgrid(*[np.linspace(0.0, 1.0, GRID[free])] * free, indexing="ij")
    return np.stack(axes, axis=-1).reshape(-1, free)


def _search(f: Callable[[Array], Array], values: Array, free: int, extra_starts: Sequence[Array] = ()) -> Point:
    """The smallest of f on the grid, where it has ``values``, and of Newton runs from the grid's best points.

    One run starts at few epochs and one at many: overfitting can put a ridge between two optima. None starts at the
    least epochs, where the slope may be infinite (k = 1 is also the upper end of another face).
    """
    points = jnp.asarray(grid(free))
    epochs = points[:, 1]
    halves = [(epochs > 0) & (epochs <= 0.5), epochs > 0.5]
    starts = [points[jnp.argmin(jnp.where(half, values, jnp.inf))] for half in halves]
    ends = jax.vmap(lambda t: newton(f, t, 60))(jnp.stack([*starts, *extra_starts]))
    least = jnp.argmin(values)
    ends = Point(jnp.append(ends.t, points[None, least], axis=0), jnp.append(ends.value, values[least]))
    return jax.tree.map(lambda leaf: leaf[jnp.argmin(ends.value)], ends)


def optima(
    surface: Surface, c: Draws, extra: Mapping[str, float], regime: Regime, faces: Sequence[Face]
) -> tuple[Optima, list[Float[np.ndarray, " free"]]]:
    """The optimum of each draw over the faces of a regime, and the median point of the draws' optima on each face.

    ``c`` are the law's coefficients, {name: (draw,)}. Raises LawError where a draw has no finite loss anywhere.
    """
    with jax.enable_x64(True):
        found = [_optima_on(surface, FREE[regime], dict(c), dict(extra), face) for face in map(_arrays, faces)]
        found = jax.tree.map(np.asarray, found)
    losses = np.stack([loss for loss, _, _ in found])
    best = np.argmin(losses, axis=0)
    draws = np.arange(losses.shape[1])
    loss = losses[best, draws]
    if not np.all(np.isfinite(loss)):
        bad = int(np.argmin(np.isfinite(loss)))
        raise LawError(f"law {surface.law.name} has no finite loss at any feasible recipe in draw {bad}")
    names = found[0][1]
    columns = {name: np.stack([each[name] for _, each, _ in found])[best, draws] for name in names}
    return Optima(loss, columns), [np.median(t, axis=0) for _, _, t in found]


@partial(jax.jit, static_argnums=(0, 1))
def _optima_on(surface: Surface, free: int, c, extra, face: Face):
    """Of each draw on one face: the smallest loss, the recipe's columns, and t."""

    def of_draw(c):
        f = _finite(lambda t: surface.loss(c, extra, face, t))
        end = _search(f, jax.vmap(f)(jnp.asarray(grid(free))), free)
        return end.value, recipe_at(face, end.t, surface.cost), end.t

    return jax.vmap(of_draw)(c)


def best(
    surface: Surface,
    risk: Risk,
    c: Draws,
    extra: Mapping[str, float],
    regime: Regime,
    faces: Sequence[Face],
    starts: Sequence[Float[np.ndarray, " free"]],
) -> Best:
    """The recipe of a regime with the smallest risk over the draws: never worse than the grids of its faces,
    nor than ``starts``, one a face."""
    free = FREE[regime]
    with jax.enable_x64(True):
        faces = [_arrays(face) for face in faces]
        ends = [
            _best_on(surface, risk, free, dict(c), dict(extra), face, start)
            for face, start in zip(faces, starts, strict=True)
        ]
        least = int(np.argmin([float(end.value) for end in ends]))
        face = faces[least]
        end = _descend(surface, risk, free, dict(c), dict(extra), face, ends[least])
        columns = recipe_at(face, end.t, surface.cost)
        return Best(float(end.value), {n: float(v) for n, v in columns.items()}, face, np.asarray(end.t))


def risk_at(surface: Surface, risk: Risk, c, extra, face: Face, t: Array) -> Array:
    """The objective: the risk of the recipe at t over the draws. Differentiable in t and in the face (its log_C)."""
    return risk(jax.vmap(lambda c: surface.loss(c, extra, face, t))(c))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _best_on(surface: Surface, risk: Risk, free: int, c, extra, face: Face, start: Array) -> Point:
    f = _finite(lambda t: risk_at(surface, risk, c, extra, face, t))
    return _search(f, lax.map(f, jnp.asarray(grid(free)), batch_size=64), free, [start])


@partial(jax.jit, static_argnums=(0, 1, 2))
def _descend(surface: Surface, risk: Risk, free: int, c, extra, face: Face, point: Point) -> Point:
    """Adam between two Newton runs: a risk with kinks (a quantile, the worst draw) stops Newton at the first."""
    f = _finite(lambda t: risk_at(surface, risk, c, extra, face, t))
    adam = optax.adam(optax.cosine_decay_schedule(0.02, ADAM_STEPS))

    def step(carry, _):
        t, state, least = carry
        value, g = jax.value_and_grad(f)(t)
        least = _smaller(least, Point(t, value))
        change, state = adam.update(jnp.where(jnp.isfinite(g), g, 0.0), state)
        t = optax.projections.projection_box(optax.apply_updates(t, change), 0.0, 1.0)
        return (t, state, least), None

    start = (point.t, adam.init(point.t), point)
    (_, _, least), _ = lax.scan(step, start, length=ADAM_STEPS)
    return _smaller(least, newton(f, least.t, 60))


def _smaller(one: Point, other: Point) -> Point:
    return jax.tree.map(lambda a, b: jnp.where(other.value < one.value, b, a), one, other)


def _finite(f: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """f with infinity where it is not a number, so that no comparison prefers it."""

    def guarded(t: Array) -> Array:
        value = f(t)
        return jnp.where(jnp.isnan(value), jnp.inf, value)

    return guarded


def _arrays(face: Face) -> Face:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=float), face)


def losses(
    law: Law, c: Draws, columns: Mapping[str, Float[np.ndarray, " recipe"]]
) -> Float[np.ndarray, "draw recipe"]:
    """Losses of recipes by draw. Recipes are taken in blocks of one size: one compilation serves all."""
    count = len(columns["params"])
    size = 256
    padded = {
        name: np.concatenate([values, np.repeat(values[-1:], -count % size)]) for name, values in columns.items()
    }
    with jax.enable_x64(True):
        blocks = [
            np.asarray(_losses(law, dict(c), {name: values[start : start + size] for name, values in padded.items()}))
            for start in range(0, count, size)
        ]
    return np.concatenate(blocks, axis=1)[:, :count]


@partial(jax.jit, static_argnums=0)
def _losses(law: Law, c, columns):
    return jax.vmap(lambda c: jax.vmap(lambda x: jnp.asarray(law.loss(c, x)))(columns))(c)
