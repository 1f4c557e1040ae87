"""Bounds: the runs' range unless asked otherwise, names and letters, what is refused and what is noted."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from m3bayes.decision.cost import six_nd
from m3bayes.decision.space import LETTERS, Space, space
from m3bayes.errors import InfeasibleError, RecipeError
from m3bayes.laws import Coefficient, Law, law, m3
from m3bayes.laws.priors import floor
from m3bayes.recipe import Recipe
from tests.decision import synthetic


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def asked(law: Law | None = None, only: str | None = None, **request) -> Space:
    given = {"compute": 1e14, "target_tokens": 3e5, "bounds": {}, "freeze": {}} | request
    return space(synthetic.runs(only=only), law or m3(), cost=six_nd(), **given)


def codes(found: Space) -> list[str]:
    return [note.code for note in found.notes]


def test_the_default_bounds_are_the_range_of_the_runs():
    runs, found = synthetic.runs(), asked()
    seen = {
        "params": runs["params"], "epochs": runs["epochs"], "target_ratio": runs["target_ratio"],
        "final_ratio": runs["final_ratio"], "tokens": runs.tokens, "source_tokens": runs.source_tokens,
    }  # fmt: skip
    for name, column in seen.items():
        assert (found[name].low, found[name].high) == (column.min(), column.max())
    # of the runs with two stages alone: .2 / 1, .3 / .6, (.4 - .1) / (1 - .1)
    assert (found["last_stage_share"].low, found["last_stage_share"].high) == pytest.approx((0.2, 0.5))
    assert codes(found) == []


def test_letters_are_names_and_none_keeps_the_end_of_the_runs():
    found = asked(bounds={"N": (None, 1e5), "k": (1, None)}, freeze={"r_f": 1.0, "share": 0.3})
    assert (found["params"].low, found["params"].high) == (3e4, 1e5)
    assert (found["epochs"].low, found["epochs"].high) == (1, 16)
    assert found["final_ratio"].low == found["final_ratio"].high == 1.0
    assert found.two_stages is True and asked(freeze={"share": 1.0}).two_stages is False


@pytest.mark.parametrize(
    ("bounds", "widened"),
    [
        ({"params": (None, 2e7)}, False),
        ({"params": (None, 3e7)}, True),
        ({"epochs": (0, None)}, True),
        ({"source_tokens": (0, math.inf)}, True),
        ({"last_stage_share": (0.3, 0.4)}, False),
    ],
)
def test_widening_is_said_and_narrowing_is_not(bounds, widened):
    found = asked(bounds=bounds)
    assert ("BOUNDS_WIDENED" in codes(found)) == widened
    assert all(note.about == tuple(bounds) for note in found.notes)


def test_a_share_that_no_run_had_is_open_to_the_caller_alone():
    only = "target_ratio == final_ratio"
    assert math.isnan(asked(only=only)["last_stage_share"].low)
    given = asked(only=only, bounds={"share": (0.2, None)})
    assert (given["last_stage_share"].low, given["last_stage_share"].high) == (0.2, 1.0)
    assert codes(given) == ["BOUNDS_WIDENED"]


def test_requests_beyond_the_runs_are_noted():
    largest = synthetic.runs().compute.max()
    assert codes(asked(compute=largest)) == []
    assert codes(asked(compute=2 * largest)) == ["EXTRAPOLATION"]
    assert codes(asked(compute=31 * largest)) == ["BEYOND_30X"]
    assert codes(asked(target_tokens=2e6)) == ["EXTRAPOLATION"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"compute": 0.0}, "compute is 0.0"),
        ({"compute": math.nan}, "compute is nan"),
        ({"target_tokens": -1.0}, "target_tokens is -1.0"),
        ({"bounds": {"width": (0, 1)}}, "no variable 'width' can be bounded"),
        ({"freeze": {"width": 1.0}}, "no variable 'width' can be frozen"),
        ({"bounds": {"N": (1, 2), "params": (1, 2)}}, "params is given twice"),
        ({"bounds": {"N": (1, 2)}, "freeze": {"params": 1.0}}, "both bounded and frozen"),
        ({"bounds": {"r": (0.1, 1.5)}}, "target_ratio between 0.1 and 1.5"),
        ({"bounds": {"k": (1, math.nan)}}, "bounds of epochs"),
        ({"bounds": {"k": (1,)}}, "bounds of epochs"),
        ({"freeze": {"k": math.inf}}, "epochs is frozen at inf"),
        ({"freeze": {"first_ratio": 1.0}}, "first_ratio is frozen at 1"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(request_, said):
    with pytest.raises(RecipeError, match=said) as caught:
        asked(**request_)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bounds", [{"params": (None, 1e3)}, {"epochs": (3, 2)}])
def test_bounds_that_exclude_each_other_are_infeasible_by_name(bounds):
    with pytest.raises(InfeasibleError, match="exclude each other") as caught:
        asked(bounds=bounds)
    assert next(iter(bounds)) in str(caught.value) and "\n" not in str(caught.value)


def test_a_laws_own_column_must_be_given_and_is_then_in_the_recipe():
    by_rate = law(
        "by_rate",
        lambda c, x: c["E"] + x["lr"] + 0 * x["params"],
        (Coefficient("E", floor(), "loss", of_loss=True),),
        columns=("params", "lr"),
    )
    with pytest.raises(RecipeError, match="reads column lr"):
        asked(law=by_rate)
    found = asked(law=by_rate, freeze={"lr": 0.1})
    assert found.recipe(1e6, 2.0, 1.0, 1.0).extra == {"lr": 0.1}


def test_recipes_are_kept_to_the_bounds_and_to_the_budget():
    found = asked(compute=1e12)
    recipe = found.recipe(1e12 / 6 / (4 * 3e5) * (1 + 3e-16), 4.0, 1 + 1e-15, 1 + 1e-15)
    assert (recipe.target_ratio, recipe.final_ratio) == (1.0, 1.0)
    assert 6 * recipe.params * recipe.tokens <= 1e12
    assert recipe.params == pytest.approx(1e12 / 6 / (4 * 3e5), rel=1e-13)
    assert found.why_not(recipe) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"params": 1e4}, "params 1e\\+04, but params >= 3e\\+04"),
        ({"epochs": 20.0}, "epochs <= 16"),
        ({"target_ratio": 0.05, "final_ratio": 0.05}, "target_ratio >= 0.1"),
        ({"target_ratio": 0.9}, "last_stage_share <= 0.5"),
        ({"target_ratio": 0.3}, None),
        ({"target_tokens": 1e5}, "target_tokens"),
        ({"params": 2e7, "epochs": 16.0}, "more than compute"),
        ({"params": 2e7, "epochs": 32.0}, "more than compute"),  # the budget before the range of the runs
    ],
)
def test_why_a_recipe_is_not_feasible(change, said):
    values = {"params": 1e5, "target_tokens": 3e5, "epochs": 2.0} | change
    why = asked().why_not(Recipe(**values))
    assert why is None if said is None else np.any([said.replace("\\", "") in str(why)])


def test_letters_name_seven_variables():
    assert list(LETTERS.values()) == ["N", "k", "r", "r_f", "D", "S", "share"]
