"""Plans: each number against its definition, slopes against finite differences, what is refused."""

from __future__ import annotations

import json

import jax
import numpy as np
import pandas as pd
import pytest

from m3bayes.decision import Plans, evaluate_plans, recommend
from m3bayes.errors import M3BayesError, RecipeError
from m3bayes.inference.predict import loss_draws, predict
from m3bayes.laws import chinchilla
from m3bayes.recipe import Recipe, schedule
from tests.decision import synthetic
from tests.decision.synthetic import CHINCHILLA, TRUTH, posterior, scattered

C, U = 1e14, 3e5
POST = posterior(scattered(TRUTH, 0, spread=0.02), synthetic.runs())
CHINCHILLA_POST = posterior(scattered(CHINCHILLA, 0), synthetic.runs(), chinchilla())
PLANS = {
    "mono": Recipe(2e6, U, 4.0),
    "mixed": Recipe(2e6, U, 4.0, 0.5, 0.5),
    "staged": Recipe(1e6, U, 6.0, 0.4, 0.9),
    "mono again": Recipe(2e6, U, 4.0),
}


@pytest.fixture(scope="module")
def found() -> Plans:
    return evaluate_plans(POST, PLANS)


def test_losses_are_what_predict_says(found):
    said = predict(POST, list(PLANS.values())).frame()
    for name in ("loss_mean", "loss_sd", "loss_lower", "loss_upper", "new_run_lower", "new_run_upper"):
        assert np.array_equal(found.table[name], said[name])
    assert list(found.table.index) == list(PLANS) and list(found.table["notes"]) == list(said["notes"])
    assert found.table.loc["mono", "compute"] == 6 * 2e6 * 4.0 * U
    assert "excess_mean" not in found.table and found.compute is None


def test_comparisons_are_those_of_the_draws(found):
    losses = loss_draws(POST, list(PLANS.values()))
    for i, one in enumerate(PLANS):
        for j, other in enumerate(PLANS):
            wins = [
                float(a < b) + 0.5 * float(a == b) for a, b in zip(losses[:, i], losses[:, j], strict=True)
            ]
            assert found.better.loc[one, other] == pytest.approx(np.mean(wins), abs=1e-12)
    assert found.better.loc["mono", "mono again"] == 0.5
    assert found.table["probability_best"].sum() == pytest.approx(1)
    assert found.table.loc["mono", "probability_best"] == found.table.loc["mono again", "probability_best"]
    regret = losses - losses.min(axis=1)[:, None]
    assert np.allclose(found.table["regret_mean"], regret.mean(axis=0), atol=1e-12)
    assert np.allclose(found.table["regret_upper"], np.quantile(regret, 0.95, axis=0), atol=1e-12)


@pytest.mark.parametrize("name", ["mixed", "staged"])
def test_slopes_are_finite_differences(found, name):
    plan, step = PLANS[name], 1e-5
    values = {
        n: getattr(plan, n) for n in ("params", "target_tokens", "epochs", "target_ratio", "final_ratio")
    }

    def mean_loss(**changed) -> float:
        with jax.enable_x64(True):
            c, x = POST.coefficients, values | changed
            return float(np.mean(jax.vmap(POST.law.loss, in_axes=(0, None))(c, x)))

    def logit(r: float, by: float) -> float:
        return 1 / (1 + np.exp(-np.log(r / (1 - r)) - by))

    r = values["target_ratio"]
    moved = {
        "slope_log_params": lambda h: {"params": values["params"] * np.exp(h)},
        "slope_log_epochs": lambda h: {"epochs": values["epochs"] * np.exp(h)},
        "slope_log_target_tokens": lambda h: {"target_tokens": U * np.exp(h)},
        "slope_logit_target_ratio": lambda h: {"target_ratio": logit(r, h)},
        "slope_final_ratio": lambda h: {"final_ratio": values["final_ratio"] + h},
    }
    for slope, to in moved.items():
        expected = (mean_loss(**to(step)) - mean_loss(**to(-step))) / 2 / step
        assert found.table.loc[name, slope] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_budget_holds_plans_against_each_draws_optimum():
    best = recommend(CHINCHILLA_POST, compute=C, target_tokens=U)
    plans = {"best": best.recipe, "small": Recipe(1e5, U, 4.0), "dear": Recipe(2e7, U, 16.0)}
    found = evaluate_plans(CHINCHILLA_POST, plans, compute=C)
    assert found.table.loc["best", "excess_mean"] == pytest.approx(best.regret.mean, rel=1e-9)
    assert found.table.loc["best", "excess_upper"] == pytest.approx(best.regret.upper, rel=1e-6)
    assert list(found.table["feasible"]) == [True, True, False]
    assert "more than compute" in found.table.loc["dear", "why_not"]
    assert (found.compute, found.target_tokens) == (C, U)


def test_all_forms_of_plans_say_the_same(found):
    frame = pd.DataFrame([{"run": n, **{f: getattr(p, f) for f in ("params", "target_tokens", "epochs",
                          "target_ratio", "final_ratio", "first_ratio")}} for n, p in PLANS.items()])  # fmt: skip
    for plans in (frame, list(PLANS.values()), [schedule(plan) for plan in PLANS.values()]):
        again = evaluate_plans(POST, plans)
        assert np.array_equal(again.table["loss_mean"], found.table["loss_mean"])
    assert list(evaluate_plans(POST, frame).table.index) == list(PLANS)
    assert list(again.table.index) == ["plan 1", "plan 2", "plan 3", "plan 4"]


def test_json_has_plain_numbers_alone(found):
    again = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert again["plans"]["mono"]["first_ratio"] is None and again["better"]["mono"]["mono"] == 0.5
    assert again["units"]["compute"] == "FLOP" and again["simulated_runs"] is False


@pytest.mark.parametrize(
    ("plans", "given", "said"),
    [
        (
            pd.DataFrame({"run": ["a", "a"], "params": [1e6] * 2, "target_tokens": U, "epochs": 1.0}),
            {},
            "twice",
        ),
        ([Recipe(1e6, U, 1.0), Recipe(1e6, 2 * U, 1.0)], {"compute": C}, "target_tokens runs from"),
        ([Recipe(1e6, U, 1.0)], {"ci": 1.0}, "ci is 1"),
        ([], {}, "none given"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(plans, given, said):
    with pytest.raises(M3BayesError, match=said) as caught:
        evaluate_plans(POST, plans, **given)
    assert "\n" not in str(caught.value) and issubclass(RecipeError, M3BayesError)
