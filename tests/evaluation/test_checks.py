"""Checks against a law whose posterior is exact: they are quiet where all is well, and find what was planted."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import special, stats

from m3bayes.errors import M3BayesError
from m3bayes.evaluation import checks
from m3bayes.evaluation.checks import check, prior_check
from m3bayes.inference.fit import fit
from m3bayes.inference.noise import normal
from m3bayes.inference.simulate import simulate
from m3bayes.laws import chinchilla
from m3bayes.runs import runs_from_frame
from tests.evaluation.exact import LAW, design, exact_fit, measured
from tests.inference import simulated

RECIPES = design(60, language=np.resize(["de", "ja", "fr"], 60))


def codes(found) -> dict[str, tuple[str, ...]]:
    return {note.code: note.about for note in found.notes}


def test_false_alarms_are_rare():
    doubtful = 0
    for number in range(30):
        made = simulate(LAW, RECIPES, jax.random.key(number), noise=normal())
        found = check(exact_fit(made.runs, constants=made.constants, seed=number))
        doubtful += found.verdict == "doubtful"
        assert bool(codes(found).keys() - {"INFLUENTIAL_RUNS"}) == (found.verdict == "doubtful")
    assert doubtful <= stats.binom.ppf(0.999, 30, 0.05)


def test_a_good_posterior_passes_and_its_tables_are_complete():
    found = check(exact_fit(measured(RECIPES)))
    assert (found.verdict, found.notes) == ("passed", ())
    tests = set(zip(found.table["test"], found.table["about"], strict=True))
    for about in ("params", "target_tokens", "compute", "language"):
        assert {("trend", about), ("trend of spread", about)} <= tests
    assert "epochs" not in set(found.table["about"])  # the same in every run
    assert ((found.table["adjusted"] >= found.table["p"]) & (found.table["p"] > 0)).all()
    assert len(found.runs) == 60
    assert np.allclose(special.ndtri(found.runs["pit"]), found.runs["residual"])


def test_a_trend_along_what_the_law_does_not_read_is_named():
    u = np.log(RECIPES["target_tokens"])
    found = check(exact_fit(measured(RECIPES, shift=0.01 * (u - u.mean()) ** 2)))
    assert found.verdict == "doubtful"
    assert ("target_tokens",) in [note.about for note in found.notes if note.code == "TREND_LEFT"]
    assert not any(note.about == ("params",) for note in found.notes if note.code == "TREND_LEFT")


def test_a_curve_along_what_the_law_reads_is_named():
    x = np.log(RECIPES["params"])
    found = check(exact_fit(measured(RECIPES, shift=0.02 * (x - x.mean()) ** 2)))
    assert ("params",) in [note.about for note in found.notes if note.code == "TREND_LEFT"]


def test_a_slope_that_the_law_can_follow_is_no_trend():
    x = np.log(RECIPES["params"])
    found = check(exact_fit(measured(RECIPES, shift=0.05 * (x - x.mean()))))
    assert found.verdict == "passed"


def test_groups_with_levels_of_their_own_are_named():
    shift = np.where(RECIPES["language"] == "ja", 0.02, 0.0)
    found = check(exact_fit(measured(RECIPES, shift=shift)))
    assert ("language",) in [note.about for note in found.notes if note.code == "TREND_LEFT"]


def test_noise_that_grows_is_named():
    x = np.log(RECIPES["params"])
    found = check(exact_fit(measured(RECIPES, sigma=0.01 * np.exp(0.7 * (x - x.mean())))))
    assert ("params",) in [note.about for note in found.notes if note.code == "SPREAD_WRONG"]


@pytest.mark.parametrize(("factor", "side"), [(5.0, "smaller"), (0.2, "larger")])
def test_noise_of_the_wrong_size_is_found(factor, side):
    """Sigma held at what it is not, as standard errors from elsewhere would."""
    post = exact_fit(measured(RECIPES))
    draws = {**post.draws, "sigma": factor * post.draws["sigma"]}
    found = check(replace(post, draws=draws))
    said = [note.message for note in found.notes if note.code == "SPREAD_WRONG" and not note.about]
    assert len(said) == 1 and side in said[0]
    assert "PIT_NOT_UNIFORM" in codes(found)


def test_known_standard_errors_count():
    runs = runs_from_frame(measured(RECIPES).frame().assign(loss_se=0.2))
    post = replace(exact_fit(runs), noise=normal(known=True))
    row = check(post).table.query("test == 'spread'").iloc[0]
    # the log losses scatter by .01, and are said to scatter by .2 / 3
    assert 0.05 < row["statistic"] < 0.4 and row["adjusted"] < 0.05


def test_an_outlier_is_named():
    shift = np.zeros(60)
    shift[17] = 0.1
    found = check(exact_fit(measured(RECIPES, shift=shift)))
    assert found.verdict == "doubtful"
    assert codes(found)["OUTLIERS"] == ("row 18",)
    assert found.runs["residual"].idxmax() == 17


def test_a_run_that_leads_the_fit_is_named_and_does_not_change_the_verdict():
    sizes = np.r_[np.full(59, 1e7), 1e11] * np.linspace(1, 1.05, 60)
    recipes = runs_from_frame(RECIPES.frame().assign(params=sizes))
    found = check(exact_fit(measured(recipes), draws=2000))
    assert codes(found) == {"INFLUENTIAL_RUNS": ("row 60",)}
    assert found.verdict == "passed"


def test_runs_without_weight_are_left_out():
    runs = measured(RECIPES, shift=np.r_[np.zeros(59), 1.0])
    weight = np.r_[np.ones(59), 0.0]
    post = exact_fit(runs.select(slice(0, 59)))
    found = check(replace(post, runs=runs_from_frame(runs.frame().assign(weight=weight))))
    assert len(found.runs) == 59 and found.verdict == "passed"


def test_pit_values_are_those_of_fits_without_the_run():
    runs = measured(design(12))
    post = exact_fit(runs, draws=4000)
    found = check(post).runs
    for i in range(12):
        without = exact_fit(runs.select(np.arange(12) != i), constants=post.constants, draws=4000, seed=i)
        E, alpha, sigma = (without.draws[name][0] for name in ("E", "alpha", "sigma"))
        surface = np.log(E) - alpha * np.log(runs["params"][i])
        pit = stats.norm.cdf((np.log(runs["loss"][i]) - surface) / sigma).mean()
        assert found["pit"][i] == pytest.approx(pit, abs=0.03)


def test_the_score_test_is_the_F_test_of_a_larger_regression():
    u = np.log(RECIPES["target_tokens"])
    runs = measured(RECIPES, shift=0.003 * (u - u.mean()))
    row = (
        check(exact_fit(runs, draws=4000)).table.query("test == 'trend' and about == 'target_tokens'").iloc[0]
    )
    y, ones = np.log(runs["loss"]), np.ones(60)
    small = np.stack([ones, np.log(runs["params"])], axis=1)
    large = np.column_stack([small, *((u - u.mean()) ** power for power in (1, 2, 3, 4))])
    squares = [np.sum((y - X @ np.linalg.lstsq(X, y)[0]) ** 2) for X in (small, large)]
    F = (squares[0] - squares[1]) / 4 / (squares[1] / 54)
    assert row["statistic"] == pytest.approx(F, rel=0.1)


def test_holm_is_holm():
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.9])
    # by hand: smallest p times 5, next times 4, ..., never below the one before
    assert np.allclose(checks._holm(p), [0.04, 0.09, 0.09, 0.025, 0.9])


@pytest.fixture(scope="module")
def student():
    law = chinchilla()
    runs = simulated.measured(law, simulated.CHINCHILLA, simulated.monolingual(40))
    return fit(runs, law, draws=250, allow="flagged", progress=False)


def test_student_t_noise_and_a_fit_of_our_own(student):
    found = check(student)
    assert found.verdict == "passed"
    assert check(student).table.equals(found.table)
    again = check(student, seed=1).table
    exact = found.table["test"] == "trend"
    assert again[exact].drop(columns="adjusted").equals(found.table[exact].drop(columns="adjusted"))


def test_the_prior_check_has_the_priors_quantiles():
    found = prior_check(LAW, RECIPES, by="language", draws=4000, noise=normal()).set_index("group")
    assert list(found.index) == ["all", "language de", "language fr", "language ja"]
    assert list(found["runs"]) == [60, 20, 20, 20]
    x = np.log(RECIPES["params"]) - np.log(RECIPES["params"]).mean()
    sd = np.hypot(0.5, 0.1 * x)
    for name, members in (("all", x == x), ("language ja", RECIPES["language"] == "ja")):
        mean, spread = -0.1 - 0.3 * x[members], sd[members]
        inside = stats.norm.cdf(np.log(4), mean, spread) - stats.norm.cdf(-np.log(4), mean, spread)
        # draws are shared by the runs: the standard error is at most that of one run
        assert found.loc[name, "plausible"] == pytest.approx(inside.mean(), abs=4 * 0.5 / np.sqrt(4000))
        below = stats.norm.cdf(np.log(found.loc[name, "median"]), mean, spread).mean()
        assert below == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(4000))


def test_runs_read_some_at_a_time_say_the_same(monkeypatch):
    post = exact_fit(measured(design(30)))
    whole = check(post)
    monkeypatch.setattr(checks, "RUNS_AT_ONCE", 7)
    parts = check(post)
    for name in ("pit", "residual", "pareto_k"):
        np.testing.assert_allclose(parts.runs[name], whole.runs[name], rtol=1e-12)
    one, other = (found.table.set_index(["test", "about"]) for found in (whole, parts))
    np.testing.assert_allclose(other["statistic"], one["statistic"], rtol=0.02)  # replicated by other numbers
    np.testing.assert_allclose(other["p"], one["p"], atol=0.05)


def test_sizes_of_residuals_that_the_fit_absorbed_part_of_are_simulated_rightly():
    """Against residuals made by the whole root of I - H: p values within 4 Monte Carlo standard errors."""
    random = np.random.default_rng(0)
    basis, _ = np.linalg.qr(random.normal(size=(12, 4)))
    H = basis @ np.diag([1.0, 0.9, 0.5, 0.1]) @ basis.T
    share, axes = np.linalg.eigh(np.eye(12) - H)
    root = axes * np.sqrt(np.clip(share, 0, 1))
    simulated = random.normal(size=(checks.SIMULATIONS, 12)) @ root.T
    z = random.normal(size=12)
    columns = checks._designs(
        {"epochs": np.arange(1.0, 13.0), "target_ratio": random.uniform(size=12)}, {}, powers=2
    )
    w = checks._sizes(np.vstack([z, simulated / np.sqrt(np.sum(root**2, axis=1))]))
    w = w - w.mean(axis=1, keepdims=True)
    found = {test.about: test for test in checks._trends_of_spread(z, H.copy(), columns, random)}
    for name, X in columns.items():
        explained = np.sum((w @ X) ** 2, axis=1)
        F = explained / (np.sum(w**2, axis=1) - explained) * (12 - X.shape[1] - 1) / X.shape[1]
        p = np.mean(F[1:] >= F[0])
        assert found[name].statistic == pytest.approx(F[0])
        error = np.sqrt(2 * p * (1 - p) / checks.SIMULATIONS)
        assert abs(found[name].p - p) < 4 * error, name


def test_draws_and_seeds_are_whole_numbers():
    with pytest.raises(M3BayesError, match="seed is -1"):
        check(exact_fit(measured(design(6)), draws=100), seed=-1)
    with pytest.raises(M3BayesError, match="draws is 0; give a whole number, at least 1"):
        prior_check(chinchilla(), measured(design(6)), draws=0)


def test_groups_of_numbers_are_in_their_order():
    frame = measured(design(12)).frame().assign(width=np.arange(12) % 3 * 50 + 50.0)
    found = prior_check(chinchilla(), runs_from_frame(frame), by="width", draws=10)
    assert list(found["group"]) == ["all", "width 50.0", "width 100.0", "width 150.0"]
