"""Bands for the ECDF of uniform numbers, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from m3bayes.evaluation.uniformity import POINTS, band, binomial_quantile, ecdf, p_value, smallest_tail


@pytest.mark.parametrize("n", [5, 60, 1000])
def test_the_band_holds_uniform_numbers_as_often_as_it_says(n):
    samples = np.random.default_rng(n).uniform(size=(2000, n))
    expected = band(n, 0.95)
    inside = [((expected.lower <= e) & (e <= expected.upper)).all() for e in map(ecdf, samples)]
    assert abs(np.mean(inside) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 2000)


def test_p_values_below_five_per_cent_are_those_outside_the_band():
    samples = np.random.default_rng(1).beta(1.15, 1, size=(300, 80))
    expected = band(80, 0.95)
    outside = [((e < expected.lower) | (e > expected.upper)).any() for e in map(ecdf, samples)]
    rejected = [p_value(sample) < 0.05 for sample in samples]
    assert 20 < sum(outside) < 280
    assert outside == rejected


def test_smallest_tail_is_that_of_the_binomials():
    values = np.random.default_rng(2).beta(2, 1, size=37)
    tails = []
    for z in POINTS:
        count = np.sum(values <= z)
        tails += [stats.binom.cdf(count, 37, z), stats.binom.sf(count - 1, 37, z)]
    assert smallest_tail(values) == pytest.approx(min(1, 2 * min(tails)), rel=1e-9)


def test_what_is_not_uniform_is_found():
    values = np.random.default_rng(3).beta(1.5, 1.5, size=600)
    assert p_value(values) < 1e-3


@pytest.mark.parametrize("n", [1, 12, 1000])
@pytest.mark.parametrize("q", [1e-6, 0.025, 0.5, 0.999])
def test_binomial_quantiles_are_scipys(n, q):
    assert np.array_equal(binomial_quantile(q, n, POINTS), stats.binom.ppf(q, n, POINTS))
