"""Minimising a loss over the boxes of :mod:`m3bayes.decision.faces`: by draw, and one recipe for all.

Both go the same way: a grid with the corners of the box in it, then projected Newton from its best points.
The step goes to the minimum in the box, nearly, of the quadratic model with its curvature made positive; the
best of a ladder of lengths along it, and of some down the gradient, is taken, so that no step goes up. Newton
converges to rounding in a few steps, and a bound it runs into is reached exactly.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from m3bayes.decision.cost import Cost
from m3bayes.decision.faces import Face, Regime, arrays, recipe_at
from m3bayes.decision.risk import Risk
from m3bayes.errors import LawError
from m3bayes.laws.law import Law

Draws = Mapping[str, Float[np.ndarray, " draw"]]
Points = Float[np.ndarray, "point 4"]

# points of the starting grid along N, k, r, r_f; a coordinate that a regime does not have stays in the middle
GRID: Mapping[Regime, tuple[int, int, int, int]] = {
    "monolingual": (9, 13, 1, 1),
    "single-stage": (5, 9, 9, 1),
    "two-stage": (5, 5, 5, 5),
}
# lengths tried along Newton's step, and of steps down the gradient (the largest coordinate's change)
LADDER, DOWNHILL = (10.0, 1.0, 0.3, 0.1, 1e-2, 1e-4), (0.3, 0.03, 0.003)
NEWTON_STEPS, ADAM_STEPS = 60, 100
# draws at a time
BLOCK = 512
# a step that gains or promises less than this share of the loss is the last
ROUNDING = 1e-14


class Point(NamedTuple):
    """A point of a box and the value there."""

    t: Array
    value: Array


@dataclass(frozen=True)
class Surface:
    """A law's loss at points of faces, at a cost. Hashable, so that it can be static under jit."""

    law: Law
    cost: Cost

    def loss(self, c: Mapping[str, Array], extra: Mapping[str, Array], face: Face, t: Array) -> Array:
        """Loss of one draw's coefficients ``c``; ``extra`` are further columns. inf where it is NaN."""
        loss = jnp.asarray(self.law.loss(c, {**recipe_at(face, t, self.cost), **extra}))
        return jnp.where(jnp.isnan(loss), jnp.inf, loss)


@dataclass(frozen=True)
class Optima:
    """The best recipe of each draw: its loss and its columns; and the best ``points`` on each face."""

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
    blocks = _blocks(c)
    jobs = [(face, block) for face in faces for block in blocks]

    def solve(job: tuple[Face, Mapping[str, np.ndarray]]) -> tuple[Point, dict[str, np.ndarray]]:
        face, block = job
        with jax.enable_x64(True):  # holds for one thread
            face = arrays(face)
            starts, on_grid = _starts_by_draw(surface, regime, block, dict(extra), face)
            found = _optima_on(surface, block, dict(extra), face, starts, on_grid)
            return jax.tree.map(np.asarray, found)

    # the first one alone: it compiles
    done = [solve(jobs[0])]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        done += pool.map(solve, jobs[1:])
    count = len(next(iter(c.values())))
    found = [
        jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=-1)[..., :count], *done[i : i + len(blocks)])
        for i in range(0, len(done), len(blocks))
    ]
    losses = np.stack([point.value for point, _ in found])
    best = np.argmin(losses, axis=0)
    draws = np.arange(losses.shape[1])
    loss = losses[best, draws]
    if not np.all(np.isfinite(loss)):
        bad = int(np.argmin(np.isfinite(loss)))
        raise LawError(f"law {surface.law.name} has no finite loss at any feasible recipe in draw {bad + 1}")
    names = found[0][1]
    columns = {name: np.stack([each[name] for _, each in found])[best, draws] for name in names}
    return Optima(loss, columns, [point.t.T for point, _ in found])


def _blocks(c: Draws) -> list[dict[str, np.ndarray]]:
    """Draws in blocks of one size, the last one padded: one compilation serves any number of draws, all cores
    have something to do, and a draw that takes many steps holds up its own block only."""
    count = len(next(iter(c.values())))
    starts = range(0, count, BLOCK)
    return [
        {
            name: np.pad(values[i : i + BLOCK], (0, max(i + BLOCK - count, 0)), mode="edge")
            for name, values in c.items()
        }
        for i in starts
    ]


def best(
    surface: Surface,
    risk: Risk,
    c: Draws,
    extra: Mapping[str, float],
    regime: Regime,
    faces: Sequence[Face],
    starts: Sequence[Float[np.ndarray, " 4"]],
) -> Best:
    """The recipe of a regime with the smallest risk over the draws: never worse than the grids of its faces,
    nor than ``starts``, one a face."""
    c, extra = dict(c), dict(extra)
    with jax.enable_x64(True):
        faces = [arrays(face) for face in faces]
        ends = []
        for face, start in zip(faces, starts, strict=True):
            by_part, on_grid = _starts_by_risk(surface, risk, regime, c, extra, face)
            starts_here = np.column_stack([by_part, on_grid.t, start])
            ends.append(_best_on(surface, risk, c, extra, face, starts_here))
        least = int(np.argmin([float(point.value) for point, _ in ends]))
        face, (point, _) = faces[least], ends[least]
        point = _descend(surface, risk, c, extra, face, point)
        point, columns = _best_on(surface, risk, c, extra, face, np.tile(point.t[:, None], 6))
        return Best(float(point.value), {n: float(v) for n, v in columns.items()}, face, np.asarray(point.t))


def risk_at(surface: Surface, risk: Risk, c, extra, face: Face, t: Array) -> Array:
    """The objective: the risk of the recipe at t. Differentiable in t and in the face (its log_C)."""
    return risk(jax.vmap(lambda c: surface.loss(c, extra, face, t))(c))


@lru_cache
def grid(regime: Regime) -> Points:
    """The starting grid of a regime, the corners of its box included."""
    axes = [np.linspace(0.0, 1.0, count) if count > 1 else np.array([0.5]) for count in GRID[regime]]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 4)


def _starts(points: Points, values: Array) -> tuple[Array, Point]:
    """From (point, ...) values the best points of four parts of the grid (4, 4, ...), and the best of all.

    Overfitting can put a ridge between few epochs and many, and little source text and much can both be an
    optimum. The four are not at the least epochs, where the slope may be infinite.
    """
    k, r = points[:, 1], points[:, 2]
    if np.ptp(r) > 0:
        parts = [
            part & (k > 0) for half in (k <= 0.5, k > 0.5) for part in (half & (r <= 0.5), half & (r > 0.5))
        ]
    else:
        parts = [(k > low) & (k <= low + 0.25) for low in (0.0, 0.25, 0.5, 0.75)]
    rows = [np.flatnonzero(part) for part in (*parts, k >= 0)]
    best = jnp.stack([jnp.asarray(some)[jnp.argmin(values[some], axis=0)] for some in rows])
    t = jnp.moveaxis(jnp.asarray(points)[best], -1, 0)
    return t[:, :-1], Point(t[:, -1], jnp.min(values, axis=0))


@partial(jax.jit, static_argnums=(0, 1))
def _starts_by_draw(surface: Surface, regime: Regime, c, extra, face: Face) -> tuple[Array, Point]:
    """Starts (4, start, draw), and the best grid point (4, draw)."""
    points = grid(regime)
    of_draws = jax.vmap(surface.loss, in_axes=(0, None, None, None))
    return _starts(points, lax.map(lambda t: of_draws(c, extra, face, t), jnp.asarray(points)))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _starts_by_risk(
    surface: Surface, risk: Risk, regime: Regime, c, extra, face: Face
) -> tuple[Array, Point]:
    """Starts (4, start), and the best grid point."""
    points = grid(regime)
    values = lax.map(lambda t: risk_at(surface, risk, c, extra, face, t), jnp.asarray(points), batch_size=64)
    return _starts(points, jnp.where(jnp.isnan(values), jnp.inf, values))


@partial(jax.jit, static_argnums=0)
def _optima_on(
    surface: Surface, c, extra, face: Face, starts: Array, on_grid: Point
) -> tuple[Point, dict[str, Array]]:
    """Of each draw on one face: the lowest point (4, draw) from (4, start, draw), and the recipe there.

    The best grid point is seldom worth a run: it is one of the starts, or k = 1 of another face.
    """
    of_draws = jax.vmap(lambda c, t: surface.loss(c, extra, face, t), in_axes=(0, 1))
    reached = _lowest(newton(jax.vmap(partial(of_draws, c), in_axes=1), starts))
    lower = reached.value <= on_grid.value
    point = Point(jnp.where(lower, reached.t, on_grid.t), jnp.where(lower, reached.value, on_grid.value))
    return point, jax.vmap(lambda t: recipe_at(face, t, surface.cost), in_axes=1)(point.t)


@partial(jax.jit, static_argnums=(0, 1))
def _best_on(
    surface: Surface, risk: Risk, c, extra, face: Face, starts: Array
) -> tuple[Point, dict[str, Array]]:
    """The point of the lowest risk on one face from some starts (4, start), and the recipe there."""
    f = jax.vmap(lambda t: risk_at(surface, risk, c, extra, face, t), in_axes=1)
    point = _lowest(newton(f, starts))
    return point, recipe_at(face, point.t, surface.cost)


def _lowest(points: Point) -> Point:
    """The best of the starts, which are the first axis after the coordinates."""
    best = jnp.argmin(points.value, axis=0, keepdims=True)
    t = jnp.take_along_axis(points.t, best[None], axis=1)[:, 0]
    return Point(t, jnp.take_along_axis(points.value, best, axis=0)[0])


@partial(jax.jit, static_argnums=(0, 1))
def _descend(surface: Surface, risk: Risk, c, extra, face: Face, point: Point) -> Point:
    """The lowest point on a way of Adam's: kinks (of a quantile, of the worst draw) stop Newton."""
    import optax  # here, since fits have no use for it

    adam = optax.adam(optax.cosine_decay_schedule(0.02, ADAM_STEPS))

    def step(carry, _):
        t, state, least = carry
        value, g = jax.value_and_grad(lambda t: risk_at(surface, risk, c, extra, face, t))(t)
        lower = value < least.value
        least = Point(jnp.where(lower, t, least.t), jnp.where(lower, value, least.value))
        change, state = adam.update(jnp.where(jnp.isfinite(g), g, 0.0), state)
        return (optax.projections.projection_box(t + change, 0.0, 1.0), state, least), None

    (_, _, least), _ = lax.scan(step, (point.t, adam.init(point.t), point), length=ADAM_STEPS)
    return least


def newton(f: Callable[[Array], Array], t: Array) -> Point:
    """Minimise f over [0, 1]^n, n <= 4, from many points t at once; no value ends above its start's.

    ``t`` is (n, ...) and f(t) is (...): as many problems as the trailing axes have entries. They come last so
    that the processor's vector units run along them.
    """
    ones = (1,) * t.ndim
    ladder, downhill = (jnp.reshape(jnp.asarray(lengths), (-1, *ones)) for lengths in (LADDER, DOWNHILL))
    directions = jnp.eye(t.shape[0]).reshape(t.shape[0], *t.shape[:1], *ones[1:]) * jnp.ones_like(t)

    def gradient(t: Array) -> tuple[Array, tuple[Array, Array]]:
        value, g = jax.vmap(lambda direction: jax.jvp(f, (t,), (direction,)), out_axes=(None, 0))(directions)
        return g, (g, value)

    def step(carry: tuple[Array, Point, Array]) -> tuple[Array, Point, Array]:
        count, (t, _), done = carry
        # forward twice: for four variables cheaper than forward over reverse
        second = jax.vmap(
            lambda direction: jax.jvp(gradient, (t,), (direction,), has_aux=True), out_axes=(None, 0, None)
        )
        _, H, (g, value) = second(directions)
        g = jnp.where(jnp.isfinite(g), g, 0.0)
        H = jnp.where(jnp.isfinite(H), H, 0.0)
        p = _box_step(H, g, t)
        slope = -g / (jnp.max(jnp.abs(g), axis=0) + 1e-300)
        trials = jnp.clip(jnp.concatenate([t + ladder * p, t + downhill * slope]), 0.0, 1.0)
        values = jax.vmap(f)(trials)
        values = jnp.where(jnp.isnan(values), jnp.inf, values)
        best = jnp.argmin(values, axis=0, keepdims=True)
        lowest = jnp.take_along_axis(values, best, axis=0)[0]
        better = ~done & (lowest < value)
        rounding = ROUNDING * jnp.abs(value)
        last = (value - lowest <= rounding) | (-jnp.sum(g * p, axis=0) <= rounding)
        t = jnp.where(better, jnp.take_along_axis(trials, best[:, None], axis=0)[0], t)
        return count + 1, Point(t, jnp.where(better, lowest, value)), done | last

    def unfinished(carry: tuple[Array, Point, Array]) -> Array:
        return (carry[0] < NEWTON_STEPS) & ~jnp.all(carry[2])

    none = jnp.full(t.shape[1:], jnp.inf)
    start = (jnp.zeros((), int), Point(t, none), jnp.zeros(none.shape, bool))
    return lax.while_loop(unfinished, step, start)[1]


def _box_step(H: Array, g: Array, t: Array) -> Array:
    """The step of the quadratic model to its minimum in the box, nearly: the coordinate that would leave
    first stops at its bound, the others are solved for again knowing that, and so on."""
    held = ((t <= 0) & (g >= 0)) | ((t >= 1) & (g <= 0))
    p = jnp.zeros_like(t)
    for _ in range(t.shape[0]):
        free = ~held
        inner = jnp.where(free[:, None] & free[None, :], H, 0.0)
        pushed = jnp.sum(H * jnp.where(held, p, 0.0), axis=1)
        step = -_solve_positive(inner, jnp.where(free, g + pushed, 0.0))
        room = jnp.where(step < 0, -t, 1 - t)
        leaves = free & (jnp.abs(step) > jnp.abs(room))
        way = jnp.where(leaves, room / jnp.where(leaves, step, 1.0), jnp.inf)
        first = leaves & (way <= jnp.min(way, axis=0))
        p = jnp.where(held, p, jnp.where(first, room, step))
        held = held | first
    return p


def _solve_positive(H: Array, g: Array) -> Array:
    """H^-1 g with H made positive definite: L D L' with |pivots|, kept off zero. Unrolled: n is small."""
    n = g.shape[0]
    zero = jnp.zeros(g.shape[1:])
    least = 1e-8 * jnp.max(jnp.abs(H), axis=(0, 1)) + 1e-300
    L = [[zero] * n for _ in range(n)]
    D: list[Array] = []
    for i in range(n):
        for j in range(i):
            L[i][j] = (H[i, j] - sum((L[i][m] * D[m] * L[j][m] for m in range(j)), start=zero)) / D[j]
        pivot = H[i, i] - sum((L[i][m] ** 2 * D[m] for m in range(i)), start=zero)
        D.append(jnp.maximum(jnp.abs(pivot), least))
    y: list[Array] = []
    for i in range(n):
        y.append(g[i] - sum((L[i][m] * y[m] for m in range(i)), start=zero))
    x = [zero] * n
    for i in reversed(range(n)):
        x[i] = y[i] / D[i] - sum((L[m][i] * x[m] for m in range(i + 1, n)), start=zero)
    return jnp.stack(x)
