"""Where descents start: the local minima of a grid over a face's box.

| symbol | meaning |
|---|---|
| t | point of the box, coordinates (N, k, r, r_f) |
| free | how many of them have room (:func:`m3bayes.decision.faces.free_coordinates`) |
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from m3bayes.decision.faces import Regime

Points = Float[np.ndarray, "point 4"]

# points along N, k, r, r_f; a coordinate without room stays in the middle. Overfitting can put a ridge between
# few epochs and many; along log N and log r_f the laws at hand are convex
GRID: Mapping[Regime, tuple[int, int, int, int]] = {
    "monolingual": (5, 13, 1, 1),
    "single-stage": (5, 9, 7, 1),
    "two-stage": (4, 7, 5, 2),
}


@lru_cache
def grid(regime: Regime, free: int) -> Points:
    """The grid of a regime, the corners of its box included."""
    axes = [np.linspace(0.0, 1.0, count) if count > 1 else np.array([0.5]) for count in counts(regime, free)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 4)


def counts(regime: Regime, free: int) -> tuple[int, ...]:
    return (*GRID[regime][:free], *(1,) * (4 - free))


def starts(
    regime: Regime, free: int, point: Int[np.ndarray, " start"]
) -> tuple[Int[np.ndarray, " more"], Points]:
    """Starts from grid points: which of those given each is from, and where it is (start, 4).

    A point at the least epochs, where the slope may be infinite, stands for itself and for one half a step in.
    """
    t = grid(regime, free)[point]
    edge = np.flatnonzero((t[:, 1] == 0) | (t[:, 1] == 1))
    inside = t[edge]
    inside[:, 1] += np.where(inside[:, 1] == 0, 0.5, -0.5) / (GRID[regime][1] - 1)
    return np.concatenate([np.arange(len(t)), edge]), np.concatenate([t, inside])


def local_minima(values: Array, regime: Regime, free: int) -> Array:
    """(point, ...) whether the values on a grid are below their neighbours' along N, k and r.

    At each r_f by itself: an optimum may lie at either of its ends, and a coarse grid would show one alone.

    Of neighbours that tie the last counts, so that a flat direction has one minimum and not many; along N it is
    the one that spends most, from which less of another variable leaves room for a larger model.
    """
    shape = (*counts(regime, free), *values.shape[1:])
    boxes = jnp.reshape(values, shape)
    found = jnp.isfinite(boxes)
    for axis in range(3):
        ends = [(1, 1) if i == axis else (0, 0) for i in range(boxes.ndim)]
        padded = jnp.pad(boxes, ends, constant_values=jnp.inf)
        before = jnp.take(padded, jnp.arange(shape[axis]), axis=axis)
        after = jnp.take(padded, jnp.arange(2, shape[axis] + 2), axis=axis)
        found &= (boxes <= before) & (boxes < after)
    return jnp.reshape(found, values.shape)
