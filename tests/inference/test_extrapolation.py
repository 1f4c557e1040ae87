from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.inference.extrapolation import extrapolation, notes
from m3bayes.recipe import recipe_columns
from m3bayes.runs import Runs, runs_from_frame
from tests.inference import synthetic

RUNS = synthetic.runs()


def found(runs: Runs, recipes):
    return extrapolation(runs, recipe_columns(recipes))


def changed(**columns) -> pd.DataFrame:
    """The middle run with some columns replaced."""
    return RUNS.frame().iloc[[30]].reset_index(drop=True).assign(**columns)


def test_runs_themselves_are_no_extrapolation():
    result = found(RUNS, RUNS)
    assert not result.joint.any()
    assert all(not d.any() for d in result.distances.values())
    assert notes(result) == ()


@pytest.mark.parametrize("column", ["params", "target_tokens", "epochs"])
@pytest.mark.parametrize("outwards", [1.0, -1.0])
def test_distance_grows_outwards(column, outwards):
    edge = RUNS[column].max() if outwards > 0 else RUNS[column].min()
    recipes = pd.concat([changed(**{column: edge * f**outwards}) for f in (1.0, 1.5, 2.0, 10.0, 1e3)])
    result = found(RUNS, recipes)
    assert result.distances[column][0] == 0
    assert (np.diff(result.distances[column]) > 0).all()
    assert (np.diff(result.joint) > 0).all()
    assert result.joint[-1] > 1


def test_excess_is_in_units_of_the_range():
    low, high = RUNS["params"].min(), RUNS["params"].max()
    result = found(RUNS, changed(params=high * (high / low) ** 0.25))
    assert result.distances["params"][0] == pytest.approx(0.25)


def test_ratios_compare_as_they_are():
    frame = RUNS.frame()
    frame = frame[frame.target_ratio < 0.8].reset_index(drop=True)
    frame["final_ratio"] = frame["target_ratio"]
    high, low = frame.target_ratio.max(), frame.target_ratio.min()
    result = found(runs_from_frame(frame), changed(target_ratio=1.0, final_ratio=1.0))
    assert result.distances["target_ratio"][0] == pytest.approx((1 - high) / (high - low))


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9))
def test_units_do_not_matter(unit_params, unit_tokens):
    def in_units(frame):
        return frame.assign(
            params=frame.params / unit_params, target_tokens=frame.target_tokens / unit_tokens
        )

    recipes = changed(params=[3e10], epochs=[50.0])
    plain = found(RUNS, recipes)
    runs = runs_from_frame(in_units(RUNS.frame()), unit_params=unit_params, unit_tokens=unit_tokens)
    other = found(runs, in_units(recipes))
    np.testing.assert_allclose(other.joint, plain.joint, rtol=1e-9)
    np.testing.assert_allclose(other.compute, plain.compute, rtol=1e-9)
    for name, distance in plain.distances.items():
        np.testing.assert_allclose(other.distances[name], distance, rtol=1e-7, atol=1e-12)


def test_nearest_run_by_brute_force():
    rng = np.random.default_rng(1)
    recipes = synthetic.runs(25, seed=9).frame().assign(params=np.exp(rng.normal(19, 3, 25)))

    def coordinates(table):
        r, r_f = table["target_ratio"], table["final_ratio"]
        share = np.where(r == r_f, 1.0, r / r_f)
        logs = [np.log(table[name]) for name in ("params", "target_tokens", "epochs")]
        return np.stack([*logs, r, r_f, share], axis=1)

    measured, asked = coordinates(RUNS.frame()), coordinates(recipes)
    unit = measured.std(axis=0)
    between = np.linalg.norm((measured[:, None] - measured[None]) / unit, axis=2)
    np.fill_diagonal(between, np.inf)
    usual = np.quantile(between.min(axis=1), 0.95)
    to_runs = np.linalg.norm((asked[:, None] - measured[None]) / unit, axis=2).min(axis=1)
    np.testing.assert_allclose(found(RUNS, recipes).joint, to_runs / usual, rtol=1e-12)


def test_between_distant_groups_is_inside_every_range_and_still_extrapolates():
    rng = np.random.default_rng(0)
    params = np.exp(np.r_[rng.normal(16, 0.1, 30), rng.normal(23, 0.1, 30)])
    tokens = np.exp(np.r_[rng.normal(20, 0.1, 30), rng.normal(27, 0.1, 30)])
    frame = pd.DataFrame({"params": params, "target_tokens": tokens, "epochs": 1.0, "loss": 3.0})
    result = found(
        runs_from_frame(frame), {"params": np.exp(19.5), "target_tokens": np.exp(23.5), "epochs": 1.0}
    )
    assert not any(d.any() for d in result.distances.values())
    assert result.joint[0] > 5
    (note,) = notes(result)
    assert note.code == "EXTRAPOLATION"
    assert note.about == ()
    assert "inside every range" in note.message


def test_replicates_do_not_make_everything_look_far():
    many = runs_from_frame(pd.concat([RUNS.frame()] * 3, ignore_index=True))
    recipes = synthetic.runs(20, seed=4)
    np.testing.assert_allclose(found(many, recipes).joint, found(RUNS, recipes).joint, rtol=1e-12)


def test_what_never_varied_is_left_at_once():
    frame = RUNS.frame().assign(target_ratio=1.0, final_ratio=1.0, epochs=1.0)
    runs = runs_from_frame(frame)
    result = found(runs, changed(target_ratio=0.5, final_ratio=1.0, epochs=np.e))
    assert result.distances["epochs"][0] == pytest.approx(1.0)  # one log unit
    assert result.distances["target_ratio"][0] == pytest.approx(5.0)  # tenths of a ratio
    assert result.distances["last_stage_share"][0] == pytest.approx(5.0)
    assert result.joint[0] > 1
    (note,) = notes(result)
    assert set(note.about) >= {"epochs", "target_ratio", "last_stage_share"}


def test_one_recipe_over_and_over():
    frame = pd.concat([RUNS.frame().iloc[[0]]] * 5, ignore_index=True)
    result = found(runs_from_frame(frame), pd.concat([frame.iloc[[0]], frame.iloc[[0]].assign(epochs=50.0)]))
    assert result.joint[0] == 0
    assert 1 < result.joint[1] < np.inf


def test_compute_beyond_thirty_times_is_said():
    largest = RUNS.frame().iloc[[int(np.argmax(RUNS.compute))]]
    recipes = pd.concat([largest.assign(params=largest.params * f) for f in (1.0, 29.9, 30.1)])
    result = found(RUNS, recipes)
    np.testing.assert_allclose(result.compute, [1.0, 29.9, 30.1])
    assert result.far.tolist() == [False, False, True]
    codes = [note.code for note in notes(result)]
    assert codes == ["EXTRAPOLATION", "BEYOND_30X"]


def test_columns_that_a_law_reads_count_too():
    frame = RUNS.frame()
    frame["temperature"] = np.linspace(0.0, 1.0, len(frame))
    runs = runs_from_frame(frame)
    recipe = frame.iloc[[0]].assign(temperature=2.0)
    result = extrapolation(runs, recipe_columns(recipe), ("params", "temperature"))
    assert result.distances["temperature"][0] == pytest.approx(1.0)
    assert result.joint[0] > 1
