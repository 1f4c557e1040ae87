"""Recipes, schedules and the columns of recipes."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from m3bayes.errors import RecipeError
from m3bayes.recipe import Recipe, Schedule, Stage, recipe, recipe_columns, schedule
from m3bayes.runs import runs_from_frame

counts = st.floats(1e-3, 1e15)
epochs = st.floats(1e-4, 1e4)
ratios = st.floats(1e-6, 1.0)


@st.composite
def recipes(draw) -> Recipe:
    """Of one stage, of two with any first ratio, ending on the target or on the source text."""
    r, r_f = draw(ratios), draw(ratios)
    if draw(st.booleans()):
        r_f = r
    assume(r == r_f or abs(r - r_f) > 1e-8 * max(r, r_f))
    first = None
    if r < r_f and draw(st.booleans()):
        first = draw(st.floats(0.0, r, exclude_max=True))
    elif r > r_f:
        assume(r < 1)
        first = draw(st.floats(r, 1.0, exclude_min=True))
    assume(first is None or abs(r - first) > 1e-8 * max(r, first))
    return Recipe(draw(counts), draw(counts), draw(epochs), r, r_f, first)


@given(recipes())
@settings(max_examples=300, deadline=None)
def test_recipe_to_schedule_to_recipe_is_the_same_bit_for_bit(start: Recipe):
    again = recipe(schedule(start))
    assert again == start
    assert asdict(again) == asdict(start)


@given(recipes())
@settings(max_examples=100, deadline=None)
def test_a_schedule_without_its_remainders_gives_the_recipe_to_rounding(start: Recipe):
    full = schedule(start)
    rounded = Schedule(
        full.params, full.target_tokens, [Stage(s.tokens, s.target_ratio) for s in full.stages]
    )
    again = recipe(rounded)
    assert rounded == full  # what rounding took off does not count
    assert math.isclose(again.epochs, start.epochs, rel_tol=1e-12)
    assert math.isclose(again.target_ratio, start.target_ratio, rel_tol=1e-12)
    assert again.final_ratio == start.final_ratio


@given(recipes())
@settings(max_examples=100, deadline=None)
def test_stages_hold_the_tokens_of_the_recipe(start: Recipe):
    stages = schedule(start).stages
    target = math.fsum(stage.tokens * stage.target_ratio for stage in stages)
    assert math.isclose(schedule(start).tokens, start.tokens, rel_tol=1e-12)
    assert math.isclose(target, start.target_tokens_seen, rel_tol=1e-9)
    assert math.isclose(stages[-1].tokens, start.last_stage_share * start.tokens, rel_tol=1e-6)


@given(
    st.lists(st.tuples(st.floats(1.0, 1e13), st.floats(0.0, 1.0)), min_size=1, max_size=6),
    st.floats(0.01, 1.0),
    counts,
)
@settings(max_examples=100, deadline=None)
def test_a_schedule_of_any_number_of_stages_gives_its_recipe(before, r_f, U):
    stages = [Stage(D, r) for D, r in before] + [Stage(1e12, r_f)]
    D = sum(Fraction(s.tokens) for s in stages)
    T = sum(Fraction(s.tokens) * Fraction(s.target_ratio) for s in stages)
    D_1 = D - Fraction(stages[-1].tokens)
    T_1 = T - Fraction(stages[-1].tokens) * Fraction(r_f)
    assume(abs(float(T / D) - r_f) > 1e-8)
    result = recipe(Schedule(1e9, U, stages))
    assert result.epochs == float(T / Fraction(U))
    assert result.target_ratio == float(T / D)
    assert result.final_ratio == r_f
    assert result.first_ratio == float(T_1 / D_1)


def test_three_stages_by_hand():
    stages = [Stage(100, 0.0), Stage(100, 0.5), Stage(50, 1.0)]
    result = recipe(Schedule(7, 25, stages))
    assert result == Recipe(7, 25, 4.0, 0.4, 1.0, 0.25)
    assert math.isclose(result.last_stage_share, 0.2)


def test_stages_of_one_ratio_are_one_stage():
    result = recipe(Schedule(1, 10, [Stage(10, 0.25), Stage(20, 0.25), Stage(30, 0.25)]))
    assert result == Recipe(1, 10, 1.5, 0.25, 0.25)
    assert schedule(result).stages == (Stage(60, 0.25),)


def test_a_schedule_may_have_no_target_text_before_its_last_stage():
    assert recipe(Schedule(1, 10, [Stage(30, 0), Stage(10, 1)])) == Recipe(1, 10, 1, 0.25, 1.0)


def test_first_ratio_is_0_where_nothing_is_said_and_none_at_one_stage():
    assert Recipe(1, 1, 1, 0.2, 0.8).first_ratio == 0.0
    assert Recipe(1, 1, 1, 0.2, 0.2, 0.2).first_ratio is None
    assert Recipe(1, 1, 1).first_ratio is None
    assert Recipe(1, 1, 1, 0.3, 0.1 + 0.2) == Recipe(1, 1, 1, 0.3, 0.3)  # one ratio, computed in two ways


def test_derived_quantities():
    x = Recipe(params=3, target_tokens=10, epochs=4, target_ratio=0.25, final_ratio=0.75, first_ratio=0.125)
    assert (x.target_tokens_seen, x.tokens, x.source_tokens) == (40, 160, 120)
    assert x.last_stage_share == 0.2
    assert Recipe(1, 10, 0.5).source_tokens == 0.0
    assert Recipe(1, 10, 0.5).last_stage_share == 1.0


def test_extra_numbers_are_kept_through_a_schedule():
    x = Recipe(1, 2, 3, extra={"other_tokens": 5})
    assert recipe(schedule(x)) == x
    assert recipe_columns([x])["other_tokens"].tolist() == [5.0]


def test_recipes_are_immutable_and_hashable():
    x = Recipe(1, 2, 3, extra={"a": 1})
    with pytest.raises(AttributeError):
        x.epochs = 2  # pyright: ignore[reportAttributeAccessIssue]
    assert len({x, replace(x), Recipe(1, 2, 4)}) == 2


BAD_RECIPES = {
    "no size": ({"params": 0}, ["params", "0", "above 0"]),
    "negative tokens": ({"target_tokens": -5}, ["target_tokens", "-5"]),
    "infinite epochs": ({"epochs": math.inf}, ["epochs", "inf"]),
    "NaN": ({"epochs": math.nan}, ["epochs", "a number"]),
    "ratio of 0": ({"target_ratio": 0}, ["target_ratio", "0", "above 0"]),
    "ratio above 1": ({"final_ratio": 1.5}, ["final_ratio", "1.5", "at most 1"]),
    "percent": ({"target_ratio": 50, "final_ratio": 50}, ["target_ratio", "50", "divide by 100", "0.5"]),
    "ends on the source": ({"target_ratio": 0.5, "final_ratio": 0.1}, ["first_ratio", "0.1", "0.5"]),
    "not between": (
        {"target_ratio": 0.5, "final_ratio": 0.8, "first_ratio": 0.6},
        ["target_ratio", "0.5", "between", "0.6", "0.8"],
    ),
    "empty last stage": (
        {"target_ratio": 0.5, "final_ratio": 0.8, "first_ratio": 0.5},
        ["first_ratio", "0.5", "no tokens"],
    ),
    "empty first stage": (
        {"target_ratio": 0.5, "final_ratio": 0.5, "first_ratio": 0.1},
        ["first_ratio", "0.1", "blank"],
    ),
    "first ratio below 0": (
        {"target_ratio": 0.5, "final_ratio": 0.8, "first_ratio": -0.1},
        ["first_ratio", "-0.1"],
    ),
    "truth value": ({"epochs": True}, ["epochs", "True", "a number"]),
    "uncountable": ({"target_tokens": 1e300, "epochs": 1e300}, ["epochs", "product"]),
    "extra is a variable": ({"extra": {"epochs": 3.0}}, ["extra", "epochs"]),
    "extra is blank": ({"extra": {"other": math.nan}}, ["other", "a number"]),
}


@pytest.mark.parametrize("kind", BAD_RECIPES)
def test_bad_recipes_name_the_field(kind: str):
    change, said = BAD_RECIPES[kind]
    with pytest.raises(RecipeError) as error:
        Recipe(**({"params": 1e9, "target_tokens": 1e9, "epochs": 2} | change))
    assert "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Stage(0, 0.5), "tokens"),
        (lambda: Stage(10, 1.5), "target_ratio"),
        (lambda: Schedule(1, 1, []), "at least one Stage"),
        (lambda: Schedule(1, 1, [Stage(1, 0.5), Stage(1, 0)]), "last one"),
        (lambda: Schedule(0, 1, [Stage(1, 1)]), "params"),
        (lambda: Schedule(1, math.inf, [Stage(1, 1)]), "target_tokens"),
    ],
)
def test_bad_schedules_say_what_is_amiss(build, said: str):
    with pytest.raises(RecipeError, match=said):
        build()


def test_columns_are_the_same_from_every_form():
    made = [Recipe(1, 10, 2, 0.2, 1.0, 0.1), Recipe(3, 10, 0.5, 0.5, 0.5)]
    columns = {
        "params": [1, 3], "target_tokens": [10, 10], "epochs": [2, 0.5],
        "target_ratio": [0.2, 0.5], "final_ratio": [1, 0.5], "first_ratio": [0.1, None],
    }  # fmt: skip
    frame = pd.DataFrame(columns)
    expected = {name: np.array(values, dtype=float) for name, values in columns.items()}
    runs = runs_from_frame(frame.assign(loss=2.0, run=["a", "b"]))
    forms = [made, [schedule(x) for x in made], frame, columns, runs, frame.astype(str)]
    for form in forms:
        found = recipe_columns(form)
        assert set(expected) <= set(found) <= {*expected, "loss"}
        for name, values in expected.items():
            assert found[name].dtype == np.float64
            np.testing.assert_array_equal(found[name], values)
    assert recipe_columns(made[0])["params"].tolist() == [1.0]
    assert recipe_columns(schedule(made[0]))["final_ratio"].tolist() == [1.0]


def test_ratios_are_1_where_both_are_absent_and_single_values_are_spread():
    found = recipe_columns({"params": np.array([1.0, 2.0]), "target_tokens": 5, "epochs": 1})
    assert found["target_ratio"].tolist() == found["final_ratio"].tolist() == [1, 1]
    assert found["target_tokens"].tolist() == [5, 5]
    assert np.isnan(found["first_ratio"]).all()


def test_a_column_the_law_reads_must_be_there_and_complete():
    frame = pd.DataFrame({"params": [1, 2], "target_tokens": 5, "epochs": 1, "other": [3, None]})
    assert recipe_columns(frame, columns=("params", "epochs"))["params"].tolist() == [1, 2]
    with pytest.raises(RecipeError, match=r"row 2, column other: blank or NaN.*finite"):
        recipe_columns(frame, columns=("other",))
    with pytest.raises(RecipeError, match="column missing_one missing"):
        recipe_columns(frame, columns=("missing_one",))
    with pytest.raises(RecipeError, match=r"row 1, column other: 'x'.*a number"):
        recipe_columns(frame.assign(other="x"), columns=("other",))


@pytest.mark.parametrize(
    ("recipes", "said"),
    [
        ([], "none given"),
        (pd.DataFrame({"params": [], "target_tokens": [], "epochs": []}), "no row"),
        (pd.DataFrame({"params": [1], "epochs": [1]}), "target_tokens"),
        ({"params": [1.0, 2.0, 3.0], "target_tokens": [1.0, 2.0], "epochs": 1.0}, "unlike length"),
        ({"params": np.ones((2, 2)), "target_tokens": 1.0, "epochs": 1.0}, "shape"),
        (pd.DataFrame({"params": [1, -2], "target_tokens": 1, "epochs": 1}), r"row 2, column params: -2"),
        (pd.DataFrame({"params": [1], "target_tokens": 1, "epochs": 1, "final_ratio": 1}), "target_ratio"),
    ],
)
def test_bad_columns_name_row_and_column(recipes, said: str):
    with pytest.raises(RecipeError, match=said):
        recipe_columns(recipes)
