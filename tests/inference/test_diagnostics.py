"""R-hat and effective sample sizes, against ArviZ."""

from __future__ import annotations

import numpy as np
import pytest
from arviz_stats.base.array import array_stats
from scipy.stats import norm, rankdata

from m3bayes.inference.diagnostics import bulk_ess, mean_ess, nested_r_hat, r_hat, superchains_of, tail_ess


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


def naive_nested_r_hat(draws: np.ndarray, superchains: int) -> float:
    """Of one quantity, by the definitions of Margossian et al. 2024, on normal scores and folded ones."""

    def of(values: np.ndarray) -> float:
        scores = norm.ppf((rankdata(values) - 3 / 8) / (values.size + 1 / 4)).reshape(values.shape)
        groups = np.split(scores, superchains)
        means = [group.mean() for group in groups]
        within = []
        for group in groups:
            chain_means = [chain.mean() for chain in group]
            within.append(np.var(chain_means, ddof=1) + np.mean([np.var(chain, ddof=1) for chain in group]))
        return np.sqrt(1 + np.var(means, ddof=1) / np.mean(within))

    return max(of(draws), of(abs(draws - np.median(draws))))


def test_nested_r_hat_is_as_defined():
    quantities = np.stack([autoregressive(12, 9, 0.8), heavy_tailed(12, 9), sticky(12, 9), apart(12, 9)])
    for superchains in (2, 4):
        expected = [naive_nested_r_hat(draws, superchains) for draws in quantities]
        np.testing.assert_allclose(nested_r_hat(quantities, superchains), expected, rtol=1e-9)


def test_nested_r_hat_tells_short_chains_that_have_forgotten_their_start_from_those_that_have_not():
    random = np.random.default_rng(2)
    independent = random.normal(size=(50, 128, 32))
    # the mean of 256 draws varies by 1/256 of their variance
    assert np.median(nested_r_hat(independent, 16)) == pytest.approx(1 + 1 / 512, abs=5e-4)
    correlated = np.stack([autoregressive(128, 32, 0.5, seed) for seed in range(20)])
    assert (r_hat(correlated) > 1.01).all()  # chains so short are never alike one by one
    assert (nested_r_hat(correlated, 16) < 1.01).all()
    start = np.repeat(random.normal(size=(50, 16, 1)), 8, axis=1)
    assert (nested_r_hat(independent + 0.3 * start, 16) > 1.01).all()
    wider = np.repeat(np.exp(0.3 * random.normal(size=(50, 16, 1))), 8, axis=1)
    assert (nested_r_hat(independent * wider, 16) > 1.01).all()
    still = np.full((1, 32, 10), 0.3)
    assert np.isnan(nested_r_hat(still, 16)).all() and np.isnan(nested_r_hat(still[:, :, :3], 16)).all()


@pytest.mark.parametrize(
    ("chains", "draws", "expected"), [(4, 50, 0), (31, 50, 0), (32, 199, 16), (128, 32, 16), (32, 200, 0)]
)
def test_which_chains_are_grouped(chains: int, draws: int, expected: int):
    assert superchains_of(chains, draws) == expected
