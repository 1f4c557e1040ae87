"""Discrepancies: none inside the runs, the size that was asked for or learned beyond, and kept with the posterior."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import m3bayes as m3
from m3bayes.errors import M3BayesError, RunTableError
from m3bayes.evaluation.discrepancy import SCALES, discrepancy, scale_probabilities
from m3bayes.evaluation.splits import Split, splits
from m3bayes.inference.noise import normal
from m3bayes.laws.departing import SCALE
from tests.evaluation.small_laws import data_only
from tests.inference.simulated import CHINCHILLA, measured, monolingual

RUNS = measured(m3.laws.chinchilla(), CHINCHILLA, monolingual(80), sigma=0.01)


def bent(runs: m3.Runs) -> m3.Runs:
    """Losses that no Chinchilla surface has: the more compute, the slower they fall."""
    decades = np.log10(runs.compute / runs.compute.min())
    frame = runs.frame()
    return m3.runs_from_frame(frame.assign(loss=frame["loss"] * np.exp(0.03 * decades**2)))


@pytest.fixture(scope="module")
def post() -> m3.Posterior:
    return m3.fit(RUNS, m3.laws.chinchilla(), noise=normal(), draws=500, progress=False)


@pytest.fixture(scope="module")
def wide(post) -> m3.Posterior:
    return discrepancy(post, scale=0.05)


@pytest.fixture(scope="module")
def learned(post) -> m3.Posterior:
    return discrepancy(post)


def larger(times: float) -> pd.DataFrame:
    """The largest run, and that with N and U that many times as large."""
    largest = RUNS.frame().iloc[[int(np.argmax(RUNS["params"]))]]
    both = pd.concat([largest, largest.assign(params=largest["params"] * times)], ignore_index=True)
    return both


def test_inside_the_runs_nothing_changes(post, wide):
    assert np.array_equal(m3.loss_draws(post, RUNS), m3.loss_draws(wide, RUNS))
    assert np.array_equal(m3.predict(post, RUNS).new_run_upper, m3.predict(wide, RUNS).new_run_upper)


def test_beyond_them_the_departure_has_the_size_that_was_given(post, wide):
    recipes = larger(np.e**2)
    ratio = np.log(m3.loss_draws(wide, recipes) / m3.loss_draws(post, recipes))
    assert np.all(ratio[:, 0] == 0)
    ratio = np.arctanh(ratio)  # the sum over the edges
    # N is two e-folds beyond, compute as many as it was short of the largest run's plus two
    compute = np.log(6 * recipes["params"][1] * recipes["target_tokens"][1] * recipes["epochs"][1])
    t = np.array([2.0, max(compute - np.log(RUNS.compute.max()), 0.0)])
    g = 1.1**2.5 * t**3 / (t + 0.1) ** 2.5
    expected = 0.05 * np.sqrt(np.sum(g**2))
    n = len(ratio)
    assert ratio[:, 1].std() == pytest.approx(expected, abs=4 * expected / np.sqrt(2 * n))
    assert abs(ratio[:, 1].mean()) < 4 * expected / np.sqrt(n)
    wider = m3.predict(wide, recipes).loss_upper - m3.predict(wide, recipes).loss_lower
    assert wider[1] > 2 * (m3.predict(post, recipes).loss_upper - m3.predict(post, recipes).loss_lower)[1]


def test_what_intervals_hold_is_said(post, wide):
    assert "assume that the law holds" in post.intervals
    assert "departure from the law beyond the runs" in wide.intervals
    assert m3.predict(wide, RUNS).intervals == wide.intervals
    assert wide.notes[-1].code == "DISCREPANCY"
    assert "0.05 at e times beyond" in wide.notes[-1].message


def test_a_right_law_needs_less_than_the_prior_and_a_wrong_one_more(learned):
    wrong = m3.fit(
        bent(RUNS), m3.laws.chinchilla(), noise=normal(), draws=500, progress=False, allow="flagged"
    )
    # the median, for the tail of s is the prior's
    right, more = (
        np.median(np.abs(post.draws["departure_above_compute"])) / 0.6745
        for post in (learned, discrepancy(wrong))
    )
    assert right < 0.75 * SCALE
    assert more > 1.5 * right


def test_it_holds_larger_runs_of_a_law_that_fails():
    runs = bent(RUNS)
    split = splits(runs, "compute", (0.7,))[0]
    without, with_it = (
        m3.rollout(
            runs, m3.laws.chinchilla(), splits=(split,), noise=normal(), draws=250, discrepancy=with_it
        )
        for with_it in (False, True)
    )
    assert without.table["coverage_90"][0] < 0.7
    assert with_it.table["coverage_90"][0] > without.table["coverage_90"][0] + 0.2
    assert with_it.table["elpd"][0] > without.table["elpd"][0]
    assert "departure from the law" in with_it.kind


def test_without_rollouts_the_prior_is_as_documented(post):
    found = discrepancy(post, rollouts=())
    assert "as the prior has it" in found.notes[-1].message
    p = scale_probabilities([])
    low, middle, high = (SCALES[np.searchsorted(np.cumsum(p), q)] for q in (0.05, 0.5, 0.95))
    assert middle == pytest.approx(0.04, rel=0.15)
    assert low == pytest.approx(0.01, rel=0.2)
    assert high == pytest.approx(0.15, rel=0.2)


def test_scale_probabilities_against_draws_of_the_prior():
    """Each rollout's s, and the next one, drawn from the family and weighted by the likelihood of the rollouts'."""
    seen = (0.1, 0.2, 0.15)
    curves = [-0.5 * (np.log(SCALES / at) / 0.5) ** 2 for at in seen]
    random = np.random.default_rng(0)
    mu = np.log(0.04) + 0.4 * random.standard_normal(400_000)
    tau = 0.7 * np.abs(random.standard_normal(len(mu)))
    log_s = mu + tau * random.standard_normal((len(seen) + 1, len(mu)))
    # the ends of the grids
    fine = (
        (np.abs(mu - np.log(0.04)) < 1.0)
        & (tau < 1.75)
        & np.all((log_s > np.log(1e-3)) & (log_s < 0), axis=0)
    )
    fit = np.exp(-0.5 * np.sum(((log_s[:-1].T - np.log(seen)) / 0.5) ** 2, axis=1))
    weight = np.where(fine, fit, 0.0)
    expected = np.average(log_s[-1], weights=weight)
    spread = np.sqrt(np.average((log_s[-1] - expected) ** 2, weights=weight))
    error = spread * np.sqrt(np.sum(weight**2)) / weight.sum()
    found = np.sum(scale_probabilities(curves) * np.log(SCALES))
    assert found == pytest.approx(expected, abs=4 * error + 0.01)
    assert found > np.log(0.04) + 0.3


def test_the_same_seed_gives_the_same_draws(post, learned):
    again, other = discrepancy(post), discrepancy(post, seed=1)
    name = "departure_above_params"
    assert np.array_equal(again.draws[name], learned.draws[name])
    assert not np.array_equal(other.draws[name], learned.draws[name])


def test_saved_and_loaded_it_is_the_same(wide, tmp_path):
    wide.save(tmp_path / "wide.nc")
    back = m3.load(tmp_path / "wide.nc")
    recipes = larger(10)
    assert np.array_equal(m3.loss_draws(back, recipes), m3.loss_draws(wide, recipes))
    assert back.intervals == wide.intervals
    assert back.notes == wide.notes


def test_a_users_law_is_given_as_it_was_fitted(tmp_path):
    post = m3.fit(RUNS, data_only(), noise=normal(), draws=250, progress=False, allow="flagged")
    wide = discrepancy(post, scale=0.1)
    wide.save(tmp_path / "wide.nc")
    back = m3.load(tmp_path / "wide.nc", law=data_only())
    assert np.array_equal(m3.loss_draws(back, larger(10)), m3.loss_draws(wide, larger(10)))


def test_a_decision_beyond_the_runs_is_less_sure(post, wide):
    asked = {
        "compute": 20 * float(RUNS.compute.max()),
        "target_tokens": float(np.max(RUNS["target_tokens"])),
        "bounds": {"params": (None, 20 * float(RUNS["params"].max())), "tokens": (None, np.inf)},
        "freeze": {"target_ratio": 1, "final_ratio": 1},
    }
    sure, unsure = m3.recommend(post, **asked), m3.recommend(wide, **asked)
    assert unsure.loss.upper - unsure.loss.lower > 2 * (sure.loss.upper - sure.loss.lower)
    assert unsure.regret.mean > sure.regret.mean


def test_errors(post, wide):
    with pytest.raises(M3BayesError, match="has a discrepancy already"):
        discrepancy(wide)
    for scale in (-1, True, 1e300, np.nan):
        with pytest.raises(M3BayesError, match=r"scale is .*; give a standard deviation"):
            discrepancy(post, scale=scale)
    three = np.array([True, True, False])
    with pytest.raises(RunTableError, match=r"masks bool \(3,\) and bool \(3,\), expected bool \(80,\)"):
        discrepancy(post, rollouts=(Split("mine", three, ~three),))
