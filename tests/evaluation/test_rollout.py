"""Rollouts: every number is what fit and predict give for that split, and nothing is left out in silence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from m3bayes.errors import LawError, M3BayesError, RunTableError
from m3bayes.evaluation.candidates import laws_for, named_apart
from m3bayes.evaluation.rollout import Rollout, rollout, rollout_weights
from m3bayes.evaluation.scores import predictive
from m3bayes.evaluation.splits import Split, splits
from m3bayes.inference.fit import fit
from m3bayes.inference.noise import normal, student_t
from m3bayes.inference.predict import predict
from m3bayes.laws import chinchilla, m3
from m3bayes.runs import Runs, runs_from_frame
from tests.evaluation.small_laws import broken, constant, data_only
from tests.inference.simulated import CHINCHILLA, measured, monolingual

RUNS = measured(chinchilla(), CHINCHILLA, monolingual(40), sigma=0.01)
LAWS = (chinchilla(), data_only(), broken())
SHORT = {"noise": normal(), "draws": 250}


@pytest.fixture(scope="module")
def reports() -> list[tuple[int, int]]:
    return []


@pytest.fixture(scope="module")
def result(reports) -> Rollout:
    return rollout(
        RUNS,
        LAWS,
        "compute",
        cuts=(0.5, 0.7),
        report=lambda done, total: reports.append((done, total)),
        **SHORT,
    )


def test_a_row_a_law_and_split(result, reports):
    names = [split.name for split in splits(RUNS, "compute", (0.5, 0.7))]
    found = list(zip(result.table["split"], result.table["law"], strict=True))
    assert found == [(name, law) for name in names for law in ("chinchilla", "data_only", "broken")]
    assert list(result.table["train"]) == [18] * 3 + [32] * 3
    assert list(result.table["test"]) == [22] * 3 + [8] * 3
    assert list(result.table["coefficients"]) == [5, 3, 1] * 2
    assert reports == [(i + 1, 6) for i in range(6)]
    assert "assume that the law holds" in result.kind


def test_numbers_are_those_of_fit_and_predict(result):
    split = splits(RUNS, "compute", (0.7,))[0]
    train, test = RUNS.select(split.train), RUNS.select(split.test)
    post = fit(train, LAWS[0], allow="flagged", **SHORT)
    expected = predict(post, test, ci=0.9)
    rows = result.runs[(result.runs["law"] == "chinchilla") & (result.runs["split"] == split.name)]
    np.testing.assert_allclose(rows["loss_mean"], expected.loss_mean, rtol=1e-12)
    np.testing.assert_allclose(rows["new_run_lower"], expected.new_run_lower, rtol=1e-12)
    np.testing.assert_allclose(rows["new_run_upper"], expected.new_run_upper, rtol=1e-12)
    np.testing.assert_allclose(rows["pit"], predictive(post, test).probability_below(test["loss"]))
    assert list(rows["loss"]) == list(test["loss"])
    assert list(rows["run"]) == [f"row {i + 1}" for i in np.flatnonzero(split.test)]
    row = result.table.set_index(["law", "split"]).loc[("chinchilla", split.name)]
    inside = (expected.new_run_lower <= test["loss"]) & (test["loss"] <= expected.new_run_upper)
    assert row["coverage_90"] == pytest.approx(inside.mean())
    assert row["compute_ratio"] == pytest.approx(test.compute.max() / train.compute.max())
    assert row["verdict"] == post.verdict


def test_weights_are_those_of_the_mixture_that_foresees_best(result):
    table = result.runs.set_index(["law", "split", "run"])["log_density"]
    one, other = (np.exp(table[name].to_numpy()) for name in ("chinchilla", "data_only"))
    scores = result.table.set_index(["law", "split"])["elpd"]
    assert table.groupby(["law", "split"]).sum().to_numpy() == pytest.approx(
        scores[scores.notna()].sort_index()
    )
    found = rollout_weights(result)
    assert list(found) == ["chinchilla", "data_only", "broken"] and found["broken"] == 0
    w = np.linspace(0, 1, 2001)
    of_mixture = np.log(w[:, None] * one + (1 - w[:, None]) * other).sum(axis=1)
    assert found["chinchilla"] == pytest.approx(w[np.argmax(of_mixture)], abs=1e-3)
    assert sum(found.values()) == pytest.approx(1) and found["chinchilla"] > 0.9
    with pytest.raises(M3BayesError, match="every law has a split whose fit failed"):
        rollout_weights(replace(result, table=result.table.assign(verdict="failed")))


def test_the_law_of_the_data_predicts_them_and_a_poorer_one_does_not(result):
    rows = result.table.set_index(["law", "split"])
    for name in rows.index.unique("split"):
        good, poor = rows.loc[("chinchilla", name)], rows.loc[("data_only", name)]
        assert good["RMSE_log"] < 2 * 0.01 < poor["RMSE_log"]  # twice the scatter of the runs
        assert good["R2"] > poor["R2"]
        assert good["coverage_90"] >= good["coverage_90_low"]
        assert good["elpd"] > poor["elpd"] + 10 and good["crps"] < poor["crps"] / 2


def test_a_fit_that_fails_is_a_row_with_a_note(result):
    rows = result.table[result.table["law"] == "broken"]
    assert list(rows["verdict"]) == ["failed"] * 2
    assert rows[["R2", "coverage_90", "crps", "elpd"]].isna().all(axis=None)
    assert "broken" not in set(result.runs["law"])
    notes = [note for note in result.notes if note.code == "FAILED"]
    assert [note.about for note in notes] == [("broken",)] * 2
    assert all(split in note.message for split, note in zip(rows["split"], notes, strict=True))
    with pytest.raises(M3BayesError, match="no fit could be made: broken"):
        rollout(RUNS, broken(), "random", cuts=(0.7,), **SHORT)


def test_the_same_seed_gives_the_same_table(result):
    again = rollout(RUNS, LAWS[:2], "compute", cuts=(0.7, 0.5), **SHORT)
    kept = result.table[result.table["law"] != "broken"].reset_index(drop=True)
    pd.testing.assert_frame_equal(again.table, kept, check_exact=True)
    pd.testing.assert_frame_equal(again.runs, result.runs, check_exact=True)


def test_a_fit_that_misses_its_gate_is_flagged_and_noted():
    found = rollout(RUNS, LAWS[1], "random", cuts=(0.7,), chains=2, warmup=20, draws=4, noise=normal())
    assert list(found.table["verdict"]) == ["flagged"]
    (note,) = found.notes
    assert note.code == "FLAGGED" and note.about == ("data_only",) and "ESS" in note.message


def test_runs_of_no_weight_neither_train_nor_test():
    frame = RUNS.frame().assign(weight=1.0)
    spoiled = frame.iloc[:8].assign(loss=50.0, weight=0.0)
    runs = runs_from_frame(pd.concat([spoiled, frame], ignore_index=True))
    mask = np.arange(48) % 4 == 3
    found = rollout(runs, LAWS[1], splits=[Split("mine", ~mask, mask)], **SHORT)
    without = runs_from_frame(frame)
    expected = rollout(without, LAWS[1], splits=[Split("mine", ~mask[8:], mask[8:])], **SHORT)
    assert found.table["test"][0] == expected.table["test"][0] == mask[8:].sum()
    assert found.table["elpd"][0] == pytest.approx(expected.table["elpd"][0], abs=0.5)


def test_atlas_says_what_the_table_cannot_give():
    frame = RUNS.frame().assign(params=1e8)
    found = rollout(runs_from_frame(frame), constant(), "atlas", **SHORT)
    assert list(found.table["split"]) == ["all", "most tokens", "most compute"]
    left_out = [note for note in found.notes if note.code == "SPLIT_LEFT_OUT"]
    assert [note.about for note in left_out] == [("largest N",), ("unseen mixtures",)]
    assert "params" in left_out[0].message


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"ci": 90.0}, M3BayesError, "ci is 90"),
        ({"laws": ()}, LawError, "no law given"),
        ({"by": "colour"}, RunTableError, "no column 'colour'"),
        ({"noise": student_t(by="colour")}, RunTableError, "colour"),
        ({"splits": ()}, RunTableError, "splits: none given"),
        (
            {"splits": [Split("s", np.ones(3, bool), np.zeros(3, bool))]},
            RunTableError,
            r"masks bool \(3,\) and bool \(3,\)",
        ),
        ({"splits": [Split("s", np.ones(40, bool), np.ones(40, bool))]}, RunTableError, "40 runs in both"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused(options, error, said):
    with pytest.raises(error, match=said):
        rollout(RUNS, **{"laws": LAWS[0], **options})


def test_laws_are_named_apart():
    laws = (m3(), m3(drop=("P", "tau")), chinchilla(tokens="all"), chinchilla(), chinchilla())
    assert list(named_apart(laws)) == [
        "m3",
        "m3:drop=P+tau",
        "chinchilla:tokens=all",
        "chinchilla",
        "chinchilla #2",
    ]
    assert named_apart(laws[0]) == {"m3": laws[0]}


def test_laws_for_a_table_are_those_it_has_runs_and_units_for():
    def names(runs: Runs) -> set[str]:
        return {law.name for law in laws_for(runs, student_t())}

    assert {"m3", "chinchilla", "farseer"} <= names(RUNS)
    few = RUNS.select(slice(0, 6))
    assert "chinchilla" in names(few) and "farseer" not in names(few)
    in_billions = runs_from_frame(RUNS.frame(), unit_params=1e9)
    assert names(RUNS) - names(in_billions) == {"farseer"}
    with pytest.raises(LawError, match="too few runs"):
        laws_for(RUNS.select(slice(0, 4)), student_t())


def test_runs_of_weight_0_are_not_there():
    frame = RUNS.frame().assign(run=[f"a{i}" for i in range(40)])
    light = RUNS.compute > np.quantile(RUNS.compute, 0.85)
    spoiled = runs_from_frame(
        frame.assign(weight=np.where(light, 0.0, 1.0), loss=np.where(light, 50.0, RUNS["loss"]))
    )
    found = rollout(spoiled, chinchilla(), cuts=(0.6,), **SHORT)
    without = rollout(runs_from_frame(frame).select(~light), chinchilla(), cuts=(0.6,), **SHORT)
    columns = ["split", "train", "test", "R2", "coverage_90"]
    pd.testing.assert_frame_equal(found.table[columns], without.table[columns])
    assert set(found.runs["run"]) == set(without.runs["run"])


def test_cuts_that_make_one_split_are_said():
    frame = RUNS.frame()
    frame["params"] = np.where(np.arange(len(frame)) < 20, 1e6, 1e8)
    runs = runs_from_frame(frame.assign(target_tokens=1e9, epochs=1.0))
    found = rollout(runs, data_only(), "compute", cuts=(0.45, 0.55), **SHORT)
    assert len(found.table) == 1
    (note,) = [note for note in found.notes if note.code == "CUTS_MERGED"]
    assert "2 cuts by compute gave 1 split:" in note.message
