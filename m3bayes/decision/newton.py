"""Projected Newton's method in a box, for many small problems at once.

The step goes to the minimum in the box, nearly, of the quadratic model with its curvature made positive. Where
that does not go down, the best of a ladder of lengths along it, and of some down the gradient, is taken, so
that no step goes up. Newton converges to rounding in a few steps, and a bound it runs into is reached exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

# lengths tried along Newton's step, and of steps down the gradient (the largest coordinate's change)
LADDER, DOWNHILL = (10.0, 0.3, 0.1, 1e-2, 1e-4), (0.3, 0.03, 0.003, 1e-4, 1e-6)
STEPS = 60
# a step that gains or promises less than this share of the value is the last
ROUNDING = 1e-14
# of what the gradient promises, the share that a full step must gain not to be questioned
ENOUGH = 0.1

Objective = Callable[[tuple[Array, ...]], Array]


class Point(NamedTuple):
    """A point of a box and the value there."""

    t: Array
    value: Array


class Way(NamedTuple):
    """How far descents have come, points (n, ...): ``promise`` is what the last step's gradient promised to gain."""

    t: Array
    value: Array
    promise: Array
    done: Array


def newton(f: Callable[[Array], Array], t: Array) -> Point:
    """Minimise f over [0, 1]^n, n <= 4, from many points t at once; no value ends above its start's.

    ``t`` is (n, ...) and f(t) is (...): as many problems as the trailing axes have entries. They come last so
    that the processor's vector units run along them.
    """
    way = descend(lambda coordinates: f(jnp.stack(coordinates)), t, STEPS)
    return Point(way.t, way.value)


def descend(f: Objective, t: Array, steps: ArrayLike) -> Way:
    """At most so many steps of :func:`newton`. ``f`` takes the n coordinates apart, (...) each: what does not
    depend on one of them is then not differentiated along it."""
    n = t.shape[0]

    def along(f: Objective, i: int) -> Objective:
        def derivative(t: tuple[Array, ...]) -> Array:
            def moved(t_i: Array) -> Array:
                return f((*t[:i], t_i, *t[i + 1 :]))

            return jax.jvp(moved, (t[i],), (jnp.ones_like(t[i]),))[1]

        return derivative

    slopes = [along(f, i) for i in range(n)]
    bends = [[along(slopes[i], j) for j in range(i + 1)] for i in range(n)]

    def step(carry: tuple[Array, Way]) -> tuple[Array, Way]:
        count, (t, _, promise, done) = carry
        apart = tuple(t)
        value = f(apart)
        g = jnp.stack([slope(apart) for slope in slopes])
        lower = [[bend(apart) for bend in row] for row in bends]
        H = jnp.stack([jnp.stack([lower[max(i, j)][min(i, j)] for j in range(n)]) for i in range(n)])
        g = jnp.where(jnp.isfinite(g), g, 0.0)
        H = jnp.where(jnp.isfinite(H), H, 0.0)
        p = _box_step(H, g, t)

        def tried(t: Array) -> Array:
            values = f(tuple(t))
            return jnp.where(jnp.isnan(values), jnp.inf, values)

        full = jnp.clip(t + p, 0.0, 1.0)
        at_full = tried(full)

        def shorter(_) -> tuple[Array, Array]:
            slope = -g / (jnp.max(jnp.abs(g), axis=0) + 1e-300)
            ladder, downhill = (
                jnp.reshape(jnp.asarray(lengths), (-1, *(1,) * t.ndim)) for lengths in (LADDER, DOWNHILL)
            )
            trials = jnp.clip(jnp.concatenate([full[None], t + ladder * p, t + downhill * slope]), 0.0, 1.0)
            values = jax.vmap(tried)(trials)
            best = jnp.argmin(values, axis=0, keepdims=True)
            return (
                jnp.take_along_axis(trials, best[:, None], axis=0)[0],
                jnp.take_along_axis(values, best, axis=0)[0],
            )

        rounding = ROUNDING * jnp.abs(value)
        downward = -jnp.sum(g * p, axis=0)
        stuck = ~done & (downward > rounding) & ~(value - at_full >= ENOUGH * downward)
        to, lowest = lax.cond(jnp.any(stuck), shorter, lambda _: (full, at_full), None)
        better = ~done & (lowest < value)
        last = (value - lowest <= rounding) | (downward <= rounding)
        t = jnp.where(better, to, t)
        value = jnp.where(better, lowest, value)
        return count + 1, Way(t, value, jnp.where(done, promise, downward), done | last)

    def unfinished(carry: tuple[Array, Way]) -> Array:
        return (carry[0] < steps) & ~jnp.all(carry[1].done)

    none = jnp.full(t.shape[1:], jnp.inf)
    start = Way(t, none, none, jnp.zeros(none.shape, bool))
    return lax.while_loop(unfinished, step, (jnp.zeros((), int), start))[1]


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
