"""Counting must find the very draws that sorting finds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from m3bayes.inference import quantiles as module
from m3bayes.inference.quantiles import quantiles

ENDS = (0.05, 0.95)


def ours(values: np.ndarray, probabilities: tuple[float, ...] = ENDS) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(jax.jit(quantiles)(jnp.asarray(values), jnp.asarray(probabilities)))


def shapes_of_draws() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    normal = rng.standard_normal(1000)
    return {
        "normal": normal,
        "narrow": 3.0 + 1e-9 * normal,
        "skew": np.exp(2 * normal),
        "heavy tails": rng.standard_cauchy(1000),
        "piled up at 0": rng.gamma(0.1, 1.0, 1000),
        "a far clump at the quantile": np.where(rng.random(1000) < 0.05, -1e9, normal),
        "ties": np.round(normal, 1),
        "two values": (normal > 1.6).astype(float),
        "all alike": np.full(1000, 2.5),
        "huge range": np.exp(150 * normal),
    }


@pytest.mark.parametrize("name", shapes_of_draws())
def test_agrees_with_numpy(name):
    values = shapes_of_draws()[name]
    probabilities = (0.0, 0.001, 0.05, 0.25, 0.5, 0.9, 0.95, 1.0)
    expected = np.quantile(values, probabilities, method="linear")
    # the order statistics are exact; interpolating may differ in the last bit
    np.testing.assert_allclose(ours(values, probabilities), expected, rtol=4e-16, atol=0)


@pytest.mark.parametrize("n", [1, 2, 3, 20, 21, 999])
def test_agrees_with_numpy_for_few_draws(n):
    values = np.random.default_rng(n).standard_normal(n)
    np.testing.assert_allclose(ours(values), np.quantile(values, ENDS), rtol=1e-15)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float64, 24, elements=st.floats(-1e6, 1e6, allow_subnormal=False)), st.floats(0.0, 1.0))
def test_order_statistics_of_any_draws(values, probability):
    expected = np.quantile(values, [probability], method="linear")
    scale = np.abs(values).max()
    np.testing.assert_allclose(ours(values, (probability,)), expected, rtol=1e-15, atol=1e-15 * scale)


def test_order_of_draws_does_not_matter():
    rng = np.random.default_rng(0)
    values = rng.standard_t(3, 501)
    assert np.array_equal(ours(values), ours(rng.permutation(values)))


def test_rows_do_not_touch_each_other():
    rows = np.stack(list(shapes_of_draws().values()))
    with jax.enable_x64(True):
        ends = jnp.asarray(ENDS)
        together = jax.jit(jax.vmap(lambda row: quantiles(row, ends)))(jnp.asarray(rows))
    np.testing.assert_allclose(np.asarray(together), np.stack([ours(row) for row in rows]), rtol=4e-16)


def test_not_a_number_ends_the_search():
    values = np.random.default_rng(0).standard_normal(100)
    values[7] = np.nan
    assert ours(values).shape == (2,)


def test_accelerators_sort_to_the_same_numbers(monkeypatch):
    values = np.random.default_rng(5).standard_t(2, 400)
    counted = ours(values)
    monkeypatch.setattr(module.jax, "default_backend", lambda: "gpu")
    with jax.enable_x64(True):
        ordered = module.quantiles(jnp.asarray(values), jnp.asarray(ENDS))
    np.testing.assert_allclose(np.asarray(ordered), counted, rtol=1e-14)
