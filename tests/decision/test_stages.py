"""The zoom over a cell: valleys across its axes, corners, kinks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3bayes.decision.stages import _zoomed


def across(t):
    """A narrow valley along a line across the axes, which falls towards the side t[0] = 1."""
    return 3000 * (t[..., 1] - 0.3 * t[..., 0] - 0.4) ** 2 + (1 - t[..., 0])


def kinked(t):
    return 3 * jnp.abs(t[..., 1] - 0.3 * t[..., 0] - 0.4) + (1 - t[..., 0])


def curved(t):
    return 1e3 * (t[..., 1] - t[..., 0] ** 2) ** 2 + (t[..., 0] - 0.7) ** 2


def at_a_corner(t):
    return t[..., 0] + jnp.sqrt(1 - t[..., 1])


@pytest.mark.parametrize(
    ("function", "place"),
    [(across, (1.0, 0.7)), (kinked, (1.0, 0.7)), (curved, (0.7, 0.49)), (at_a_corner, (0.0, 1.0))],
)
def test_the_zoom_finds_the_least(function, place):
    with jax.enable_x64(True):
        value, t = jax.jit(lambda: _zoomed(function, 2))()
    np.testing.assert_allclose(t, [place] * 2, atol=1e-6)
    np.testing.assert_allclose(value, function(jnp.asarray(place)), atol=1e-7)
