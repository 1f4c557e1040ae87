"""Densities of the runs' residuals, against scipy's."""

import numpy as np
import pytest
from scipy import stats

from m3bayes.evaluation.observed import Observed, log_density


@pytest.mark.parametrize("nu", [1.01, 2.5, 30.0, 1e6, np.inf])
def test_densities_are_those_of_scipy(nu):
    random = np.random.default_rng(0)
    t = np.concatenate(
        [random.standard_normal((3, 5)), 40 * random.standard_normal((3, 2)), np.zeros((3, 1))], 1
    )
    scale = np.exp(random.standard_normal(t.shape))
    found = log_density(Observed(t, scale, np.full((3, 1), nu)))
    plain = stats.norm if np.isinf(nu) else stats.t(nu)
    np.testing.assert_allclose(found, plain.logpdf(t) - np.log(scale), rtol=1e-9, atol=1e-9)
