"""The practical law."""

from __future__ import annotations

import jax
import pytest
from hypothesis import given, settings

from m3bayes.laws import practical
from tests.laws.surfaces import coefficients, loss, plausible, recipe, recipes

few = settings(max_examples=20, deadline=None)


@few
@given(c=coefficients(practical()), x=recipes())
def test_between_a_perfect_and_an_uninformed_model(c, x):
    assert c["E"] < loss(practical(), c, x) < c["L0"]


def test_limits():
    c = plausible(practical())
    nothing = recipe(params=1e-30, target_tokens=1e-30)
    assert loss(practical(), c, nothing) == pytest.approx(c["L0"])
    everything = recipe(params=1e60, target_tokens=1e120)
    assert loss(practical(), c, everything) == pytest.approx(c["E"])


def test_good_models_are_chinchillas():
    """Where h is small L = E + (L0 - E) h, so that A = (L0 - E) a and B = (L0 - E) b."""
    c = plausible(practical(), c=0.0)
    x = recipe(params=1e14, target_tokens=1e16)
    term = c["a"] / 1e14 ** c["alpha"] + c["b"] / 1e16 ** c["beta"]
    assert loss(practical(), c, x) - c["E"] == pytest.approx((c["L0"] - c["E"]) * term, rel=2e-3)


def test_too_large_a_model_for_its_data_overfits():
    c = plausible(practical())
    sizes = [loss(practical(), c, recipe(params=N, target_tokens=1e8, epochs=10.0)) for N in (1e6, 1e8, 1e11)]
    assert sizes[1] < sizes[0]
    assert sizes[1] < sizes[2]


def test_the_uninformed_loss_lies_above_the_median():
    key = jax.random.key(0)
    assert practical()["L0"].prior.sample(key, (1000,)).min() > 1
    assert practical()["E"].prior.sample(key, (1000,)).max() < 1
    assert float(practical()["L0"].prior.support.lower_bound) == 1.0
