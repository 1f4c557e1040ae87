"""The staged law: what it contains, and how early target text comes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from m3bayes.laws import m3, staged, target_ratio
from m3bayes.laws.staged import earliness
from tests.laws.surfaces import MAIN, coefficients, loss, plausible, recipe, recipes

few = settings(max_examples=20, deadline=None)


@few
@given(c=coefficients(staged(), xi=0.0, chi=0.0), x=recipes())
def test_without_its_own_terms_it_is_m3(c, x):
    assert loss(staged(), c, x) == pytest.approx(loss(m3(), {n: c[n] for n in m3().names}, x), rel=1e-12)


@few
@given(c=coefficients(staged(), gamma=-1.0, tau=0.0, P=0.0), x=recipes(), k=st.floats(0.05, 1.0))
def test_one_stage_can_be_the_target_ratio_law(c, x, k):
    x = {**x, "epochs": k, "final_ratio": x["target_ratio"]}
    other = {**{name: c[name] for name in MAIN}, "gamma": c["xi"]}
    assert loss(staged(), c, x) == pytest.approx(loss(target_ratio(), other, x), rel=1e-12)


@few
@given(first=st.floats(0.0, 1.0), last=st.floats(0.0, 1.0), share=st.floats(0.01, 0.99))
def test_earliness_is_twice_the_mean_share_still_ahead(first, last, share):
    """Against the mean over the target tokens of a schedule cut into small parts."""
    r = first * (1 - share) + last * share
    assume(r > 0.01 and abs(first - last) > 1e-3)
    at = (np.arange(100_000) + 0.5) / 100_000
    density = np.where(at < 1 - share, first, last)
    expected = 2 * np.average(1 - at, weights=density)
    found = earliness({"target_ratio": r, "final_ratio": last, "first_ratio": first})
    assert float(found) == pytest.approx(expected, abs=2e-4)


@few
@given(x=recipes())
def test_one_stage_is_even_and_a_blank_first_ratio_is_zero(x):
    r, r_f = x["target_ratio"], x["final_ratio"]
    even = {**x, "final_ratio": r}
    for first in (np.nan, 0.0, r):
        assert float(earliness({**even, "first_ratio": first})) == pytest.approx(1.0)
    assert float(earliness({**x, "first_ratio": np.nan})) == pytest.approx(r / r_f)
    assert float(earliness(x)) == pytest.approx(r / r_f)


def test_schedules_of_one_average_differ():
    """Target text before the last stage helps where lateness costs."""
    c = plausible(staged())
    x = recipe(epochs=1.0, target_ratio=0.1, final_ratio=1.0)
    late, earlier = (loss(staged(), c, {**x, "first_ratio": first}) for first in (0.0, 0.05))
    assert earlier < late
