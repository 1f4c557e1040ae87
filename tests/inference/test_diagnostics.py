"""R-hat and effective sample sizes, against ArviZ."""

from __future__ import annotations

import numpy as np
import pytest
from arviz_stats.base.array import array_stats

from m3bayes.inference.diagnostics import bulk_ess, mean_ess, r_hat, tail_ess


def autoregressive(chains: int, draws: int, coefficient: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.normal(size=(chains, draws))
    for i in range(1, draws):
        values[:, i] += coefficient * values[:, i - 1]
    return values


def heavy_tailed(chains: int, draws: int) -> np.ndarray:
    return np.random.default_rng(1).standard_cauchy((chains, draws))


def sticky(chains: int, draws: int) -> np.ndarray:
    """Ties, as rejected proposals leave them."""
    return np.repeat(autoregressive(chains, draws // 4 + 1, 0.3), 4, axis=1)[:, :draws]


def apart(chains: int, draws: int) -> np.ndarray:
    return autoregressive(chains, draws, 0.5) + np.arange(chains)[:, None]


def trending(chains: int, draws: int) -> np.ndarray:
    return autoregressive(chains, draws, 0.2) + np.linspace(0, 3, draws)


@pytest.mark.parametrize(("chains", "draws"), [(4, 1000), (2, 401), (4, 4), (2, 7), (3, 50)])
def test_as_arviz_has_them(chains: int, draws: int):
    kinds = [sticky, apart, trending, heavy_tailed]
    rows = [autoregressive(chains, draws, c) for c in (-0.9, -0.4, 0.0, 0.5, 0.99)]
    quantities = np.stack([*rows, *(kind(chains, draws) for kind in kinds)])
    axes = {"chain_axis": 1, "draw_axis": 2}
    with np.errstate(divide="ignore"):  # in four draws, all distances from the median can be tied
        expected = array_stats.rhat(quantities, **axes)
    np.testing.assert_allclose(r_hat(quantities), expected, rtol=1e-9)
    expected = array_stats.ess(quantities, **axes, method="bulk")
    np.testing.assert_allclose(bulk_ess(quantities), expected, rtol=1e-9)
    expected = array_stats.ess(quantities, **axes, method="tail", prob=(0.05, 0.95))
    np.testing.assert_allclose(tail_ess(quantities), expected, rtol=1e-9)
    expected = array_stats.ess(quantities, **axes, method="mean")
    np.testing.assert_allclose(mean_ess(quantities), expected, rtol=1e-9)


def test_independent_draws_count_one_each():
    draws = np.random.default_rng(0).normal(size=(50, 4, 1000))
    assert np.median(bulk_ess(draws)) == pytest.approx(4000, rel=0.02)
    assert np.median(tail_ess(draws)) == pytest.approx(4000, rel=0.04)
    assert np.median(r_hat(draws)) == pytest.approx(1.0, abs=1e-3)


def test_a_quantity_that_never_moves_has_no_r_hat():
    still = np.full((1, 4, 100), 0.3)
    assert np.isnan(r_hat(still)).all()
    assert bulk_ess(still) == tail_ess(still) == [400.0]


def test_one_chain_has_no_r_hat():
    one = np.random.default_rng(0).normal(size=(2, 1, 400))
    assert np.isnan(r_hat(one)).all()
    np.testing.assert_allclose(bulk_ess(one), array_stats.ess(one, method="bulk"), rtol=1e-9)


def test_what_cannot_be_told_is_nan():
    draws = np.random.default_rng(0).normal(size=(3, 4, 100))
    draws[1, 0, 7], draws[2, 3, 99] = np.nan, np.inf
    for measure in (r_hat, bulk_ess, tail_ess, mean_ess):
        assert list(np.isnan(measure(draws))) == [False, True, True]
        assert np.isnan(measure(draws[:1, :, :3])).all()
