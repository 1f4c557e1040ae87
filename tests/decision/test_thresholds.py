"""Sign changes by draw: places, distances, and what a shared set of nodes leaves of a function."""

from __future__ import annotations

import numpy as np
import pytest

from m3bayes.decision.thresholds import at, last_fall, refined, signed_distance

ROOTS = np.array([-0.9, 0.13, 0.5, 0.9])


def falling(u: float) -> np.ndarray:
    """One function, a draw each root: curved, through 0 at the root."""
    return -np.expm1(2 * (u - ROOTS))[None]


def test_halving_finds_the_roots_of_a_curved_function():
    coarse = np.linspace(-1, 1, 3)
    values = np.stack([falling(u) for u in coarse])
    errors = []
    for halvings in (1, 5):
        nodes, found = refined(falling, coarse, values, halvings)
        assert found == pytest.approx(np.stack([falling(u) for u in nodes]))
        places, changes = last_fall(nodes, found[:, 0])
        assert changes.tolist() == [1, 1, 1, 1]
        errors.append(np.abs(places - ROOTS).max())
    # straight lines: an error of the square of the gap
    assert errors[1] < errors[0] / 100 and errors[1] < 1e-3


def test_nodes_are_added_only_where_signs_change():
    nodes, _ = refined(lambda u: falling(u)[:, 1:2], np.linspace(-1, 1, 5), np.stack(
        [falling(u)[:, 1:2] for u in np.linspace(-1, 1, 5)]), 3)  # fmt: skip
    assert len(nodes) == 5 + 3
    assert np.all((nodes >= 0) & (nodes <= 0.5) | np.isin(nodes, np.linspace(-1, 1, 5)))


def test_the_last_fall_and_what_lies_outside():
    u = np.arange(6.0)
    f = np.array([[1, -1, 1, -1, -1, -1], [1, 1, 1, 1, 1, 1], [-1] * 6, [-1, -1, -1, 1, 1, 3]], float).T
    places, changes = last_fall(u, f)
    assert places.tolist() == [2.5, np.inf, -np.inf, np.inf]
    assert changes.tolist() == [3, 0, 0, 1]
    f[5] = np.nan  # outside the range
    f[:5, 1] = [1, 1, 1, 1, -3]
    assert last_fall(u, f)[0].tolist() == [2.5, 3.25, -np.inf, np.inf]


def test_signed_distances_are_those_to_the_nearest_change():
    u = np.linspace(0, 4, 81)
    low, high = 1.21, 2.83
    f = np.minimum(u - low, high - u)[:, None]
    found = signed_distance(u, f)[:, 0]
    step = u[1]
    expected = np.where(
        f[:, 0] > 0,
        f[:, 0],
        -np.minimum.reduce([np.abs(u - low), np.abs(u - high), u + step, 4 + step - u]),
    )
    assert found == pytest.approx(expected)


def test_distances_interpolate_a_moving_interval_exactly():
    """Wins in [a, b] that move with log C: between two columns the interval is the one in between."""
    u = np.linspace(-5, 5, 401)

    def wins(a: float, b: float) -> np.ndarray:
        return np.minimum(u - a, b - u)[:, None]

    ends = np.stack([signed_distance(u, wins(-1, 2)), signed_distance(u, wins(0, 3.4))])
    middle = at(np.array([0.0, 1.0]), ends, np.array([0.25]))[0, :, 0]
    assert u[middle > 0][[0, -1]] == pytest.approx([-0.75, 2.35], abs=u[1] - u[0])


def test_a_node_beside_what_is_missing_keeps_its_own_value():
    values = np.array([[1.0], [3.0], [np.nan]])
    found = at(np.array([0.0, 1.0, 2.0]), values, np.array([0.5, 1.0, 1.5, 2.0]))[:, 0]
    assert found[:2].tolist() == [2.0, 3.0] and np.isnan(found[2:]).all()
    assert np.isnan(signed_distance(np.array([0.0, 1.0, 2.0]), values)[2])
