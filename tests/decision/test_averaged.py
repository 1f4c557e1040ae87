"""Decisions over several laws: the mixture against its parts, regrets by brute force, the variance by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

from m3bayes.decision.averaged import Averaged, between_laws, recommend_averaged
from m3bayes.decision.mixture import WHICH, mixture
from m3bayes.decision.recommend import recommend
from m3bayes.errors import M3BayesError, Note, RecipeError
from m3bayes.inference.posterior import DEPARTING, thinned
from m3bayes.inference.predict import loss_draws, predict
from m3bayes.laws import Coefficient, Law, chinchilla, law
from m3bayes.laws.departing import VARIABLES, departing
from m3bayes.recipe import Recipe
from m3bayes.runs import runs_from_frame
from tests.decision import synthetic
from tests.decision.synthetic import CHINCHILLA, DRAWS, TRUTH, posterior, scattered

C, U = 1e13, 1e5
RUNS = runs_from_frame(synthetic.runs().frame().assign(width=2.0))
MONOLINGUAL = {"target_ratio": 1.0, "final_ratio": 1.0}
REQUEST = {"compute": C, "target_tokens": U, "freeze": MONOLINGUAL}


def tired() -> Law:
    """L = E + A N^-alpha + B D^-beta + P k at a width of its own: many epochs do harm."""
    return law(
        "tired",
        lambda c, x: (
            c["E"]
            + c["A"] * x["params"] ** -c["alpha"]
            + c["B"] * (x["epochs"] * x["target_tokens"]) ** -c["beta"]
            + c["P"] * x["epochs"] * x["width"]
        ),
        [
            Coefficient(name, dist.LogNormal(0, 1), of_loss=name in "EAB")
            for name in ("E", "A", "B", "alpha", "beta", "P")
        ],
        columns=("params", "target_tokens", "epochs", "target_ratio", "final_ratio", "width"),
    )


EASY = posterior(scattered(CHINCHILLA, 0), RUNS, chinchilla())
TIRED = posterior(scattered({**CHINCHILLA, "P": 0.15}, 1), RUNS, tired())
POSTS = {"easy": EASY, "tired": TIRED}
OF_BOTH = {"compute": C, "target_tokens": U, "freeze": {**MONOLINGUAL, "width": 2.0}}


@pytest.fixture(scope="module")
def found() -> Averaged:
    return recommend_averaged(POSTS, {"easy": 3, "tired": 1}, **OF_BOTH)


def test_every_draw_of_a_mixture_has_a_law_and_draws_of_it():
    m3_post = posterior(scattered(TRUTH, 0), RUNS)
    mixed = mixture({"m3": m3_post, "easy": EASY}, {"m3": 0.25, "easy": 0.75})
    recipes = [Recipe(1e6, U, 4.0), Recipe(1e6, U, 16.0, 0.3, 0.9), Recipe(1e6, U, 1.0, 0.5, 0.5)]
    losses = loss_draws(mixed, recipes)
    which = mixed.draws[WHICH].ravel()
    assert [int(np.sum(which == i)) for i in range(2)] == [DRAWS // 4, 3 * DRAWS // 4]
    assert losses[which == 0] == pytest.approx(loss_draws(m3_post, recipes)[::4], rel=1e-12)
    rows = np.arange(48) * 64 // 48
    assert losses[which == 1] == pytest.approx(loss_draws(EASY, recipes)[rows], rel=1e-12)
    # the noise goes with the coefficients
    apart = replace(EASY, draws={**EASY.draws, "sigma": EASY.draws["sigma"] * 3})
    mixed = mixture({"m3": m3_post, "easy": apart}, {"m3": 0.5, "easy": 0.5})
    assert list(mixed.draws["sigma"].ravel()) == [0.01] * 32 + [0.03] * 32
    assert predict(mixed, recipes).new_run_upper is not None


def test_shares_of_draws_are_those_of_the_weights_to_within_one():
    posts = {name: posterior(scattered(CHINCHILLA, i), RUNS, chinchilla()) for i, name in enumerate("abc")}
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    which = mixture(posts, weights).draws[WHICH]
    counts = [int(np.sum(which == i)) for i in range(3)]
    assert sum(counts) == DRAWS
    assert all(abs(n - w * DRAWS) < 1 for n, w in zip(counts, weights.values(), strict=True))


def test_infinite_slopes_of_one_law_leave_the_other_alone():
    steep = law(
        "steep",
        lambda c, x: c["E"] + (x["epochs"] - 1) ** 0.5,
        [Coefficient("E", dist.LogNormal(0, 1), of_loss=True)],
    )
    post = posterior({"E": np.ones(DRAWS)}, RUNS, steep)
    mixed = mixture({"easy": EASY, "steep": post}, {"easy": 0.5, "steep": 0.5})
    x = {"params": 1e6, "target_tokens": 1e5, "epochs": 1.0, "target_ratio": 1.0, "final_ratio": 1.0}

    def slopes(post, draw: int) -> list[float]:
        c = {name: values[draw] for name, values in post.coefficients.items()}
        by_epochs = lambda k: post.law.loss(c, {**x, "epochs": k})  # noqa: E731
        return [float(d(by_epochs)(1.0)) for d in (jax.grad, jax.jacfwd, jax.hessian)]

    easy = slopes(mixed, 0)
    assert np.all(np.isfinite(easy)) and easy == pytest.approx(slopes(EASY, 0), rel=1e-5)
    assert not np.isfinite(slopes(mixed, DRAWS - 1)[0])


def test_a_weight_of_one_is_the_law_alone(found):
    alone = recommend_averaged(POSTS, {"easy": 1, "tired": 0}, **OF_BOTH)
    expected = recommend(EASY, **REQUEST)
    assert alone.recipe.params == pytest.approx(expected.recipe.params, rel=1e-12)
    assert alone.recipe.epochs == pytest.approx(expected.recipe.epochs, rel=1e-12)
    assert alone.recommendation.loss == expected.loss
    assert alone.regret["easy"].draws == pytest.approx(expected.regret.draws, abs=1e-12)
    assert alone.between == 0
    # a law without weight is asked all the same
    assert alone.cross_regret.loc["tired", "averaged"] == pytest.approx(
        found.cross_regret.loc["tired", "easy"]
    )


def test_a_law_twice_is_that_law():
    twice = recommend_averaged({"a": EASY, "b": EASY}, {"a": 0.5, "b": 0.5}, **REQUEST)
    half = thinned(EASY, DRAWS // 2)
    expected = recommend(half, **REQUEST)
    assert twice.recipe.epochs == pytest.approx(expected.recipe.epochs, rel=1e-6)
    assert twice.recommendation.loss.mean == pytest.approx(expected.loss.mean, rel=1e-12)
    assert twice.recommendation.regret.mean == pytest.approx(expected.regret.mean, abs=1e-9)
    assert twice.between == pytest.approx(0, abs=1e-12)


def on_the_budget(post, most: int = 4001):
    """k and (draw, recipe) losses along the recipes that spend all of C: both laws fall in N and D alone, or have
    their best k inside."""
    k = np.geomspace(0.7, 16.0, most)
    N = np.clip(C / (6 * k * U), 3e4, 2e7)
    c = {name: values[:, None] for name, values in post.coefficients.items()}
    x = {"params": N, "target_tokens": U, "epochs": k, "target_ratio": 1.0, "width": 2.0}
    with jax.enable_x64(True):
        return k, np.asarray(post.law.loss(c, x))


def test_cross_regrets_are_those_of_brute_force(found):
    names = [*POSTS, "averaged"]
    assert list(found.cross_regret.index) == list(found.cross_regret.columns) == names
    losses = {}
    for name, post in POSTS.items():
        k, losses[name] = on_the_budget(post)
    shares = {"easy": 0.75, "tired": 0.25}
    best = {name: int(np.argmin(values.mean(axis=0))) for name, values in losses.items()}
    best["averaged"] = int(np.argmin(sum(w * losses[name].mean(axis=0) for name, w in shares.items())))
    assert found.own["easy"].recipe.epochs > 1.5 * found.own["tired"].recipe.epochs
    for name, row in best.items():
        recipe = found.recipe if name == "averaged" else found.own[name].recipe
        assert recipe.epochs == pytest.approx(k[row], rel=0.02 if name == "averaged" else 2e-3)
        assert recipe.extra == {"width": 2.0} or name == "averaged"
    for judge, values in losses.items():
        for name in POSTS:
            regret = np.mean(values[:, best[name]] - values.min(axis=1))
            assert found.cross_regret.loc[judge, name] == pytest.approx(regret, abs=2e-6 + 5e-3 * regret)
    rows = found.cross_regret
    by_weight = 0.75 * rows.loc["easy"] + 0.25 * rows.loc["tired"]
    assert list(rows.loc["averaged"]) == pytest.approx(list(by_weight))
    # the averaged recipe is the best of the three by the average, and no law's own
    assert rows.loc["averaged"].idxmin() == "averaged"
    assert rows.loc["easy"].idxmin() == "easy" and rows.loc["tired"].idxmin() == "tired"
    assert found.recommendation.regret.mean == pytest.approx(rows.loc["averaged", "averaged"], rel=0.3)


def test_the_share_between_laws_is_that_of_the_law_of_total_variance(found):
    assert between_laws([np.array([0.0, 2.0]), np.array([5.0, 5.0])], [0.5, 0.5]) == pytest.approx(4 / 4.5)
    assert np.isnan(between_laws([np.ones(3), np.ones(3)], [0.5, 0.5]))
    a, b = (loss_draws(post, found.recipe)[:, 0] for post in POSTS.values())
    m = 0.75 * a.mean() + 0.25 * b.mean()
    total = 0.75 * np.mean((a - m) ** 2) + 0.25 * np.mean((b - m) ** 2)
    assert found.between == pytest.approx(1 - (0.75 * a.var() + 0.25 * b.var()) / total)
    assert any(note.code == "LAWS_DISAGREE" for note in found.notes) == (found.between > 0.5)


def test_what_it_says_can_be_written(found):
    said = json.loads(json.dumps(found.to_json()))
    assert said["recipe"]["params"] == found.recipe.params and said["weights"] == {
        "easy": 0.75,
        "tired": 0.25,
    }
    assert said["cross_regret"]["tired"]["easy"] == found.cross_regret.loc["tired", "easy"]
    assert list(found.table().index) == ["easy", "tired"] and found.table().loc["easy", "weight"] == 0.75
    assert "array" not in repr(found)


def test_a_departure_and_a_flag_of_the_parts_are_the_mixtures():
    x = {name: RUNS[name] for name in ("params", "target_tokens", "epochs", "target_ratio", "final_ratio")}
    edges = {name: (float(v.min()), float(v.max())) for name, v in ((n, f(x)) for n, f in VARIABLES.items())}

    def departed(post):
        more = departing(post.law, edges)
        draws = {name: np.zeros((2, DRAWS // 2)) for name in more.names if name not in post.law.names}
        return replace(post, law=more, draws={**post.draws, **draws})

    far = {name: departed(post) for name, post in {"a": EASY, "b": EASY}.items()}
    assert mixture(far, {"a": 1, "b": 1}).intervals == DEPARTING
    with pytest.raises(M3BayesError, match="a has a discrepancy and b has none"):
        mixture({**far, "b": EASY}, {"a": 1, "b": 1})
    note = Note("R_HAT", "too large")
    bad = replace(EASY, verdict="flagged", notes=(note,))
    mixed = mixture({"a": EASY, "b": bad}, {"a": 1, "b": 1})
    assert mixed.verdict == "flagged" and str(mixed.notes[0]) == "R_HAT: b: too large"
    assert mixture({"a": EASY, "b": bad}, {"a": 1, "b": 0}).verdict == "passed"


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"easy": 1.0}, "expected the same names"),
        ({"easy": 1.0, "tired": -0.1}, "weight of tired is -0.1"),
        ({"easy": float("nan"), "tired": 1.0}, "weight of easy is nan"),
        ({"easy": 0, "tired": 0}, "all weights are 0"),
    ],
)
def test_weights_that_are_none_are_refused(weights, said):
    with pytest.raises(M3BayesError, match=said):
        recommend_averaged(POSTS, weights, **OF_BOTH)


def test_posteriors_that_do_not_go_together_are_refused():
    other = posterior(scattered(CHINCHILLA, 0), synthetic.runs(only="params > 1e5"), chinchilla())
    with pytest.raises(M3BayesError, match="b was fitted to other runs than a"):
        recommend_averaged({"a": EASY, "b": other}, {"a": 1, "b": 1}, **REQUEST)
    grouped = replace(EASY, groups=("x", "y"))
    with pytest.raises(M3BayesError, match="b was fitted to other noise than a"):
        recommend_averaged({"a": EASY, "b": grouped}, {"a": 1, "b": 1}, **REQUEST)
    with pytest.raises(M3BayesError, match="no posterior"):
        recommend_averaged({}, {}, **REQUEST)
    with pytest.raises(M3BayesError, match="is named 'averaged'"):
        recommend_averaged({"averaged": EASY}, {"averaged": 1}, **REQUEST)
    with pytest.raises(RecipeError, match="reads column width"):
        recommend_averaged(POSTS, {"easy": 1, "tired": 1}, **REQUEST)
