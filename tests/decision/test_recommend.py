"""recommend: what comes out, against its own definitions; baselines, regimes, regret, the near-optimal set, notes."""

from __future__ import annotations

import dataclasses
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from m3bayes.decision import Recommendation, recommend
from m3bayes.errors import InfeasibleError, LawError, M3BayesError, Note, RecipeError
from m3bayes.inference.predict import loss_draws, predict
from m3bayes.laws import Coefficient, chinchilla, law, named
from m3bayes.laws.priors import floor
from m3bayes.recipe import Recipe, recipe
from tests.decision import synthetic
from tests.decision.synthetic import CHINCHILLA, DRAWS, TRUTH, posterior, scattered

C, U = 1e14, 3e5
POST = posterior(scattered(TRUTH, 0, spread=0.02), synthetic.runs())
CHINCHILLA_POST = posterior(scattered(CHINCHILLA, 0), synthetic.runs(), chinchilla())


def ask(post=POST, **request) -> Recommendation:
    return recommend(post, **({"compute": C, "target_tokens": U} | request))


def codes(found: Recommendation) -> list[str]:
    return [note.code for note in found.notes]


@pytest.fixture(scope="module")
def found() -> Recommendation:
    own = {
        "mine": Recipe(1e6, U, 16.0, 1.0, 1.0),
        "other text": Recipe(1e6, 1e5, 16.0, 1.0, 1.0),
        "too dear": Recipe(2e7, U, 16.0, 1.0, 1.0),
        "short last stage": Recipe(1e6, U, 4.0, 0.1, 1.0),
    }
    return ask(baselines=own)


def test_the_recipe_keeps_to_the_runs_and_to_the_budget(found):
    runs, best = synthetic.runs(), found.recipe
    assert 6 * best.params * best.tokens <= C
    assert found.compute_used + found.compute_unused == pytest.approx(C, rel=1e-12)
    assert found.compute_used == pytest.approx(6 * best.params * best.tokens)
    for name, column in {"params": runs["params"], "epochs": runs["epochs"], "target_ratio": runs["target_ratio"],
                         "tokens": runs.tokens, "source_tokens": runs.source_tokens}.items():  # fmt: skip
        assert column.min() * (1 - 1e-9) <= getattr(best, name) <= column.max() * (1 + 1e-9)
    assert recipe(found.schedule) == best


def test_its_loss_is_what_predict_says(found):
    said = predict(POST, found.recipe, ci=0.9)
    assert found.loss.mean == said.loss_mean[0] and found.loss.sd == said.loss_sd[0]
    assert (found.loss.lower, found.loss.upper) == (said.loss_lower[0], said.loss_upper[0])
    assert (found.loss.new_run_lower, found.loss.new_run_upper) == (
        said.new_run_lower[0],
        said.new_run_upper[0],
    )
    assert found.loss.lower < found.loss.mean < found.loss.upper


def test_regret_is_against_each_draws_own_optimum(found):
    mine = loss_draws(POST, found.recipe)[:, 0]
    assert np.all(found.regret.draws >= 0)
    assert found.regret.draws == pytest.approx(mine - found.optimum.draws["loss"], abs=1e-12)
    assert found.regret.mean == pytest.approx(found.regret.draws.mean())
    assert found.regret.lower <= found.regret.median <= found.regret.upper


def test_each_draws_optimum_has_its_loss_and_its_budget(found):
    at = found.optimum.draws
    assert np.all(6 * at["params"] * at["tokens"] <= C * (1 + 1e-9))
    columns = {name: at[name] for name in ("params", "epochs", "target_ratio", "final_ratio")}
    again = loss_draws(POST, {**columns, "target_tokens": np.full(DRAWS, U)})
    assert np.diag(again) == pytest.approx(at["loss"], rel=1e-12)
    # no draw has a better recipe among those of the others
    assert np.all(again >= at["loss"][:, None] * (1 - 1e-9))
    summary = found.optimum.summary
    assert list(summary.index) == ["params", "epochs", "target_ratio", "final_ratio", "tokens", "loss"]
    assert summary.loc["params", "median"] == np.median(at["params"])
    assert np.all(summary["lower"] <= summary["upper"])


def test_regimes_are_nested_and_their_probabilities_sum_to_one(found):
    table = found.regimes
    assert list(table.index) == ["monolingual", "single-stage", "two-stage"]
    assert table["probability_best"].sum() == pytest.approx(1)
    best = {name: np.mean(found.optimum.regime == name) for name in table.index}
    assert dict(table["probability_best"]) == pytest.approx(best)
    assert math.isnan(table.loc["monolingual", "gain_mean"])
    assert table.loc["single-stage", "gain_lower"] >= -1e-9  # monolingual is one of its recipes
    assert found.regime in table.index and np.all(table["loss_mean"] >= found.loss.mean * (1 - 1e-8))


def test_gains_are_counted_above_the_margin():
    rows = [ask(margin=margin).regimes.loc["single-stage"] for margin in (0.0, 10.0)]
    assert rows[0]["probability_gain"] > rows[1]["probability_gain"] == 0
    assert rows[0]["gain_mean"] == rows[1]["gain_mean"]


def test_a_baseline_is_never_better_unless_it_is_infeasible(found):
    table = found.baselines
    standing = ["4 epochs monolingual", "k = D*(C) / D_T", "temperature sampling"]
    assert list(table.index) == [*standing, "mine", "other text", "too dear", "short last stage"]
    feasible = table[table["feasible"].astype(bool)]
    assert {"4 epochs monolingual", "mine"} <= set(feasible.index)
    assert np.all(feasible["excess_mean"] >= 0)
    assert "target_tokens" in table.loc["other text", "why_not"]
    assert "more than compute" in table.loc["too dear", "why_not"]
    assert "last_stage_share" in table.loc["short last stage", "why_not"]
    mine = loss_draws(POST, [Recipe(1e6, U, 16.0), found.recipe])
    assert table.loc["mine", "excess_mean"] == pytest.approx(np.mean(mine[:, 0] - mine[:, 1]))


def test_the_standing_baselines_are_what_they_say(found):
    table = found.baselines
    four = table.loc["4 epochs monolingual"]
    assert (four["epochs"], four["target_ratio"], four["tokens"]) == (4.0, 1.0, 4 * U)
    sampled = table.loc["temperature sampling"]
    S = synthetic.runs().source_tokens.max()
    assert sampled["target_ratio"] == sampled["final_ratio"] == pytest.approx(U**0.3 / (U**0.3 + S**0.3))


def test_fresh_text_is_worth_what_chinchilla_says():
    post = CHINCHILLA_POST
    row = ask(post, bounds={"epochs": (0, math.inf), "tokens": (0, math.inf)}).baselines.loc[
        "k = D*(C) / D_T"
    ]
    c = post.coefficients
    G = (c["alpha"] * c["A"] / (c["beta"] * c["B"])) ** (1 / (c["alpha"] + c["beta"]))
    D = (C / 6) ** (c["alpha"] / (c["alpha"] + c["beta"])) / G
    assert row["epochs"] == pytest.approx(np.exp(np.mean(np.log(D))) / U, rel=1e-6)
    assert row["compute"] == pytest.approx(C, rel=1e-9)


def test_a_baseline_of_another_kind_that_is_better_is_recommended():
    """Runs that end on the source are no regime of the search, but a caller may bring one."""
    c = scattered(TRUTH | {"gamma": -1.5, "omega": 4.0}, 1)
    runs = synthetic.runs()
    ends_on_source = Recipe(5e6, U, 4.0, 0.5, 0.1, 0.6)
    share = {"last_stage_share": (0.05, 1.0)}
    request = {"bounds": share | {"target_ratio": (0.5, 1.0)}, "baselines": {"back": ends_on_source}}
    found = ask(posterior(c, runs), **request)
    assert found.recipe == ends_on_source and "BASELINE_BEST" in codes(found)
    assert np.all(found.regret.draws >= 0) and found.baselines.loc["back", "excess_mean"] == 0


def test_near_optimal_recipes_are_near_optimal(found):
    near = found.near_optimal
    assert near.size == len(near.recipes) > 10
    columns = {
        name: near.recipes[name].to_numpy() for name in ("params", "epochs", "target_ratio", "final_ratio")
    }
    losses = loss_draws(POST, {**columns, "target_tokens": np.full(near.size, U)})
    inside = np.mean(losses <= (found.optimum.draws["loss"] + 0.005)[:, None], axis=0)
    assert inside == pytest.approx(near.recipes["probability"]) and np.all(inside >= 0.9)
    for name, (low, high) in near.ranges.items():
        assert (low, high) == (columns[name].min(), columns[name].max())
    assert near.probability_recommended == np.mean(found.regret.draws <= 0.005)


def test_the_near_optimal_set_grows_with_the_tolerance_and_may_be_empty():
    post = posterior(scattered(TRUTH, 2, spread=0.3), synthetic.runs())
    none, some, more = (ask(post, tolerance=tolerance) for tolerance in (1e-5, 0.05, 5.0))
    assert (
        none.near_optimal.size == 0 and none.near_optimal.ranges == {} and "NEAR_OPTIMAL_EMPTY" in codes(none)
    )
    assert "NEAR_OPTIMAL_EMPTY" not in codes(more) and some.near_optimal.size < more.near_optimal.size
    # all that is feasible is within a tolerance that large: the ranges are nearly the bounds
    low, high = more.near_optimal.ranges["target_ratio"]
    assert (low, high) == pytest.approx((0.1, 1.0))
    assert none.recipe == more.recipe


@settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(
    compute=st.floats(12, 15).map(lambda x: 10**x),
    freeze=st.sampled_from(
        [{"r": 1.0}, {"k": 4.0}, {"N": 1e5, "r_f": 1.0}, {"r": 0.3, "share": 0.4}, {"D": 2e6}, {"S": 1e5}]
    ),
)
def test_what_is_frozen_stays(compute, freeze):
    found = ask(compute=compute, freeze=freeze)
    names = {
        "r": "target_ratio",
        "r_f": "final_ratio",
        "k": "epochs",
        "N": "params",
        "share": "last_stage_share",
    }
    for letter, value in freeze.items():
        if letter in ("D", "S", "share"):  # not a variable of a recipe but computed from some
            name = {"D": "tokens", "S": "source_tokens"} | names
            assert getattr(found.recipe, name[letter]) == pytest.approx(value, rel=1e-9)
        else:
            assert getattr(found.recipe, names[letter]) == value
    assert 6 * found.recipe.params * found.recipe.tokens <= compute


def test_bounds_hold_exactly_and_binding_ones_are_noted():
    found = ask(bounds={"params": (None, 2e5), "epochs": (2.0, 3.0)})
    assert found.recipe.params == 2e5 and found.recipe.epochs == 3.0
    binding = [note for note in found.notes if note.code == "AT_BOUND"]
    assert {name for note in binding for name in note.about} >= {"params", "epochs"}
    assert "COMPUTE_UNUSED" in codes(found) and found.compute_unused > 0.5 * C


def test_a_variable_that_no_run_varied_is_frozen():
    post = posterior(scattered(TRUTH, 0), synthetic.runs(only="params == 1e6"))
    found = ask(post, compute=1e15)
    assert found.recipe.params == 1e6 and np.all(found.optimum.draws["params"] == pytest.approx(1e6))
    with pytest.raises(InfeasibleError, match="params >= 1e\\+06"):
        ask(post, compute=1e11)


def test_regimes_that_no_run_had_are_left_out_and_said():
    post = posterior(scattered(TRUTH, 0), synthetic.runs(only="target_ratio == 1"))
    found = ask(post)
    assert found.regime == "monolingual" and codes(found).count("REGIME_EXCLUDED") >= 1
    assert found.regimes.loc["two-stage", "probability_best"] == 0
    assert "no run had two stages" in found.regimes.loc["two-stage", "excluded"]
    assert found.recipe.target_ratio == 1 and found.recipe.source_tokens == 0


def test_units_do_not_matter():
    """A table in millions and thousands, and coefficients that say the same in those units."""
    c, plain = scattered(TRUTH, 0, spread=0.02), ask()
    scaled = dict(c)
    scaled["A"] = c["A"] * 1e6 ** -c["alpha"]
    scaled["B"] = c["B"] * 1e3 ** -c["beta"]
    scaled["P"] = c["P"] * (1e6 / 1e3) ** c["kappa"]
    found = ask(posterior(scaled, synthetic.runs(1e6, 1e3)), target_tokens=U / 1e3)
    assert found.recipe.params * 1e6 == pytest.approx(plain.recipe.params, rel=1e-5)
    for name in ("epochs", "target_ratio", "final_ratio"):
        assert getattr(found.recipe, name) == pytest.approx(getattr(plain.recipe, name), rel=1e-5)
    assert found.loss.mean == pytest.approx(plain.loss.mean, rel=1e-9)
    assert found.regret.mean == pytest.approx(plain.regret.mean, rel=1e-3, abs=1e-8)


def test_a_users_cost_function():
    def with_overhead(N, D):
        return 6 * (N + 100.0 * jnp.sqrt(N)) * D

    found = ask(CHINCHILLA_POST, cost=with_overhead)
    N, D = found.recipe.params, found.recipe.tokens
    assert 6 * (N + 100 * math.sqrt(N)) * D <= C * (1 + 1e-12)
    assert found.compute_used == pytest.approx(C, rel=1e-9) and found.cost == "with_overhead"
    assert found.loss.mean >= ask(CHINCHILLA_POST).loss.mean
    with pytest.raises(RecipeError, match="increases in both"):
        ask(CHINCHILLA_POST, cost=lambda N, D: 1.0)


def test_a_law_of_target_tokens_trains_on_target_text_alone():
    found = ask(CHINCHILLA_POST)
    assert found.regime == "monolingual"
    assert found.regimes.loc["monolingual", "probability_best"] == 1


def test_json_has_plain_numbers_alone(found):
    text = json.dumps(found.to_json(), allow_nan=False)
    again = json.loads(text)
    assert again["recipe"]["params"] == found.recipe.params
    assert [stage["tokens"] for stage in again["schedule"]] == [
        stage.tokens for stage in found.schedule.stages
    ]
    assert again["regimes"]["monolingual"]["gain_mean"] is None
    assert again["baselines"]["mine"]["feasible"] is True
    assert again["units"]["compute"] == "FLOP" and again["simulated_runs"] is False
    assert set(again) >= {"loss", "optimum", "regret", "near_optimal", "notes", "compute_unused", "bounds"}


def test_the_same_request_gives_the_same_answer():
    one, two = ask(seed=3), ask(seed=3)
    assert json.dumps(one.to_json()) == json.dumps(two.to_json())
    assert ask(seed=4).recipe == one.recipe


def test_a_flagged_posterior_and_a_far_budget_are_said():
    flagged = dataclasses.replace(POST, verdict="flagged", notes=(Note("RHAT", "chains disagree"),))
    found = ask(flagged, compute=1e18)
    assert {"POSTERIOR_FLAGGED", "BEYOND_30X"} <= set(codes(found))


@pytest.mark.parametrize(
    ("request_", "error", "said"),
    [
        ({"compute": 1e9}, InfeasibleError, "already cost"),
        (
            {"freeze": {"r": 0.5, "r_f": 0.5}, "bounds": {"S": (0, 0)}},
            InfeasibleError,
            r"source_tokens <= 0 \(asked for\), which leaves no source text, and final_ratio <= 0\.5",
        ),
        (
            {"bounds": {"S": (1e9, 1e12)}},
            InfeasibleError,
            r"source_tokens >= 1e\+09 \(asked for\) and tokens <= \S+ \(runs\) exclude each other",
        ),
        ({"bounds": {"D": (0, 0)}}, InfeasibleError, r"tokens >= 1 \(one token\) and tokens <= 0"),
        ({"ci": 1.5}, RecipeError, "ci is 1.5"),
        ({"tolerance": -1.0}, RecipeError, "tolerance is -1.0"),
        ({"baselines": {"4 epochs monolingual": Recipe(1e6, U, 4.0)}}, RecipeError, "another name"),
        ({"bounds": {"depth": (1, 2)}}, RecipeError, "no variable 'depth'"),
    ],
)
def test_bad_requests_are_one_line(request_, error, said):
    with pytest.raises(error, match=said) as caught:
        ask(**request_)
    assert isinstance(caught.value, M3BayesError) and "\n" not in str(caught.value)


def test_a_law_without_finite_losses_is_refused():
    nowhere = law(
        "nowhere",
        lambda c, x: c["E"] * jnp.log(-x["params"]),
        (Coefficient("E", floor(), "loss", of_loss=True),),
    )
    with pytest.raises(LawError, match="no finite loss") as caught:
        ask(posterior({"E": np.ones(DRAWS)}, synthetic.runs(), nowhere))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["data_constrained", "atlas"])
def test_other_laws_get_a_recommendation(name):
    each = named(name)
    rng = np.random.default_rng(0)
    sizes = {"A": 15.0, "B": 30.0, "E": 0.9, "P": 0.005, "tau": 0.3, "L0": 6.0}
    c = {coefficient.name: sizes.get(coefficient.name, 0.3) * np.exp(rng.normal(0, 0.05, DRAWS))
         for coefficient in each.coefficients}  # fmt: skip
    found = ask(posterior(c, synthetic.runs(), each))
    feasible = found.baselines[found.baselines["feasible"].astype(bool)]
    assert len(feasible) and np.all(feasible["excess_mean"] >= -1e-12)
    assert np.all(found.regret.draws >= 0)
