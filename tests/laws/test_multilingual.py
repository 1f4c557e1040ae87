"""The multilingual law: Chinchilla for one language, and the same function of rescaled N and D for any number."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.errors import RunTableError
from m3bayes.inference.fit import fit
from m3bayes.laws import chinchilla, multilingual
from tests.languages.designs import multilingual_runs
from tests.laws.surfaces import MAIN, coefficients, loss, plausible, recipe, recipes

few = settings(max_examples=20, deadline=None)


@few
@given(c=coefficients(multilingual()), x=recipes())
def test_one_language_is_chinchilla(c, x):
    main = {name: c[name] for name in MAIN}
    assert loss(multilingual(), c, {**x, "languages": 1.0}) == pytest.approx(
        loss(chinchilla(), main, x), rel=1e-12
    )
    none = {**c, "phi": 0.0, "psi": 0.0}
    assert loss(multilingual(), none, x) == pytest.approx(loss(chinchilla(), main, x), rel=1e-12)


@few
@given(c=coefficients(multilingual()), x=recipes(), rho=st.floats(0.2, 50.0))
def test_more_languages_are_a_change_of_size_and_tokens(c, x, rho):
    more = {
        **x,
        "languages": x["languages"] * rho,
        "params": x["params"] * rho ** (c["phi"] / c["alpha"]),
        "target_tokens": x["target_tokens"] * rho ** (c["psi"] / c["beta"]),
    }
    assert loss(multilingual(), c, more) == pytest.approx(loss(multilingual(), c, x), rel=1e-12)


def test_more_languages_take_of_the_model_and_give_in_data():
    c = plausible(multilingual())
    large, small = recipe(params=1e12, languages=1.0), recipe(params=1e7, target_tokens=1e14, languages=1.0)
    assert loss(multilingual(), c, {**large, "languages": 8.0}) < loss(multilingual(), c, large)
    assert loss(multilingual(), c, {**small, "languages": 8.0}) > loss(multilingual(), c, small)


def test_a_table_without_the_number_of_languages_is_refused():
    frame = multilingual_runs().frame().drop(columns="languages")
    from m3bayes.runs import runs_from_frame

    with pytest.raises(RunTableError, match="law multilingual reads column 'languages'"):
        fit(runs_from_frame(frame), multilingual())
