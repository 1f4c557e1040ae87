"""Sensitivity to prior and runs, where both are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from m3bayes.errors import M3BayesError, RunTableError
from m3bayes.evaluation.sensitivity import log_prior, sensitivity
from m3bayes.inference.fit import fit
from m3bayes.laws import chinchilla
from m3bayes.runs import runs_from_frame
from tests.evaluation.exact import LAW, PRIOR_MEAN, PRIOR_SD, design, exact_fit, measured
from tests.inference import simulated


def test_log_prior_is_on_the_real_line():
    post = exact_fit(measured(design(5)), draws=7)
    E, alpha, sigma = (post.draws[name][0] for name in ("E", "alpha", "sigma"))
    e = np.log(E / post.constants["L"]) - alpha * np.log(post.constants["N"])
    expected = (
        stats.norm.logpdf(e, PRIOR_MEAN[0], PRIOR_SD[0])
        + stats.norm.logpdf(alpha, PRIOR_MEAN[1], PRIOR_SD[1])
        + stats.norm.logpdf(np.log(sigma), np.log(0.008), 1.0)
    )
    assert np.allclose(log_prior(post), expected)


def test_what_many_runs_say_does_not_lean_on_the_prior():
    found = sensitivity(
        exact_fit(measured(design(80)), draws=2000), quantities={"2 alpha": lambda c: 2 * c["alpha"]}
    )
    assert found.notes == () and found.left_out.empty
    assert (found.table["reading"] == "").all()
    table = found.table
    assert (table["contraction"][["E", "alpha", "sigma"]] > 0.95).all()
    # a multiple of a coefficient is as sensitive as the coefficient
    assert table.loc["2 alpha", ["prior", "likelihood"]].to_list() == pytest.approx(
        table.loc["alpha", ["prior", "likelihood"]].to_list()
    )


def test_what_no_run_says_is_the_priors():
    found = sensitivity(exact_fit(measured(design(6, sizes=1e-4)), draws=4000))
    assert "alpha" in next(note.about for note in found.notes if note.code == "PRIOR_SPEAKS")
    assert found.table.loc["alpha", "contraction"] == pytest.approx(0.0, abs=0.15)
    assert found.table.loc["E", "contraction"] > 0.95


def test_contraction_is_that_of_the_normal_model():
    recipes = design(6, sizes=0.05)
    post = exact_fit(measured(recipes, sigma=0.01), draws=4000)
    x = np.log(recipes["params"] / post.constants["N"])
    # given sigma, at its posterior draws
    precision = np.sum((x - x.mean()) ** 2) / post.draws["sigma"][0] ** 2 + PRIOR_SD[1] ** -2
    within = np.mean(1 / precision)
    assert sensitivity(post).table.loc["alpha", "contraction"] == pytest.approx(
        1 - within / PRIOR_SD[1] ** 2, abs=0.15
    )


def test_a_prior_far_from_the_runs_pulls():
    runs = measured(design(6, sizes=1.0))
    steep = runs.frame().assign(loss=runs["loss"] * (runs["params"] / runs["params"].mean()) ** -0.5)
    found = sensitivity(exact_fit(runs_from_frame(steep), draws=4000))
    assert "alpha" in next(note.about for note in found.notes if note.code == "PRIOR_PULLS")


@pytest.fixture(scope="module")
def families():
    law = chinchilla()
    recipes = simulated.monolingual(60).assign(family=np.repeat(["a", "b"], [45, 15]))
    runs = simulated.measured(law, simulated.CHINCHILLA, recipes, sigma=0.002)
    frame = runs.frame()
    # the small family's losses are all higher, so that what it is part of moves
    frame.loc[frame["family"] == "b", "loss"] *= 1.03
    return fit(runs_from_frame(frame), law, draws=250, allow="flagged", progress=False)


def test_leaving_a_family_out(families):
    found = sensitivity(families, leave_out="family", quantities={"floor": lambda c: c["E"]})
    rows = found.left_out
    assert set(rows["value"]) == {"a", "b"} and set(rows["runs"]) == {45, 15}
    without = fit(
        families.runs.where("family == 'a'"), families.law, draws=250, constants=families.constants,
        allow="flagged", progress=False,
    )  # fmt: skip
    by_hand = (without.draws["E"].mean() - families.draws["E"].mean()) / families.draws["E"].std()
    row = rows[(rows["value"] == "b") & (rows["quantity"] == "floor")].iloc[0]
    assert row["shift"] == pytest.approx(by_hand)
    assert row["widening"] == pytest.approx(without.draws["E"].std() / families.draws["E"].std())
    sigma = rows[(rows["value"] == "b") & (rows["quantity"] == "sigma")].iloc[0]
    assert sigma["shift"] < -2  # without the family that lies apart, the scatter is small
    leaning = next(note for note in found.notes if note.about[0] == "family b")
    assert leaning.code == "LEANS_ON_FAMILY" and "sigma" in leaning.about


def test_a_family_that_is_nearly_all_is_a_row_without_a_fit(families):
    runs = families.runs.frame().assign(family=np.repeat(["all", "two"], [58, 2]))
    post = families.__class__(**{**vars(families), "runs": runs_from_frame(runs)})
    found = sensitivity(post, leave_out="family", draws=250)
    row = found.left_out[found.left_out["value"] == "all"].iloc[0]
    assert row["verdict"] == "failed" and np.isnan(row["shift"])
    assert any(note.code == "REFIT_FAILED" and note.about == ("family all",) for note in found.notes)


def test_a_column_that_is_not_there_is_said():
    with pytest.raises(RunTableError, match="no column 'family'"):
        sensitivity(exact_fit(measured(design(6))), leave_out="family")


def test_the_law_of_these_tests_is_what_it_says():
    assert LAW.names == ("E", "alpha")


def test_a_column_of_one_value_leaves_nothing_out():
    runs = measured(design(12))
    post = exact_fit(runs_from_frame(runs.frame().assign(language="de")), draws=100)
    with pytest.raises(RunTableError, match="column language is 'de' in every run"):
        sensitivity(post, leave_out="language")


def test_families_are_of_runs_that_count():
    runs = measured(design(12))
    kind = np.repeat(["a", "b", "c"], [5, 5, len(runs) - 10])
    weight = np.where(kind == "b", 0.0, 1.0)
    post = exact_fit(runs_from_frame(runs.frame().assign(kind=kind, weight=weight)), draws=100)
    found = sensitivity(post, leave_out="kind", draws=4)
    assert set(found.left_out["value"]) == {"a", "c"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantities": {"E": lambda c: c["E"]}}, "'E', which is one of the posterior's own"),
        ({"quantities": {"a": lambda c: c["nothing"]}}, "quantity 'a' fails: KeyError"),
        ({"quantities": {"a": lambda c: c["E"] * np.nan}}, "quantity 'a' is not finite in every draw"),
        ({"quantities": {"a": lambda c: 1.0}}, r"quantity 'a' has shape \(\); give one finite number a draw"),
        ({"leave_out": "one", "draws": 0}, "draws is 0; give a whole number, at least 4"),
    ],
)
def test_what_cannot_be_followed_is_refused(options, said):
    with pytest.raises(M3BayesError, match=said):
        sensitivity(exact_fit(measured(design(6)), draws=100), **options)


def test_a_quantity_that_never_varies_depends_on_nothing():
    found = sensitivity(
        exact_fit(measured(design(6)), draws=100), quantities={"one": lambda c: 0 * c["E"] + 1}
    )
    assert found.table.loc["one", "prior"] == found.table.loc["one", "likelihood"] == 0
    assert found.table.loc["one", "reading"] == ""
