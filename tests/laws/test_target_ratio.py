"""The target-ratio law."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.laws import chinchilla, data_constrained, target_ratio
from tests.laws.surfaces import MAIN, coefficients, loss, plausible, recipe, recipes

few = settings(max_examples=20, deadline=None)


@few
@given(c=coefficients(chinchilla()), x=recipes())
def test_without_gamma_it_is_chinchilla_on_all_tokens(c, x):
    flat = target_ratio(drop=("gamma",))
    assert loss(flat, c, x) == pytest.approx(loss(chinchilla("all"), c, x), rel=1e-12)


@few
@given(c=coefficients(target_ratio(repetition=True)), x=recipes())
def test_with_repetition_at_one_language_it_is_muennighoffs(c, x):
    x = {**x, "target_ratio": 1.0}
    other = {**{n: c[n] for n in MAIN}, "R_D": 1 / c["lambda"]}
    expected = loss(data_constrained(drop=("R_N",)), other, x)
    assert loss(target_ratio(repetition=True), c, x) == pytest.approx(expected, rel=1e-12)


@few
@given(x=recipes(), share=st.floats(0.1, 1.0))
def test_a_power_of_the_ratio_whatever_the_size_and_the_data(x, share):
    c = plausible(target_ratio())
    # the same N and all tokens D, with a smaller share of them in the target language
    less = {**x, "target_ratio": x["target_ratio"] * share, "epochs": x["epochs"] * share}
    gain = loss(target_ratio(), c, less) / loss(target_ratio(), c, x)
    assert gain == pytest.approx(share ** -c["gamma"], rel=1e-12)


def test_the_prior_is_on_terms_at_the_reference_ratio():
    """At a table of one ratio, E's prior is on E r^-gamma, which the runs show."""
    assert target_ratio()["E"].at == {"r": "-gamma"}
    assert target_ratio()["A"].at == {"N": "-alpha", "r": "-gamma"}
    assert target_ratio(drop=("gamma",))["B"].at == {"D": "-beta"}
    assert float(target_ratio().references["r"].log_value(recipe(target_ratio=0.5))) == pytest.approx(
        -0.6931472
    )
