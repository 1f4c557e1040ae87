"""The priors that the laws share."""

from __future__ import annotations

import jax
import numpy as np
import numpyro
import pytest
from scipy import stats

from m3bayes.laws import priors


def draws(prior, n: int = 1000) -> np.ndarray:
    return np.asarray(prior.sample(jax.random.key(0), (n,)))


def test_log_normal():
    values = np.log(draws(priors.log_normal(0.15, 1.5)))
    assert stats.kstest(values, stats.norm(np.log(0.15), 1.5).cdf).pvalue > 1e-3
    assert priors.log_normal(0.15, 1.5).log_prob(0.3) == pytest.approx(
        stats.lognorm(1.5, scale=0.15).logpdf(0.3), rel=1e-6
    )


def test_bounded_log_normal():
    prior = priors.bounded_log_normal(0.35, 0.5, 0.2, 0.6)
    values = draws(prior)
    assert 0.2 < values.min() < 0.21
    assert 0.58 < values.max() < 0.6
    whole = stats.lognorm(0.5, scale=0.35)
    inside = whole.cdf(0.6) - whole.cdf(0.2)
    assert prior.log_prob(0.3) == pytest.approx(whole.logpdf(0.3) - np.log(inside), rel=1e-6)
    assert stats.kstest(values, lambda v: (whole.cdf(v) - whole.cdf(0.2)) / inside).pvalue > 1e-3


@pytest.mark.parametrize(
    "prior",
    [
        priors.bounded_log_normal(0.7, 0.5, 0.05, 2.0),
        priors.exponent(),
        priors.floor(),
        priors.logit_normal(-1.2, 1.2),
    ],
)
def test_a_model_draws_from_the_very_prior(prior):
    """numpyro.sample has a way of its own to a distribution's draws."""

    def model():
        with numpyro.plate("draw", 4000):
            numpyro.sample("value", prior)

    traced = numpyro.handlers.trace(numpyro.handlers.seed(model, jax.random.key(1))).get_trace()
    values = np.asarray(traced["value"]["value"])
    assert np.isfinite(prior.log_prob(values)).all()
    assert np.asarray(prior.support(values)).all()
    direct = np.asarray(prior.sample(jax.random.key(2), (4000,)))
    assert stats.ks_2samp(values, direct).pvalue > 1e-3


def test_logit_normal():
    values = draws(priors.logit_normal(-1.2, 1.2))
    assert stats.kstest(np.log(values / (1 - values)), stats.norm(-1.2, 1.2).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        (priors.floor, stats.beta(2, 2)),
        (priors.term, stats.lognorm(1.0, scale=0.15)),
        (priors.overfitting, stats.lognorm(1.5, scale=0.02)),
    ],
)
def test_shared_priors(prior, expected):
    assert stats.kstest(draws(prior()), expected.cdf).pvalue > 1e-3
    assert prior().log_prob(0.2) == pytest.approx(expected.logpdf(0.2), rel=1e-5)


def test_exponents_are_bounded():
    values = draws(priors.exponent())
    assert values.min() > 0.03
    assert values.max() < 2
    assert np.median(values) == pytest.approx(0.35, rel=0.05)


def test_beta_is_the_same_in_either_precision():
    double = priors.beta(2.0, 3.0)
    with jax.enable_x64(False):
        single = priors.beta(2.0, 3.0)
        assert np.isfinite(double.log_prob(0.3))
    assert double.log_prob(0.3) == single.log_prob(0.3)
    assert double.log_prob(0.3) == pytest.approx(stats.beta(2, 3).logpdf(0.3), rel=1e-5)
