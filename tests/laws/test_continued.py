"""The law of runs from scratch and from a checkpoint: what each kind is, and that the curves cross."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.laws import chinchilla, continued
from m3bayes.laws.continued import log_head_start
from tests.laws.surfaces import MAIN, coefficients, loss, plausible, recipe, recipes

few = settings(max_examples=20, deadline=None)


@few
@given(c=coefficients(continued()), x=recipes())
def test_from_scratch_it_is_chinchilla(c, x):
    main = {name: c[name] for name in MAIN}
    assert loss(continued(), c, {**x, "continued": 0.0}) == pytest.approx(
        loss(chinchilla(), main, x), rel=1e-12
    )


@few
@given(c=coefficients(continued()), x=recipes(), farther=st.floats(1.05, 100.0))
def test_the_curves_cross_once(c, x, farther):
    crossing = float(np.exp(log_head_start(c, x["params"]))) / (1 - c["rho"])
    there = {**x, "epochs": 1.0}

    def gain(tokens: float) -> float:
        scratch, checkpoint = (
            loss(continued(), c, {**there, "target_tokens": tokens, "continued": kind}) for kind in (0.0, 1.0)
        )
        return scratch - checkpoint

    assert gain(crossing / farther) > 0 > gain(crossing * farther)
    assert gain(crossing) == pytest.approx(0, abs=1e-10)


@few
@given(c=coefficients(continued(), rho=1.0), x=recipes())
def test_a_token_worth_the_same_is_a_head_start_for_ever(c, x):
    main = {name: c[name] for name in MAIN}
    seen = x["epochs"] * x["target_tokens"] + float(np.exp(log_head_start(c, x["params"])))
    ahead = {**x, "epochs": 1.0, "target_tokens": seen}
    assert loss(continued(), c, {**x, "continued": 1.0}) == pytest.approx(
        loss(chinchilla(), main, ahead), rel=1e-9
    )


def test_before_its_first_token_the_checkpoint_has_its_own_data_term():
    c, x = plausible(continued()), recipe(target_tokens=1e-6)
    expected = c["E"] + c["A"] * x["params"] ** -c["alpha"] + c["B"] * c["G"] * x["params"] ** -c["zeta"]
    assert loss(continued(), c, x) == pytest.approx(expected, rel=1e-9)
    assert np.exp(float(log_head_start(c, 3e8))) == pytest.approx(1.4e9, rel=0.05)  # as surfaces.py says
