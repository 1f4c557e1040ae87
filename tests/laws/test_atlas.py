"""ATLAS, with one source language."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.laws import atlas, data_constrained, published
from m3bayes.laws.atlas import floored
from tests.laws.surfaces import MAIN, coefficients, loss, plausible, recipe, recipes

few = settings(max_examples=20, deadline=None)


@few
@given(c=coefficients(atlas()), x=recipes())
def test_without_source_text_it_is_muennighoffs_data_term(c, x):
    x = {**x, "target_ratio": 1.0}
    other = {**{n: c[n] for n in MAIN}, "R_D": 1 / c["lambda"]}
    assert loss(atlas(), c, x) == pytest.approx(loss(data_constrained(drop=("R_N",)), other, x), rel=1e-12)


@few
@given(tau=st.floats(-0.5, 1.0), d=st.floats(1e8, 1e12))
def test_bilingual_transfer_score(tau, d):
    """BTS = -(tokens of a 50/50 bilingual model - 2 d) / d = 2 - 2 / (1 + tau)."""
    c = plausible(atlas(), tau=tau)
    bilingual = d * (2 - (2 - 2 / (1 + tau)))
    mixed = recipe(target_tokens=bilingual / 2, target_ratio=0.5, final_ratio=0.5)
    assert loss(atlas(), c, mixed) == pytest.approx(loss(atlas(), c, recipe(target_tokens=d)), rel=1e-12)


def test_reported_transfer_is_above_the_floor():
    for name in ("same_script", "other_script"):
        bts = published("atlas_transfer").coefficients[name]
        tau = 2 / (2 - bts) - 1
        assert -0.2 < tau < 0
        assert 1 + tau > 0.5


@pytest.mark.parametrize("tau", [-0.99, -0.3, 0.3, 0.99])
def test_effective_data_stays_positive(tau):
    c = plausible(atlas(), tau=tau)
    ratios = np.geomspace(1e-6, 1, 200)
    losses = [loss(atlas(), c, recipe(target_ratio=r)) for r in ratios]
    assert np.isfinite(losses).all()
    # the more source text, the worse for tau < 0 and the better for tau > 0
    assert (np.diff(losses) * np.sign(tau) > 0).all()


def test_the_floor_is_smooth():
    z = np.array([-50.0, 0.0, 0.5 - 1e-9, 0.5, 0.5 + 1e-9, 1.0, 3.0])
    np.testing.assert_allclose(floored(z), [1 / 204, 0.25, 0.5, 0.5, 0.5, 1.0, 3.0], atol=2e-9)
    slope = [float(jax.grad(lambda v: floored(v))(v)) for v in z]
    np.testing.assert_allclose(slope, [0.25 / 51**2, 0.25, 1, 1, 1, 1, 1], atol=1e-8)
    assert np.isfinite(jax.grad(lambda v: floored(v))(1.0))
