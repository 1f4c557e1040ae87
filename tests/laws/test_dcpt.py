"""D-CPT."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from m3bayes.laws import chinchilla, dcpt
from tests.laws.surfaces import coefficients, loss, plausible, recipe, recipes

few = settings(max_examples=20, deadline=None)


@few
@given(c=coefficients(chinchilla()), x=recipes())
def test_without_the_share_it_is_chinchilla_on_all_tokens(c, x):
    blind = dcpt(drop=("C", "eta"))
    assert loss(blind, c, x) == pytest.approx(loss(chinchilla("all"), c, x), rel=1e-12)


def test_eps_bounds_the_loss_without_domain_text():
    c = plausible(dcpt())
    endless = recipe(target_tokens=1e30, params=1e40, target_ratio=1e-12)
    assert loss(dcpt(), c, endless) == pytest.approx(c["E"] + c["C"] * c["eps"] ** -c["gamma"], rel=1e-6)


def test_a_larger_share_helps_with_enough_data():
    c, D = plausible(dcpt()), 1e12
    at = [loss(dcpt(), c, recipe(target_tokens=D * r, target_ratio=r)) for r in (0.05, 0.3, 1.0)]
    assert at[0] > at[1] > at[2]
