"""The prescriptive law."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from m3bayes.laws import chinchilla, prescriptive
from tests.laws.surfaces import MAIN, coefficients, loss, plausible, recipe, recipes

few = settings(max_examples=20, deadline=None)


@few
@given(c=coefficients(prescriptive()), x=recipes(most_epochs=1.0))
def test_up_to_one_epoch_it_is_chinchilla(c, x):
    assert loss(prescriptive(), c, x) == pytest.approx(
        loss(chinchilla(), {n: c[n] for n in MAIN}, x), rel=1e-13
    )


def test_overfitting_scales_as_it_says():
    c = plausible(prescriptive())

    def cost(**change):
        x = recipe(**{"epochs": 3.0, **change})
        return loss(prescriptive(), c, x) - loss(prescriptive(), {**c, "P": 0.0}, x)

    assert cost(epochs=5.0) / cost() == pytest.approx(2 ** c["delta"])
    assert cost(params=6e8) / cost(params=3e8) == pytest.approx(2 ** c["kappa"])
    assert cost(target_tokens=4e9) / cost(target_tokens=2e9) == pytest.approx(2 ** -c["kappa"])
    assert cost(final_ratio=0.2) == pytest.approx(cost())
