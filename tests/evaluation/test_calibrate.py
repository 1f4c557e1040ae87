"""Calibration of a law whose posterior is exact: right draws pass, planted bugs do not."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from scipy import stats

from m3bayes.errors import FitError, M3BayesError
from m3bayes.evaluation.calibrate import (
    EXTRAPOLATED,
    LEVELS,
    LOG_LIKELIHOOD,
    RANKED,
    _quantities,
    calibrate,
    ranked,
    summary,
)
from m3bayes.inference.noise import normal
from m3bayes.laws import chinchilla, chinchilla_optimum
from m3bayes.runs import runs_from_frame
from tests.evaluation.exact import LAW, design, exact_fit, measured
from tests.inference.simulated import monolingual

SMALL, LARGE = design(4), design(80)
ALIKE = design(3, sizes=0.02)  # says nothing of alpha


def codes(found) -> set[str]:
    return {note.code for note in found.notes}


@pytest.fixture(scope="module")
def right():
    return calibrate(LAW, SMALL, simulations=120, noise=normal(), fit=exact_fit)


def test_right_posteriors_pass(right):
    assert (right.verdict, right.notes) == ("passed", ())
    assert list(right.table.index) == ["E", "alpha", "sigma", LOG_LIKELIHOOD, EXTRAPOLATED]
    assert right.table["uniform"].all() and right.table["covered"].all()
    assert right.ranks.shape == (120, 5) and right.ranks.to_numpy().max() <= RANKED
    assert list(right.fits["verdict"].unique()) == ["passed"]


def test_coverage_is_held_to_the_binomial(right):
    tail = 0.05 / 5 / 3 / 2
    for level in LEVELS:
        expected = stats.binom.ppf([tail, 1 - tail], 120, level) / 120
        assert right.coverage_range[level] == pytest.approx(tuple(expected))
        assert (abs(right.table[f"coverage_{100 * level:.0f}"] - level) < 5 * 0.5 / np.sqrt(120)).all()


@pytest.mark.parametrize(
    ("bug", "recipes", "simulations", "about"),
    [("sigma", LARGE, 60, "sigma"), ("jacobian", SMALL, 120, "sigma"), ("prior", ALIKE, 60, "alpha")],
)
def test_planted_bugs_are_caught(bug, recipes, simulations, about):
    """Sigma times 1.1, a Jacobian left out, a prior that is another's."""
    found = calibrate(LAW, recipes, simulations=simulations, noise=normal(), fit=partial(exact_fit, bug=bug))
    assert found.verdict == "doubtful"
    assert (about,) in [note.about for note in found.notes if note.code == "RANKS_NOT_UNIFORM"]


def test_intervals_that_are_too_narrow_are_caught(right):
    rows = [
        {"number": i, "verdict": "passed", "ranks": {"a": 50}, "places": {"a": 0.5 + 0.3 * (-1) ** i}}
        for i in range(100)
    ]
    assert "COVERAGE_WRONG" in codes(summary(rows))


def test_a_killed_calibration_goes_on_and_gives_the_same(right, tmp_path):
    run = partial(calibrate, LAW, SMALL, noise=normal(), fit=exact_fit, folder=tmp_path)

    def kill(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(simulations=6, report=kill)
    rows = tmp_path / "simulations.jsonl"
    assert [json.loads(line)["number"] for line in rows.read_text().splitlines()] == [0, 1, 2]
    with rows.open("a") as file:
        file.write('{"number": 3, "verd')  # what a kill while writing leaves
    seen = []
    found = run(simulations=6, report=lambda done, total: seen.append((done, total)))
    assert found.ranks.equals(right.ranks.iloc[:6].astype(found.ranks.dtypes))
    assert seen[-1] == (6, 6)
    assert len(rows.read_text().splitlines()) == 6
    assert run(simulations=6, fit=pytest.fail).ranks.equals(found.ranks)  # nothing left to do
    with pytest.raises(FitError, match="seed 0 there, 1 here"):
        run(simulations=6, seed=1)


def test_fits_that_raise_or_are_flagged_are_counted_and_said():
    def fit(runs, law, *, seed, **given):
        if seed == 2:
            raise FitError("no start")
        post = exact_fit(runs, law, seed=seed, **given)
        return post.__class__(**{**vars(post), "verdict": "flagged" if seed < 2 else "passed"})

    found = calibrate(LAW, SMALL, simulations=6, noise=normal(), fit=fit)
    assert found.verdict == "doubtful"
    assert codes(found) == {"FITS_FLAGGED", "FITS_FAILED", "FEW_SIMULATIONS"}
    assert list(found.fits["verdict"]) == ["flagged", "flagged", "failed", "passed", "passed", "passed"]
    assert found.fits["error"][2] == "no start"
    assert found.ranks.isna().any(axis=1).tolist() == [False, False, True, False, False, False]


def test_no_fit_at_all_is_said_too():
    def fit(runs, law, **given):
        raise FitError("no start")

    found = calibrate(LAW, SMALL, simulations=2, noise=normal(), fit=fit)
    assert found.verdict == "doubtful" and found.table.empty
    assert [note.code for note in found.notes] == ["FITS_FAILED"]


def test_too_few_draws_to_rank_among_are_refused():
    with pytest.raises(M3BayesError, match="50 draws, at least 99"):
        calibrate(LAW, SMALL, simulations=2, noise=normal(), fit=partial(exact_fit, draws=50))


def test_ties_are_broken_at_random():
    random = np.random.default_rng(0)
    found = [ranked(np.ones(400), 1.0, random) for _ in range(2000)]
    ranks, places = np.array(found).T
    assert set(ranks) == set(range(RANKED + 1))
    assert stats.kstest(places, "uniform").pvalue > 1e-3
    assert ranked(np.arange(400.0), 500.0, random)[0] == RANKED
    assert ranked(np.arange(400.0), -1.0, random) == (0, pytest.approx(0.5 / 401, abs=0.5 / 401))


def test_the_standing_quantities():
    post = exact_fit(measured(SMALL), draws=3)
    found = _quantities(post, {"twice": lambda c: 2 * c["alpha"]})
    E, alpha, sigma = (post.draws[name][0] for name in ("E", "alpha", "sigma"))
    surface = np.log(E) - alpha * np.log(post.runs["params"])[:, None]
    density = stats.norm.logpdf(np.log(post.runs["loss"])[:, None], surface, sigma).sum(axis=0)
    assert np.allclose(found[LOG_LIKELIHOOD], density)
    largest = post.runs["params"][np.argmax(post.runs.compute)]
    assert np.allclose(found[EXTRAPOLATED], E * (np.sqrt(10) * largest) ** -alpha)
    assert np.array_equal(found["twice"], 2 * alpha)


def test_with_fits_of_our_own():
    recipes = runs_from_frame(monolingual(40).assign(loss=3.0))
    quantities = {"optimal N": lambda c: chinchilla_optimum(c, 1e22)[0]}
    found = calibrate(chinchilla(), recipes, simulations=2, draws=250, quantities=quantities)
    assert {"nu", "beta", "optimal N"} <= set(found.table.index)
    assert not found.ranks.isna().any(axis=None)
    assert (found.fits["seconds"] > 0).all() and (found.fits["attempts"] >= 1).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"simulations": 0}, "simulations is 0; give a whole number, at least 1"),
        ({"quantities": {"sigma": lambda c: c["E"]}}, "'sigma', which is ranked anyway"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(options, said):
    with pytest.raises(M3BayesError, match=said):
        calibrate(LAW, SMALL, **{"simulations": 3, "noise": normal(), "fit": exact_fit, **options})


def test_a_quantity_that_is_no_number_fails_each_simulation():
    quantities = {"a": lambda c: c["E"] * np.nan}
    found = calibrate(LAW, SMALL, simulations=2, noise=normal(), fit=exact_fit, quantities=quantities)
    assert found.verdict == "doubtful" and list(found.fits["verdict"]) == ["failed", "failed"]
    assert "quantity 'a' is not finite" in found.notes[0].message


def test_few_simulations_say_how_little_they_show():
    found = calibrate(LAW, SMALL, simulations=3, noise=normal(), fit=exact_fit)
    (note,) = [note for note in found.notes if note.code == "FEW_SIMULATIONS"]
    assert "3 fits show little: 90% intervals that hold 33% to 100%" in note.message
