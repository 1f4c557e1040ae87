"""The modes of many tables at once: ``mode.py`` as one program, for accelerators.

The same starts go the same way, from the projection of the scales to damped Newton steps, but those that meet are
told apart only at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from m3bayes.inference.coordinates import coordinates
from m3bayes.inference.mode import (
    DAMPINGS,
    DIFFERENCE,
    NEWTON_STEPS,
    POLISHED,
    Mode,
    best_first,
    merged,
    projected,
)
from m3bayes.inference.noise import Noise
from m3bayes.laws.law import Law

AT_ONCE = 32  # tables of a batch whose modes are searched side by side, for the memory that all starts take


def descents(law: Law, noise: Noise, n_groups: int) -> Callable:
    """(exponents on the real line (table, start, coefficient), arrays (table, ...)) -> q (table, end, dim), its
    potential (table, end) and Hessian (table, end, dim, dim; where it was last taken), from the POLISHED best starts
    of each table."""
    space = coordinates(law, noise, n_groups)
    project = projected(law, noise, n_groups)
    differences = DIFFERENCE * np.eye(space.dim)
    # the gradient stands here once, since it is most of what is to be compiled
    places = np.concatenate([np.zeros((1, space.dim)), differences, -differences])

    def one_table(given: tuple[Array, Mapping]) -> tuple[Array, Array, Array]:
        real, arrays = given
        starts = project(real, arrays)
        values = jax.vmap(space.potential, in_axes=(0, None))(starts, arrays)
        best = jnp.argsort(values)[:POLISHED]
        return jax.vmap(descend, in_axes=(0, 0, None))(starts[best], values[best], arrays)

    def descend(start: Array, value: Array, arrays: Mapping) -> tuple[Array, Array, Array]:
        def step(now: tuple[Array, ...]) -> tuple[Array, ...]:
            q, value, _, damping, count, _ = now
            slopes = jax.lax.map(lambda place: jax.grad(space.potential)(q + place, arrays), places)
            g, (above, below) = slopes[0], jnp.split(slopes[1:], 2)
            H = (above - below) / (2 * DIFFERENCE)
            usable = jnp.isfinite(slopes).all()
            g, H = jnp.where(usable, g, 0.0), jnp.where(usable, (H + H.T) / 2, jnp.eye(space.dim))
            curvature, axes = jnp.linalg.eigh(H)
            curvature = jnp.maximum(jnp.abs(curvature), 1e-8)
            along = axes.T @ g
            trials = damping * DAMPINGS
            moves = -(along / (curvature + trials[:, None])) @ axes.T
            moves *= jnp.minimum(1.0, 3.0 / jnp.maximum(jnp.abs(moves).max(axis=1, keepdims=True), 1e-300))
            found = jax.vmap(space.potential, in_axes=(0, None))(q + moves, arrays)
            best = jnp.argmin(found)
            better = found[best] < value
            done = (jnp.sum(along**2 / curvature) < 1e-10) | ~usable | (~better & (damping > 1e8))
            q = jnp.where(better, q + moves[best], q)
            damping = jnp.where(better, jnp.maximum(trials[best] / 10, 1e-8), damping * 1e3)
            return q, jnp.minimum(value, found[best]), H, damping, count + 1, ~done

        begun = start, value, jnp.eye(space.dim), jnp.asarray(1e-3), jnp.asarray(0), jnp.isfinite(value)
        q, value, H, *_ = jax.lax.while_loop(lambda now: now[5] & (now[4] < NEWTON_STEPS), step, begun)
        return q, value, H

    return lambda real, arrays: jax.lax.map(one_table, (real, arrays), batch_size=AT_ONCE)


def mode_of(
    law: Law,
    q: Float[np.ndarray, "end dim"],
    potential: Float[np.ndarray, " end"],
    hessian: Float[np.ndarray, "end dim dim"],
) -> Mode:
    """The mode of one table from the ends of its descents; FitError where none has a finite density."""
    curvature, axes = np.linalg.eigh(hessian)
    met = merged(q, potential, np.maximum(np.abs(curvature), 1e-8), axes)
    return best_first(law, q, np.where(met, np.inf, potential), hessian)
