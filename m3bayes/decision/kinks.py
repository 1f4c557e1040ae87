"""Going down a risk that has kinks, where Newton's method stops: by Adam, or by ever smaller steps at random.

A quantile of many draws has a kink wherever two of them change places, and as many small minima: near a minimum of
its smooth form, a look along each coordinate and then steps at random find the lowest of those nearby. Adam goes past
kinks from farther off.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from m3bayes.decision.descents import in_threads
from m3bayes.decision.faces import Face, unpacked
from m3bayes.decision.newton import Point

ADAM_STEPS = 100
# along each coordinate with room, points to look at on either side, and how far apart they are, parts of the box
SCANNED, APART = 80, 1e-4
# then lengths of steps at random, parts of the box, and tries of each a coordinate with room
LENGTHS = (0.02, *(0.01 * 0.2**i for i in range(1, 10)))
TRIES = 16
# threads that share these looks and tries
PARTS = 2

Objective = Callable[[Face, Array], Array]


@jax.jit
def by_adam(objective: Objective, face: Array, point: Point) -> Point:
    """The lowest point on a way of Adam's from a point (4,) of a packed face."""
    import optax  # here, since fits have no use for it

    adam = optax.adam(optax.cosine_decay_schedule(0.02, ADAM_STEPS))
    here = unpacked(face)
    slope = jax.value_and_grad(lambda t: objective(here, t))

    def step(carry, _):
        t, state, least = carry
        value, g = slope(t)
        least = _lower(Point(t, value), least)
        change, state = adam.update(jnp.where(jnp.isfinite(g), g, 0.0), state)
        return (optax.projections.projection_box(t + change, 0.0, 1.0), state, least), None

    (_, _, least), _ = lax.scan(step, (point.t, adam.init(point.t), point), length=ADAM_STEPS)
    return least


def at_random(pool: Executor, objective: Objective, free: int, face: ArrayLike, point: Point) -> Point:
    """The lowest point found from a point (4,) of a packed face, never higher than that; the looks and steps, along the
    first ``free`` coordinates, are always the same."""
    for steps in (*_scans(free), *_steps(free)):
        search = partial(_lowest, objective, face, point)
        found = in_threads(pool, search, [(steps[part::PARTS],) for part in range(PARTS)])
        point = min(found, key=lambda point: float(point.value))
    return point


@jax.jit
def _lowest(objective: Objective, face: ArrayLike, point: Point, steps: ArrayLike) -> Point:
    """The lowest of a point and of those that steps (step, 4) lead to."""
    here, tried = unpacked(jnp.asarray(face)), jnp.clip(point.t + jnp.asarray(steps), 0.0, 1.0)
    values = lax.map(lambda t: objective(here, t), tried)
    best = jnp.argmin(jnp.where(jnp.isnan(values), jnp.inf, values))
    return _lower(Point(tried[best], values[best]), point)


def _lower(new: Point, old: Point) -> Point:
    lower = new.value < old.value
    return Point(jnp.where(lower, new.t, old.t), jnp.where(lower, new.value, old.value))


def _scans(free: int) -> np.ndarray:
    """(coordinate, look, 4) steps along each coordinate."""
    along = APART * np.append(np.arange(-SCANNED, 0), np.arange(1, SCANNED + 1))
    return np.eye(4)[:free, None] * along[:, None]


def _steps(free: int) -> np.ndarray:
    """(length, try, 4), half of them along one coordinate alone."""
    steps = np.random.default_rng(0).normal(size=(len(LENGTHS), TRIES * free, free))
    alone = steps[:, : TRIES * free // 2]
    alone *= np.eye(free)[np.arange(alone.shape[1]) % free]
    return np.pad(np.array(LENGTHS)[:, None, None] * steps, ((0, 0), (0, 0), (0, 4 - free)))
