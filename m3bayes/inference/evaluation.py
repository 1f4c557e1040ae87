"""The potential and its gradient at many points: one small compiled loop that the mode search and the start
of chains share. Points are evaluated one by one, so that a value does not depend on what else is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from m3bayes.inference.coordinates import Coordinates
from m3bayes.inference.threads import as_caller

# points a call, and fewest worth a thread of their own
MOST, FEWEST = 256, 128
# how programs that go through draws or points one by one are compiled: their sums over some hundred runs are
# fastest as one loop each, and XLA would make trees of windows of them
PLAIN_SUMS = {"xla_disable_hlo_passes": "tree_reduction_rewriter"}

Points = Float[np.ndarray, "point dim"]
Evaluate = Callable[[Points], tuple[Float[np.ndarray, " point"], Points]]


def evaluator(space: Coordinates, arrays: Mapping) -> Evaluate:
    """q (point, dim) -> potential (point,), inf where there is no density, and its gradient (point, dim)."""
    compiled = _compiled(space)
    with jax.enable_x64(True):
        data = jax.tree.map(jnp.asarray, dict(arrays))
    cores = os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores)

    @as_caller
    def part(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        padded = np.zeros((MOST, q.shape[1]))
        padded[: len(q)] = q
        values, gradients = compiled(padded, len(q), data)
        return np.asarray(values)[: len(q)], np.asarray(gradients)[: len(q)]

    def evaluate(q: Points) -> tuple[Float[np.ndarray, " point"], Points]:
        parts = max(min(cores, len(q) // FEWEST), -(-len(q) // MOST), 1)
        if parts == 1:
            return part(q)
        values, gradients = zip(*pool.map(part, np.array_split(q, parts)), strict=True)
        return np.concatenate(values), np.concatenate(gradients)

    return evaluate


@lru_cache(maxsize=32)
def _compiled(space: Coordinates):
    @partial(jax.jit, compiler_options=PLAIN_SUMS)
    def evaluate(points, count, arrays):
        def body(i, found):
            values, gradients = found
            value, gradient = jax.value_and_grad(space.potential)(points[i], arrays)
            return values.at[i].set(value), gradients.at[i].set(gradient)

        return jax.lax.fori_loop(0, count, body, (jnp.zeros(len(points)), jnp.zeros_like(points)))

    return evaluate
