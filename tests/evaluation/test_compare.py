"""Comparisons against brute force: refits without each run, ArviZ, grids, and plain sums."""

from __future__ import annotations

import dataclasses
import sys

import arviz as az
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from m3bayes.errors import M3BayesError, RunTableError
from m3bayes.evaluation.compare import (
    MOST_REFITS,
    Comparison,
    compare,
    pareto_smoothed,
    stacking_weights,
    standard_error,
)
from m3bayes.evaluation.scores import predictive
from m3bayes.inference.fit import fit
from m3bayes.inference.noise import normal
from m3bayes.inference.posterior import Posterior
from m3bayes.laws import chinchilla
from m3bayes.runs import Runs, runs_from_frame
from tests.evaluation.small_laws import broken, constant, data_only
from tests.inference.simulated import CHINCHILLA, measured, monolingual

GROUPS = np.repeat(["a", "b", "c", "d"], 5)
RUNS = measured(chinchilla(), CHINCHILLA, monolingual(20).assign(group=GROUPS), sigma=0.02)
RUNS_OUT = runs_from_frame(RUNS.frame().assign(loss=np.where(np.arange(20) == 7, 1.4, 1.0) * RUNS["loss"]))
LAWS = {"chinchilla": chinchilla(), "data_only": data_only(), "constant": constant()}
ONES = np.ones(20)


def sampled(runs: Runs, law, **options) -> Posterior:
    return fit(runs, law, noise=normal(), allow="flagged", **options)


def left_out(runs: Runs, law, rows, constants) -> tuple[np.ndarray, np.ndarray]:
    """Log density of the loss of ``rows`` in a fit without them, and its Monte Carlo variance."""
    mask = np.zeros(len(runs), bool)
    mask[rows] = True
    found = predictive(sampled(runs.select(~mask), law, constants=constants), runs.select(mask))
    loss = runs["loss"][mask]
    each = np.exp(-0.5 * ((np.log(loss) - found.log_loss) / found.scale) ** 2) / found.scale
    return found.log_density(loss), each.var(axis=0) / each.mean(axis=0) ** 2 / len(each)


@pytest.fixture(scope="module")
def post() -> Posterior:
    return sampled(RUNS, LAWS["chinchilla"])


@pytest.fixture(scope="module")
def result() -> Comparison:
    return compare(RUNS, [*LAWS.values(), broken()], noise=normal())


@pytest.fixture(scope="module")
def pointwise(result) -> pd.DataFrame:
    return result.pointwise.pivot(index="run", columns="law", values="elpd").loc[list(RUNS.names)]


def test_leave_one_out_is_what_refits_without_each_run_give(post, result, pointwise):
    refitted = result.pointwise.set_index(["law", "run"]).loc["chinchilla"].loc[list(RUNS.names), "refitted"]
    likelihood = post.log_likelihood.reshape(-1, 20)
    weights = special.softmax(-likelihood, axis=0)
    smoothed_variance = np.sum(weights**2, axis=0)  # 1 / effective number of draws
    differences, variances = [], []
    for i in np.flatnonzero(~refitted.to_numpy()):
        (exact,), (variance,) = left_out(RUNS, LAWS["chinchilla"], [i], post.constants)
        differences.append(pointwise["chinchilla"].iloc[i] - exact)
        variances.append(variance + smoothed_variance[i])
    z = np.array(differences) / np.sqrt(variances)
    assert len(z) >= 15
    assert np.abs(z).max() < 5
    assert abs(np.sum(differences)) < 4 * np.sqrt(np.sum(variances))


def test_smoothing_is_that_of_arviz(post):
    elpd, k_hat, lpd = pareto_smoothed(post, ONES)
    expected = az.loo(post.tree, pointwise=True)
    np.testing.assert_allclose(elpd + np.log(RUNS["loss"]), expected.elpd_i, rtol=1e-6)
    np.testing.assert_allclose(k_hat, expected.pareto_k, atol=1e-6)
    assert lpd.sum() - elpd.sum() == pytest.approx(expected.p, rel=1e-6)


@pytest.mark.parametrize("factor", [0.5, 1 / np.log(2)])
def test_another_unit_of_loss_shifts_every_run_alike(post, factor):
    scaled = dataclasses.replace(
        post, runs=runs_from_frame(RUNS.frame().assign(loss=factor * RUNS["loss"]))
    )  # the likelihood is relative to the median loss, which scales with the losses
    elpd, _, _ = pareto_smoothed(post, ONES)
    np.testing.assert_allclose(pareto_smoothed(scaled, ONES)[0], elpd - np.log(factor), rtol=1e-12)


def test_runs_count_as_their_weights_say(post):
    weight = 1.0 + np.arange(20) % 2
    elpd, _, _ = pareto_smoothed(post, weight)
    plain = pareto_smoothed(post, ONES)[0]
    np.testing.assert_allclose(elpd[::2], plain[::2], rtol=1e-12)
    # in a fit that counts it twice, leaving the run out leaves out both
    likelihood = post.log_likelihood.reshape(-1, 20)[:, 1]
    raw = special.logsumexp(-likelihood) - special.logsumexp(-2 * likelihood) - np.log(RUNS["loss"][1])
    assert elpd[1] == pytest.approx(2 * raw, abs=0.1)


def test_the_table_adds_up(result, pointwise):
    table = result.table.set_index("law")
    assert list(result.table["law"])[:2] == ["chinchilla", "data_only"]
    assert list(result.table["elpd"])[:3] == sorted(result.table["elpd"][:3], reverse=True)
    for name in LAWS:
        row, difference = table.loc[name], pointwise[name] - pointwise["chinchilla"]
        assert row["elpd"] == pytest.approx(pointwise[name].sum())
        assert row["elpd_se"] == pytest.approx(np.sqrt(20) * pointwise[name].std(ddof=1))
        assert row["difference"] == pytest.approx(difference.sum())
        assert row["difference_se"] == pytest.approx(np.sqrt(20) * difference.std(ddof=1))
        assert row["coefficients"] == len(LAWS[name].names)
        assert row["refits"] == row["k_hat_over"]
        # no more than what is free, sigma included
        assert 0 < row["p_loo"] < 1.5 * (row["coefficients"] + 1)
    assert table["weight"].sum() == pytest.approx(1)
    expected = stacking_weights(pointwise[list(LAWS)].to_numpy())
    np.testing.assert_allclose(table.loc[list(LAWS), "weight"], expected, atol=1e-9)
    assert len(result.pairwise) == 3
    for _, pair in result.pairwise.iterrows():
        difference = pointwise[pair["law"]] - pointwise[pair["other"]]
        assert pair["difference"] == pytest.approx(difference.sum())
        assert pair["se"] == pytest.approx(np.sqrt(20) * difference.std(ddof=1))


def test_a_law_that_fails_is_a_row_with_a_note(result):
    row = result.table.set_index("law").loc["broken"]
    assert row["verdict"] == "failed" and np.isnan(row["elpd"]) and np.isnan(row["weight"])
    assert list(result.table["law"])[-1] == "broken"
    (note,) = [note for note in result.notes if note.code == "FAILED"]
    assert note.about == ("broken",)
    with pytest.raises(M3BayesError, match="no law could be compared: broken"):
        compare(RUNS, broken())


def test_a_run_of_large_k_hat_is_left_out_for_real():
    found = compare(RUNS_OUT, LAWS["chinchilla"], noise=normal())
    pointwise, row = found.pointwise, found.table.loc[0]
    over = np.flatnonzero(pointwise["refitted"])
    assert 7 in over and (pointwise["k_hat"][over] > 0.7).all() and row["k_hat_over"] == len(over)
    constants = sampled(RUNS_OUT, LAWS["chinchilla"]).constants
    for i in over:
        (exact,), _ = left_out(RUNS_OUT, LAWS["chinchilla"], [i], constants)
        assert pointwise["elpd"][i] == pytest.approx(exact, rel=1e-12)
    (note,) = [note for note in found.notes if note.code == "HIGH_PARETO_K"]
    assert note.about == tuple(pointwise["run"][over])
    assert "a fit of its own" in note.message and f"{pointwise['k_hat'].max():.2g}" in note.message


def test_many_runs_of_large_k_hat_are_left_out_in_groups(monkeypatch):

    module = sys.modules["m3bayes.evaluation.compare"]
    monkeypatch.setattr(module, "GOOD_K", -1.0)  # every run is over
    monkeypatch.setattr(module, "MOST_REFITS", 4)
    found = compare(RUNS, LAWS["constant"], noise=normal())
    assert (found.table["k_hat_over"][0], found.table["refits"][0]) == (20, 4)
    constants = sampled(RUNS, LAWS["constant"]).constants
    for start in range(4):
        exact, _ = left_out(RUNS, LAWS["constant"], np.arange(start, 20, 4), constants)
        np.testing.assert_allclose(found.pointwise["elpd"][start::4], exact, rtol=1e-12)
    assert "4 groups" in found.notes[0].message
    assert MOST_REFITS == 20


def test_folds_by_a_column_are_its_values_and_errors_are_over_them():
    found = compare(RUNS, LAWS["constant"], noise=normal(), folds="group")
    constants = sampled(RUNS, LAWS["constant"]).constants
    mine = found.pointwise["elpd"].to_numpy()
    for name in "abcd":
        exact, _ = left_out(RUNS, LAWS["constant"], np.equal(GROUPS, name), constants)
        np.testing.assert_allclose(mine[np.equal(GROUPS, name)], exact, rtol=1e-12)
    row = found.table.loc[0]
    sums = [mine[np.equal(GROUPS, name)].sum() for name in "abcd"]
    assert row["elpd_se"] == pytest.approx(2 * np.std(sums, ddof=1))
    assert row["refits"] == 4 and np.isnan(row["p_loo"])
    assert found.method == "4 folds by group"


def test_folds_by_number_follow_the_seed():
    one, again, other = (
        compare(RUNS, LAWS["constant"], noise=normal(), folds=3, seed=seed) for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(one.pointwise, again.pointwise, check_exact=True)
    assert one.table["elpd"][0] != other.table["elpd"][0]
    assert one.method == "3 random folds" and one.table["refits"][0] == 3


def test_laws_that_cannot_be_told_apart_are_named():
    law = LAWS["constant"]
    found = compare(RUNS, [law, dataclasses.replace(law, name="again")], noise=normal(), folds=2)
    (note,) = [note for note in found.notes if note.code == "TIE"]
    assert note.about == ("constant", "again")


def test_runs_of_no_weight_are_not_there():
    frame = RUNS.frame().assign(weight=1.0)
    spoiled = frame.iloc[:3].assign(loss=50.0, weight=0.0)
    runs = runs_from_frame(pd.concat([spoiled, frame], ignore_index=True))
    found = compare(runs, LAWS["constant"], noise=normal(), folds=2)
    expected = compare(RUNS, LAWS["constant"], noise=normal(), folds=2)
    assert found.table["elpd"][0] == pytest.approx(expected.table["elpd"][0], rel=1e-9)


@pytest.mark.parametrize("folds", [1, 21, True, "nothing", "one"])
def test_folds_that_cannot_be_are_refused(folds):
    runs = runs_from_frame(RUNS.frame().assign(one="x"))
    with pytest.raises(RunTableError, match=r"folds is|no column|all runs have one one"):
        compare(runs, LAWS["constant"], folds=folds)


# --- stacking


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 5))
def test_stacking_weights_are_optimal(seed, scale):
    """At the optimum of a concave function on the simplex no law has a larger gradient than those in use."""
    elpd = scale * np.random.default_rng(seed).normal(size=(30, 4)) - 100
    w = stacking_weights(elpd)
    assert w.sum() == pytest.approx(1) and (w >= 0).all()
    density = np.exp(elpd + 100)
    gradient = (density / (density @ w)[:, None]).mean(axis=0)  # 1 for laws in use
    assert gradient.max() <= 1 + 1e-4
    np.testing.assert_allclose(gradient[w > 1e-3], 1, atol=1e-3)


def test_stacking_weights_are_those_of_a_grid_search():
    elpd = np.random.default_rng(1).normal(size=(40, 3))
    side = np.linspace(0, 1, 201)
    grid = np.array([(a, b, 1 - a - b) for a in side for b in side if a + b <= 1 + 1e-12])
    values = np.log(np.exp(elpd) @ grid.T).sum(axis=0)
    w = stacking_weights(elpd)
    np.testing.assert_allclose(w, grid[np.argmax(values)], atol=0.0075)
    assert np.log(np.exp(elpd) @ w).sum() >= values.max() - 1e-9


def test_stacking_does_not_depend_on_what_all_laws_share():
    elpd = np.random.default_rng(2).normal(size=(40, 3))
    shifts = np.linspace(-900, 900, 40)[:, None]
    np.testing.assert_allclose(stacking_weights(elpd + shifts), stacking_weights(elpd), atol=1e-9)
    assert stacking_weights(elpd[:, :1]) == pytest.approx([1.0])


def test_the_standard_error_of_a_sum_over_units():
    values = np.arange(6.0)
    assert standard_error(values, np.arange(6)) == pytest.approx(np.sqrt(6) * values.std(ddof=1))
    assert standard_error(values, np.array([0, 0, 0, 1, 1, 1])) == pytest.approx(
        np.sqrt(2) * np.std([3, 12], ddof=1)
    )
    assert np.isnan(standard_error(values, np.zeros(6, int)))
