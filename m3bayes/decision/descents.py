"""Many descents as one list: worked off in blocks, on all cores, and thinned out on the way.

The descents of a block go in step, so that the slowest would hold up the others. After a few steps the list is
therefore looked through: what has arrived leaves it, and what cannot become the best of its group (those of one
draw, say) is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from m3bayes.decision.newton import STEPS, Way

Rows = Int[np.ndarray, " row"]
# steps after which the list is looked through
ROUNDS = (1, 1, 2, 4, 8, STEPS)
# given up is what would not become the best even if it gained so many times what its model promises
GIVEN_UP = 10.0


def descend_all(
    pool: Executor,
    descend: Callable[[Rows, Float[np.ndarray, "row 4"], int], Way],
    size: int,
    starts: Float[np.ndarray, "start 4"],
    group: Int[np.ndarray, " start"],
    best: Float[np.ndarray, " group"],
) -> tuple[Float[np.ndarray, "start 4"], Float[np.ndarray, " start"]]:
    """Where descents from some starts end, and the values there.

    ``descend`` takes ``size`` rows of the list, their points and a number of steps; ``best`` are the values
    that are known already. Of a descent that was given up it is the last point.
    """
    t, value, best = starts.copy(), np.full(len(starts), np.inf), best.copy()
    left = np.arange(len(starts))
    for steps in ROUNDS:
        if not len(left):
            break
        parts = blocks(len(left), size)
        jobs = [(left[part], t[left[part]], steps) for part in parts]
        ways = in_threads(pool, descend, jobs)
        to, lowest, promise, done = (
            np.concatenate(leaves, axis=-1)[..., : len(left)] for leaves in zip(*ways, strict=True)
        )
        t[left, : len(to)], value[left] = to.T, lowest
        np.minimum.at(best, group[left], lowest)
        hopeful = lowest - GIVEN_UP * promise <= best[group[left]]
        left = left[~done & hopeful]
    return t, value


def blocks(count: int, size: int) -> list[Rows]:
    """0 .. count - 1 in blocks of one size, which is compiled once; the last is filled up with its last row."""
    return [np.minimum(np.arange(i, i + size), count - 1) for i in range(0, count, size)]


def in_threads(pool: Executor, call: Callable[..., Any], jobs: Sequence[tuple]) -> list:
    """The results of ``call(*job)`` for each job, as numpy arrays. What needs compiling jax compiles once, the other
    threads wait for it."""

    def one(job: tuple) -> Any:
        with jax.enable_x64(True):  # holds for one thread
            return jax.tree.map(np.asarray, call(*job))

    return list(pool.map(one, jobs))
