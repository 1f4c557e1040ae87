"""Held-out runs: what each way of splitting promises holds on random tables."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.errors import RunTableError
from m3bayes.evaluation.splits import ATLAS, Split, atlas_splits, mixtures, splits
from m3bayes.runs import Runs, runs_from_frame

SIZES = ("compute", "tokens", "target_tokens", "epochs")


def table(rows: int = 40, seed: int = 0, sizes: int = 6) -> Runs:
    """Runs of a few sizes and mixtures, with ties in everything."""
    rng = np.random.default_rng(seed)
    two = rng.random(rows) < 0.3
    r = np.where(two, 0.25, rng.choice([0.25, 0.5, 1.0], rows))
    return runs_from_frame(
        pd.DataFrame(
            {
                "params": 1e6 * 2.0 ** rng.integers(sizes, size=rows),
                "target_tokens": 1e7 * 2.0 ** rng.integers(sizes, size=rows),
                "epochs": rng.choice([1.0, 2.0, 4.0], rows),
                "target_ratio": r,
                "final_ratio": np.where(two, rng.choice([0.5, 1.0], rows), r),
                "loss": rng.uniform(2, 4, rows),
                "language": rng.choice(["de", "ja", "fr"], rows),
                "blank": np.where(np.arange(rows) == 2, np.nan, 1.0 + np.arange(rows)),
                "one": 7.0,
            }
        )
    )


def size(runs: Runs, by: str) -> np.ndarray:
    return getattr(runs, by) if by in ("compute", "tokens") else runs[by]


def check(runs: Runs, split: Split) -> None:
    assert not (split.train & split.test).any()
    assert (split.train | split.test).all()
    assert split.train.sum() >= 8 and split.test.sum() >= 3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(SIZES), st.lists(st.floats(0.3, 0.8), min_size=1, max_size=3))
def test_the_larger_are_held_out_and_ties_stay_together(seed, by, cuts):
    runs = table(60, seed)
    values = size(runs, by)
    found = splits(runs, by, cuts)
    assert 1 <= len(found) <= len(cuts)
    assert len({split.name for split in found}) == len(found)
    for split in found:
        check(runs, split)
        assert values[split.train].max() < values[split.test].min()
    # no other cut within .15 of the runs (or, where there is none, as near) has a wider gap
    distinct = np.unique(values)
    reachable = np.array([np.mean(values <= value) for value in distinct[:-1]])
    for cut in cuts:
        off = np.abs(reachable - cut)
        near = off <= max(0.15, off.min()) + 1e-12
        gap = np.log(distinct[1:] / distinct[:-1])
        widest = near & (gap >= 0.99 * gap[near].max())
        nearest = off[widest].min()
        assert any(
            values[split.train].max() in distinct[:-1][widest & (off <= nearest + 1e-12)] for split in found
        )


def test_the_largest_models_are_held_out_one_more_at_a_time():
    runs = table()
    found = splits(runs, "params")
    sizes = np.unique(runs["params"])
    for number, split in enumerate(found, start=1):
        check(runs, split)
        assert set(runs["params"][split.test]) == set(sizes[-number:])
    assert len(found) == 3


def test_a_single_largest_model_is_held_out_with_the_next():
    frame = table().frame()
    frame.loc[0, "params"] = 1e12
    found = splits(runs_from_frame(frame), "params")
    assert all(split.test[0] and split.test.sum() >= 3 for split in found)


@pytest.mark.parametrize("seed", range(3))
def test_mixtures_of_the_test_runs_are_unseen(seed):
    runs = table(80, seed)
    found = splits(runs, "mixture", folds=3, seed=seed)
    mixture = [tuple(row) for row in runs.frame()[["target_ratio", "final_ratio"]].to_numpy()]
    assert len(found) == 3
    assert (np.sum([split.test for split in found], axis=0) == 1).all()
    for split in found:
        check(runs, split)
        train = {mixture[i] for i in np.flatnonzero(split.train)}
        assert not train & {mixture[i] for i in np.flatnonzero(split.test)}


def test_mixtures_know_the_first_stage():
    frame = pd.DataFrame(
        {
            "params": 1e6, "target_tokens": 1e7, "epochs": 1.0, "target_ratio": [0.5, 0.5, 0.5, 0.5, 0.5],
            "final_ratio": [0.5, 0.5, 1.0, 1.0, 1.0], "first_ratio": [np.nan, 0.5, np.nan, 0.0, 0.25], "loss": 3.0,
        }
    )  # fmt: skip
    found = mixtures(runs_from_frame(frame))
    assert found[0] == found[1] and found[2] == found[3]
    assert len(set(found[[0, 2, 4]])) == 3


def test_each_label_is_left_out_in_turn():
    runs = table()
    found = splits(runs, "language")
    assert [split.name for split in found] == ["language de", "language fr", "language ja"]
    for split in found:
        check(runs, split)
        assert set(runs["language"][split.test]) == {split.name.split()[1]}
        assert split.name.split()[1] not in set(runs["language"][split.train])


def test_random_splits_follow_the_seed():
    runs = table()
    one, again, other = (splits(runs, "random", (0.7,), seed=seed)[0] for seed in (1, 1, 2))
    check(runs, one)
    assert one.train.mean() == pytest.approx(0.7)
    assert (one.test == again.test).all() and (one.test != other.test).any()


def test_the_five_atlas_splits():
    runs = table(60)
    found = atlas_splits(runs)
    assert tuple(found) == ATLAS
    for name, split in found.items():
        assert isinstance(split, Split) and split.name == name
        check(runs, split)
    assert runs["params"][found["largest N"].test].min() == runs["params"].max()
    assert runs.tokens[found["most tokens"].train].max() < runs.tokens[found["most tokens"].test].min()
    assert runs.compute[found["most compute"].train].max() < runs.compute[found["most compute"].test].min()
    mixture = mixtures(runs)
    unseen = found["unseen mixtures"]
    assert not set(mixture[unseen.train]) & set(mixture[unseen.test])


def test_atlas_splits_that_cannot_be_say_why():
    frame = table(60).frame().assign(params=1e6, target_ratio=1.0, final_ratio=1.0)
    found = atlas_splits(runs_from_frame(frame))
    assert isinstance(found["largest N"], RunTableError) and "params" in str(found["largest N"])
    assert isinstance(found["unseen mixtures"], RunTableError)
    assert isinstance(found["all"], Split) and isinstance(found["most tokens"], Split)


@pytest.mark.parametrize(
    ("by", "options", "said"),
    [
        ("one", {}, "one one"),
        ("nothing", {}, "no column 'nothing'"),
        ("blank", {}, "row 3, column blank"),
        ("compute", {"cuts": (0.05,)}, "training"),
        ("compute", {"cuts": (1.5,)}, "cuts: 1.5"),
        ("compute", {"cuts": ()}, "cuts: ()"),
        ("random", {"cuts": (0.99,)}, "0 test runs"),
        ("mixture", {"folds": 1}, "folds is 1"),
        ("mixture", {"folds": True}, "folds is True"),
    ],
)
def test_what_cannot_be_split_is_refused_on_one_line(by, options, said):
    with pytest.raises(RunTableError) as caught:
        splits(table(), by, **options)
    assert said in str(caught.value)
    assert re.search("expected|it has", str(caught.value))
    assert "\n" not in str(caught.value)


def test_computed_sizes_that_differ_by_rounding_are_one():
    frame = table().frame().assign(params=1e6, target_tokens=1e7, target_ratio=1.0, final_ratio=1.0)
    frame["epochs"] = np.where(np.arange(len(frame)) % 2, 0.3, 0.1 + 0.2)
    with pytest.raises(RunTableError, match="all runs have one compute"):
        splits(runs_from_frame(frame), "compute")


def test_runs_of_one_budget_stay_together():
    """Ten runs at each of four budgets, counted to within 1 %; a cut at .55 falls into none of them."""
    budget = np.repeat([1e9, 4e9, 1.6e10, 6.4e10], 10) * np.random.default_rng(0).uniform(0.99, 1.01, 40)
    N = np.full(40, 1e4)
    frame = pd.DataFrame({"params": N, "target_tokens": budget / 6 / N, "epochs": 1.0, "loss": 2.0})
    (split,) = splits(runs_from_frame(frame), "compute", (0.55,))
    assert split.train.sum() == 20
    assert split.train[:20].all()


@pytest.mark.parametrize("by", [*SIZES, "params", "mixture", "random", "language"])
def test_runs_of_weight_0_are_in_no_part(by):
    """Splits are those of the table without them, run by run."""
    runs = table(60)
    light = np.random.default_rng(1).random(60) < 0.3
    with_them = runs_from_frame(runs.frame().assign(weight=np.where(light, 0.0, 1.0)))
    found, without = splits(with_them, by, (0.5,)), splits(runs.select(~light), by, (0.5,))
    assert [split.name for split in found] == [split.name for split in without]
    for split, other in zip(found, without, strict=True):
        assert not (split.train | split.test)[light].any()
        assert np.array_equal(split.train[~light], other.train)
        assert np.array_equal(split.test[~light], other.test)


def test_atlas_splits_leave_out_runs_of_weight_0():
    light = np.arange(60) % 3 == 0
    found = atlas_splits(runs_from_frame(table(60).frame().assign(weight=np.where(light, 0.0, 1.0))))
    for split in found.values():
        assert isinstance(split, Split) and not (split.train | split.test)[light].any()


def test_a_gap_that_leaves_too_few_runs_is_passed_over():
    """The widest gap near .85 is before the last run alone; the widest that leaves three is taken."""
    frame = table(40).frame().assign(params=1e6, target_tokens=1e7, target_ratio=1.0, final_ratio=1.0)
    frame["epochs"] = np.r_[np.linspace(1, 2, 34), np.linspace(3, 3.5, 5), 40.0]
    (split,) = splits(runs_from_frame(frame), "epochs", (0.85,))
    assert split.test.sum() == 6
