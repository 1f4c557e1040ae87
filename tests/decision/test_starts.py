"""Starts: local minima of a grid against a loop, and what is taken inside."""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from m3bayes.decision.descents import blocks
from m3bayes.decision.starts import counts, grid, local_minima, starts


def test_local_minima_are_those_of_a_loop():
    shape = counts("two-stage", 4)
    values = np.random.default_rng(0).integers(0, 6, size=(*shape, 3)).astype(float)  # many ties
    values[values == 0] = np.inf
    with jax.enable_x64(True):
        found = np.asarray(local_minima(jnp.asarray(values.reshape(-1, 3)), "two-stage", 4)).reshape(
            values.shape
        )
    for *place, draw in product(*map(range, values.shape)):
        here, fine = values[(*place, draw)], True
        for axis in range(3):
            for step in (-1, 1):
                beside = list(place)
                beside[axis] += step
                if 0 <= beside[axis] < shape[axis]:
                    other = values[(*beside, draw)]
                    fine &= here <= other if step < 0 else here < other
        assert found[(*place, draw)] == (fine and np.isfinite(here))


def test_a_flat_direction_has_one_minimum_at_its_end():
    points = grid("monolingual", 2)
    with jax.enable_x64(True):
        found = np.asarray(local_minima(jnp.asarray((points[:, 1:2] - 0.5) ** 2), "monolingual", 2))[:, 0]
    assert points[found].tolist() == [[1.0, 0.5, 0.5, 0.5]]


def test_edges_of_the_epochs_have_a_start_inside_too():
    points = grid("monolingual", 2)
    edge, middle = (int(np.flatnonzero(points[:, 1] == k)[0]) for k in (0.0, 0.5))
    rows, t = starts("monolingual", 2, np.array([middle, edge]))
    assert rows.tolist() == [0, 1, 1]
    assert t[:2].tolist() == points[[middle, edge]].tolist() and 0 < t[2, 1] < points[1, 1]


def test_blocks_hold_every_row_and_are_of_one_size():
    parts = blocks(7, 3)
    assert [list(part) for part in parts] == [[0, 1, 2], [3, 4, 5], [6, 6, 6]] and blocks(0, 3) == []
