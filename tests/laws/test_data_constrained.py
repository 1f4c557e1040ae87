"""The data-constrained law."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from m3bayes.laws import chinchilla, data_constrained, published
from m3bayes.laws.data_constrained import unique_tokens_seen
from tests.laws.surfaces import MAIN, coefficients, loss, recipe, recipes

few = settings(max_examples=20, deadline=None)


@pytest.mark.parametrize(("N", "D", "expected"), [(6.34e9, 242e9, 2.2256441), (8.67e9, 178e9, 2.2269635)])
def test_published_values(N, D, expected):
    c = published("muennighoff").coefficients
    x = recipe(params=N, target_tokens=25e9, epochs=D / 25e9)
    assert loss(data_constrained(), c, x) == pytest.approx(expected, abs=1e-7)


@few
@given(c=coefficients(chinchilla()), x=recipes())
def test_without_either_decay_it_is_chinchilla(c, x):
    both = data_constrained(drop=("R_D", "R_N"))
    assert loss(both, c, x) == pytest.approx(loss(chinchilla(), c, x), rel=1e-12)


@few
@given(c=coefficients(data_constrained()), x=recipes())
def test_decay_only_costs(c, x):
    assert loss(data_constrained(), c, x) >= loss(chinchilla(), {n: c[n] for n in MAIN}, x) * (1 - 1e-14)


def test_small_models_on_fresh_text_are_chinchilla():
    c = {**MAIN, "R_D": 15.0, "R_N": 5.0}
    x = recipe(params=1e7, target_tokens=1e10)
    assert loss(data_constrained(), c, x) == pytest.approx(loss(chinchilla(), MAIN, x), rel=1e-13)
    # and 100 times as large as U could use is worth less
    x = recipe(params=1e11, target_tokens=1e9)
    assert loss(data_constrained(), c, x) > loss(chinchilla(), MAIN, x) * 1.001


def test_unique_tokens():
    assert unique_tokens_seen(recipe(target_tokens=2e9, epochs=0.25)) == 5e8
    assert unique_tokens_seen(recipe(target_tokens=2e9, epochs=7.0)) == 2e9
    assert unique_tokens_seen(recipe(target_tokens=2e9, epochs=3.0, target_ratio=0.25), "all") == 20e9
