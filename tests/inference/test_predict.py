from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.errors import LawError, M3BayesError, RecipeError
from m3bayes.inference import predict as module
from m3bayes.inference.noise import normal, student_t
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import loss_draws, predict
from m3bayes.laws import Coefficient, chinchilla, law, m3, priors
from m3bayes.recipe import Recipe, schedule
from m3bayes.runs import runs_from_frame
from tests.inference import synthetic

RUNS = synthetic.runs()
POST = synthetic.posterior(m3(), RUNS)
RECIPES = synthetic.runs(40, seed=7).frame().drop(columns="loss")
ADDED = [
    "loss_mean", "loss_sd", "loss_lower", "loss_upper", "new_run_lower", "new_run_upper", "extrapolation",
    "notes",
]  # fmt: skip


def one_loss(c: dict[str, float], x: pd.Series) -> float:
    """The M3 surface, one recipe and one draw, in plain Python."""
    N, U, k, r, r_f = x.params, x.target_tokens, x.epochs, x.target_ratio, x.final_ratio
    worth = k if k <= 1 else 1 + (1 - np.exp(-c["lambda"] * (k - 1))) / c["lambda"]
    Q, S = U * worth, k * U * (1 - r) / r
    data = r_f ** c["gamma"] * Q * (1 + c["tau"] * S / (c["eta"] * Q)) ** c["eta"]
    extra = 0.0 if k <= 1 else (k - 1) ** c["delta"] * (N / U) ** c["kappa"] * r_f ** c["omega"]
    return c["E"] + c["A"] * N ** -c["alpha"] + c["B"] * data ** -c["beta"] + c["P"] * extra


def naive(post: Posterior, recipes: pd.DataFrame, ci: float) -> pd.DataFrame:
    n_draws = post.draws["E"].size
    flat = {name: values.reshape(n_draws, -1) for name, values in post.draws.items()}
    key = jax.random.fold_in(jax.random.key(post.settings["seed"]), zlib.crc32(b"new run"))
    for_order, for_place = jax.random.split(key)
    with jax.enable_x64(True):
        order = np.asarray(jax.random.permutation(for_order, n_draws))
        uniform = (order + np.asarray(jax.random.uniform(for_place, (n_draws,), jnp.float64))) / n_draws
    rows = []
    for _, x in recipes.iterrows():
        losses, measured = [], []
        for d in range(n_draws):
            c = {name: flat[name][d, 0] for name in post.law.names}
            losses.append(one_loss(c, x))
            t = scipy.stats.t.ppf(uniform[d], flat["nu"][d, 0])
            measured.append(np.exp(np.log(losses[-1]) + flat["sigma"][d, 0] * t))
        ends = [(1 - ci) / 2, (1 + ci) / 2]
        lower, upper = np.quantile(losses, ends, method="linear")
        new_lower, new_upper = np.exp(np.quantile(np.log(measured), ends, method="linear"))
        rows.append([np.mean(losses), np.std(losses, ddof=1), lower, upper, new_lower, new_upper])
    return pd.DataFrame(rows, columns=ADDED[:6])


def test_agrees_with_loops():
    recipes = RECIPES.iloc[:12]
    for ci in (0.5, 0.9):
        ours = predict(POST, recipes, ci=ci).frame()
        expected = naive(POST, recipes, ci)
        for name in expected:
            np.testing.assert_allclose(ours[name], expected[name], rtol=1e-12, err_msg=name)


def test_quantiles_are_those_of_the_draws():
    draws = loss_draws(POST, RECIPES)
    assert draws.shape == (400, len(RECIPES))
    found = predict(POST, RECIPES, ci=0.8)
    lower, upper = np.quantile(draws, [0.1, 0.9], axis=0)
    np.testing.assert_allclose(found.loss_lower, lower, rtol=1e-14)
    np.testing.assert_allclose(found.loss_upper, upper, rtol=1e-14)
    np.testing.assert_allclose(found.loss_mean, draws.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.loss_sd, draws.std(axis=0, ddof=1), rtol=1e-11)


def numbers(prediction) -> np.ndarray:
    return prediction.frame()[ADDED[:7]].to_numpy()


@pytest.mark.parametrize("chunk, batch, workers", [(1, 1, 1), (7, 2, 2), (40, 3, 1), (64, 64, 2)])
def test_chunks_do_not_show(monkeypatch, chunk, batch, workers):
    whole, draws = predict(POST, RECIPES), loss_draws(POST, RECIPES)
    monkeypatch.setattr(module, "_plan", lambda: module._Plan(chunk, batch, workers))
    # the vector loops of the processor may round the last bit differently
    np.testing.assert_allclose(numbers(predict(POST, RECIPES)), numbers(whole), rtol=1e-13)
    np.testing.assert_allclose(loss_draws(POST, RECIPES), draws, rtol=1e-14)


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(len(RECIPES))))
def test_order_and_company_do_not_matter(order):
    whole = numbers(predict(POST, RECIPES))
    np.testing.assert_allclose(numbers(predict(POST, RECIPES.iloc[order])), whole[list(order)], rtol=1e-13)
    np.testing.assert_allclose(numbers(predict(POST, RECIPES.iloc[order[:1]])), whole[order[:1]], rtol=1e-13)


def test_frame_keeps_what_was_given():
    given_table = RECIPES.assign(label=[f"recipe {i}" for i in range(len(RECIPES))]).set_index(
        "label", drop=False
    )
    frame = predict(POST, given_table).frame()
    assert list(frame.columns) == [*given_table.columns, *ADDED]
    pd.testing.assert_frame_equal(frame[given_table.columns], given_table)
    assert list(predict(POST, given_table, new_run=False).frame().columns) == [
        *given_table.columns, *ADDED[:4], "extrapolation", "notes",
    ]  # fmt: skip


def test_every_form_of_recipe_gives_the_same_losses():
    table = pd.DataFrame(
        {"params": [1e8, 3e8], "target_tokens": 1e9, "epochs": [2.0, 4.0], "target_ratio": [1.0, 0.3],
         "final_ratio": [1.0, 0.8]}
    )  # fmt: skip
    recipes = [Recipe(*row) for row in table.itertuples(index=False)]
    expected = numbers(predict(POST, table))
    forms = (
        recipes,
        [schedule(recipe) for recipe in recipes],
        {name: table[name].to_numpy() for name in table} | {"target_tokens": 1e9},
        runs_from_frame(table.assign(loss=3.0)),
    )
    for form in forms:
        prediction = predict(POST, form)
        np.testing.assert_allclose(numbers(prediction), expected, rtol=1e-12)
        np.testing.assert_allclose(prediction.frame()["params"], table["params"])
    np.testing.assert_allclose(numbers(predict(POST, recipes[1])), expected[1:], rtol=1e-12)


def test_the_same_posterior_gives_the_same_numbers():
    assert np.array_equal(numbers(predict(POST, RECIPES)), numbers(predict(POST, RECIPES)))


@pytest.mark.parametrize("noise", [student_t(), normal()], ids=["student-t", "normal"])
def test_new_run_interval_covers_simulated_runs(noise):
    post = synthetic.posterior(chinchilla(), RUNS, noise=noise, chains=4, draws=1000, seed=3)
    recipes = RECIPES.iloc[:4]
    found = predict(post, recipes, ci=0.8)
    rng = np.random.default_rng(0)
    total = 40_000
    draw = rng.integers(0, 4000, total)
    t = rng.standard_normal(total)
    if noise.kind == "student-t":
        nu = post.draws["nu"].reshape(-1)[draw]
        t = t / np.sqrt(rng.chisquare(nu) / nu)
    simulated = loss_draws(post, recipes)[draw] * np.exp(post.draws["sigma"].reshape(-1)[draw] * t)[:, None]
    below = (simulated < found.new_run_lower).mean(axis=0)
    above = (simulated > found.new_run_upper).mean(axis=0)
    # binomial sd .0015; 4000 draws stratified in the noise but not in the surface add about .005
    np.testing.assert_allclose(below, 0.1, atol=0.012)
    np.testing.assert_allclose(above, 0.1, atol=0.012)


def test_noise_without_surface_spread_is_the_noise_itself():
    post = synthetic.posterior(chinchilla(), RUNS, chains=1, draws=2000, spread=0.0)
    post.draws["nu"][...] = 5.0
    found = predict(post, RECIPES.iloc[:2])
    expected = scipy.stats.t.ppf(0.95, 5.0)
    np.testing.assert_allclose(np.log(found.new_run_upper / found.loss_mean) / 0.01, expected, rtol=5e-3)
    np.testing.assert_allclose(np.log(found.new_run_lower / found.loss_mean) / 0.01, -expected, rtol=5e-3)


def test_the_heaviest_tails_stay_finite():
    post = synthetic.posterior(chinchilla(), RUNS)
    post.draws["nu"][...] = 2.0001
    post.draws["sigma"][...] = 100.0
    found = predict(post, RECIPES.iloc[:2], ci=0.99)
    assert np.isfinite(found.new_run_lower).all()
    assert (found.new_run_upper > 1e30).all()


def test_groups_scatter_by_their_own_sigma():
    groups = ("de", "sw")
    post = synthetic.posterior(chinchilla(), RUNS, noise=student_t(by="language"), groups=groups)
    recipe = RECIPES.iloc[[0]]
    table = pd.concat([recipe] * 4, ignore_index=True).assign(language=["de", "sw", "xx", None])
    found = predict(post, table)
    width = np.log(found.new_run_upper / found.new_run_lower)
    assert width[1] > 1.2 * width[0]
    assert width[2] == width[3] == width[1]  # the largest scatter stands in
    assert [("NOISE_GROUP" in codes.split(";")) for codes in found.codes] == [False, False, True, True]
    (note,) = (note for note in found.notes if note.code == "NOISE_GROUP")
    assert "2 of 4" in note.message and "'sw'" in note.message
    assert note.about == ("language",)
    one_sigma = synthetic.posterior(chinchilla(), RUNS)
    np.testing.assert_allclose(
        numbers(predict(one_sigma, recipe))[0, 4:6], numbers(found)[0, 4:6], rtol=1e-12
    )


def test_numbered_groups_are_found():
    post = synthetic.posterior(chinchilla(), RUNS, noise=student_t(by="seed"), groups=("1.0", "2.0"))
    table = pd.concat([RECIPES.iloc[[0]]] * 2, ignore_index=True).assign(seed=[1, 2])
    assert not any("NOISE_GROUP" in codes for codes in predict(post, table).codes)


def test_groups_without_their_column_are_noted():
    post = synthetic.posterior(chinchilla(), RUNS, noise=student_t(by="language"), groups=("de", "sw"))
    assert "NOISE_GROUP" in [note.code for note in predict(post, RECIPES).notes]
    assert "NOISE_GROUP" not in [note.code for note in predict(post, RECIPES, new_run=False).notes]


def test_known_standard_errors_widen_a_new_run():
    post = synthetic.posterior(chinchilla(), RUNS, noise=normal(known=True), spread=0.0, chains=1, draws=4000)
    loss = predict(post, RECIPES.iloc[:1]).loss_mean[0]
    table = pd.concat([RECIPES.iloc[:1]] * 2, ignore_index=True).assign(loss_se=[np.nan, 0.02 * loss])
    found = predict(post, table)
    half_width = np.log(found.new_run_upper / found.loss_mean) / scipy.stats.norm.ppf(0.95)
    np.testing.assert_allclose(half_width, [0.01, np.hypot(0.01, 0.02)], rtol=5e-3)


def test_codes_name_the_recipes_concerned():
    largest = RUNS.frame().iloc[[int(np.argmax(RUNS.compute))]].drop(columns="loss")
    table = pd.concat([largest, largest.assign(params=1e12)], ignore_index=True)
    found = predict(POST, table)
    assert list(found.codes) == ["", "EXTRAPOLATION;BEYOND_30X"]
    assert found.extrapolation[0] == 0 < 1 < found.extrapolation[1]
    assert found.distances["params"][1] > 0
    assert {note.code for note in found.notes} == {"EXTRAPOLATION", "BEYOND_30X"}
    assert "params" in found.notes[0].about


@pytest.mark.parametrize("ci", [0, 1, -0.1, 90, float("nan")])
def test_refuses_intervals_that_are_none(ci):
    with pytest.raises(M3BayesError, match="between 0 and 1") as error:
        predict(POST, RECIPES, ci=ci)
    assert "\n" not in str(error.value)


def user_law(loss, columns=("params", "target_tokens", "epochs")):
    return law("mine", loss, (Coefficient("E", priors.floor()),), columns=columns)


def user_posterior(loss, **details) -> Posterior:
    draws = {"E": np.array([[1.0, 2.0, 3.0]]), "sigma": np.full((1, 3), 0.01), "nu": np.full((1, 3), 5.0)}
    return Posterior(user_law(loss, **details), student_t(), RUNS, draws)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 0.0])
@pytest.mark.parametrize("call", [predict, loss_draws])
def test_impossible_losses_name_law_recipe_and_draw(bad, call):
    post = user_posterior(lambda c, x: jnp.where((x["params"] > 5e8) & (c["E"] > 1.5), bad, c["E"]))
    table = RECIPES.iloc[:3].assign(params=[1e8, 1e9, 1e9])
    with pytest.raises(LawError, match=r"law mine .* recipe 2 .*params 1e\+09.* draw 2 .*E 2") as error:
        call(post, table)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("call", [predict, loss_draws])
def test_a_column_that_the_law_reads_must_be_there(call):
    post = user_posterior(lambda c, x: c["E"] + 0 * x["quality"], columns=("params", "quality"))
    with pytest.raises(RecipeError, match="quality"):
        call(post, RECIPES)


def test_a_law_of_extra_columns_alone():
    runs = runs_from_frame(RUNS.frame().assign(quality=np.linspace(0, 1, len(RUNS))))
    post = user_posterior(lambda c, x: c["E"] + x["quality"], columns=("quality",))
    post = Posterior(post.law, post.noise, runs, post.draws)
    found = predict(post, RECIPES.iloc[:2].assign(quality=[0.5, 9.0]))
    np.testing.assert_allclose(found.loss_mean, [2.5, 11.0])
    assert "quality" in found.notes[0].about


def test_one_compiled_size():
    post = synthetic.posterior(chinchilla(), RUNS, draws=50)
    predict(post, RECIPES.iloc[:1])
    before = module._summarise._cache_size()
    predict(post, RECIPES, ci=0.5)
    predict(post, pd.concat([RECIPES] * 5))
    assert module._summarise._cache_size() == before
