"""What to measure next: against the closed form where all is linear and normal, and in campaigns of known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from m3bayes.decision import design, outcomes
from m3bayes.decision.budgets import recommended, request
from m3bayes.decision.candidate_runs import candidate_runs
from m3bayes.decision.design import next_runs
from m3bayes.errors import InfeasibleError, RecipeError
from m3bayes.inference.fit import fit
from m3bayes.laws import chinchilla, chinchilla_optimum
from tests.decision import synthetic
from tests.decision.synthetic import CHINCHILLA, posterior, scattered
from tests.inference import simulated

SCALE = 0.5


def linear(x: np.ndarray, goal: np.ndarray, flops: np.ndarray, number: int) -> design._Study:
    """theta ~ Normal(0, 1) in each dimension; y = x theta + SCALE t; to be known is goal theta."""
    random = np.random.default_rng(0)
    truths, draws = random.normal(size=(256, x.shape[1])), random.normal(size=(1500, x.shape[1]))
    results = outcomes.Outcomes(
        y=truths @ x.T + SCALE * random.normal(size=(256, len(x))),
        mean=draws @ x.T,
        scale=np.full((1500, len(x)), SCALE),
        nu=None,
    )
    return design._Study(
        results, lambda w: (truths @ goal - w @ (draws @ goal)) ** 2, flops, budget=10.0, number=number
    )


def posterior_variance(x: np.ndarray, goal: np.ndarray) -> float:
    return float(goal @ np.linalg.inv(np.eye(len(goal)) + x.T @ x / SCALE**2) @ goal)


def test_the_error_after_a_run_is_the_closed_form():
    x = np.array([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7], [0.2, 0.1]])
    goal = np.array([1.0, 1.0])
    study = linear(x, goal, np.ones(4), 4)
    nothing = design._nothing(study)
    assert nothing.cost.mean() == pytest.approx(2.0, abs=4 * design._se(nothing.cost))
    for row in range(4):
        step = design._measured(study, nothing, row)
        assert step.cost.mean() == pytest.approx(
            posterior_variance(x[[row]], goal), abs=4 * design._se(step.cost)
        )
    both = design._measured(study, design._measured(study, nothing, 0), 1)
    assert both.cost.mean() == pytest.approx(posterior_variance(x[:2], goal), abs=4 * design._se(both.cost))


def test_a_second_run_does_not_say_what_the_first_one_said():
    """Rows 0 and 1 are the same experiment; row 2 tells of the rest, a little less."""
    x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.8]])
    study = linear(x, np.ones(2), np.ones(3), 2)
    single = design._gains(study, design._nothing(study), np.arange(3))
    assert [round(step.gain.mean(), 1) for step in single[:2]] == pytest.approx([0.8, 0.8], abs=0.2)
    plan = design._greedy(study, lambda steps: [design._sure(s) for s in steps], single)
    assert {plan[0].row, plan[1].row} in ({0, 2}, {1, 2})


def test_a_cheaper_run_wins_a_flop():
    x = np.array([[1.0], [0.9]])
    study = linear(x, np.ones(1), np.array([4.0, 1.0]), 1)
    single = design._gains(study, design._nothing(study), np.arange(2))
    by_flop = design._greedy(
        study, lambda steps: [design._sure(s) / study.flops[s.row] for s in steps], single
    )
    assert by_flop[0].row == 1


def test_few_effective_draws_weaken_outcomes_and_never_the_ranks():
    random = np.random.default_rng(0)
    log_weights = random.normal(size=(50, 400)) * np.linspace(0.1, 40, 50)[:, None]
    weights = outcomes.weights_of(log_weights)
    ess = outcomes.effective(weights)
    assert np.all(ess >= outcomes.FEWEST * (1 - 1e-9)) and weights.sum(axis=1) == pytest.approx(1)
    sharp = outcomes.effective(outcomes.normalised(log_weights)) < outcomes.FEWEST
    assert 0 < sharp.sum() < 50 and ess[sharp] == pytest.approx(outcomes.FEWEST, rel=0.1)
    assert np.array_equal(np.argmax(weights, axis=1), np.argmax(log_weights, axis=1))


# --- a campaign ---------------------------------------------------------------------------------------------

TRUTH = simulated.CHINCHILLA
COMPUTE, TEXT, BUDGET = 1e23, 1e12, 3e20
ALONE = {"freeze": {"r": 1.0}, "bounds": {"N": (1e6, 1e13), "D": (1e6, 1e14), "k": (1e-6, 1.0)}}


def start(seed: int) -> pd.DataFrame:
    """Ten small runs, which leave the exponents loose."""
    rows = simulated.monolingual(10, seed)
    return rows.assign(
        params=rows["params"] ** 0.5 * 1e7**0.5 * 0.3, target_tokens=rows["target_tokens"] ** 0.5 * 2e8**0.5
    )


def regret(table: pd.DataFrame, seed: int) -> float:
    """Loss of what is recommended after a campaign above the truth's optimum."""
    runs = simulated.measured(chinchilla(), TRUTH, table, seed=seed)
    post = fit(runs, chinchilla(), seed=0, draws=300, allow="flagged")
    asked = request(post, None, ALONE["bounds"], ALONE["freeze"], 256)
    recipe, *_ = recommended(asked, asked.at(COMPUTE, TEXT))
    N, D = recipe.params, recipe.tokens
    best = chinchilla_optimum(TRUTH, COMPUTE)

    def loss(N, D):
        return TRUTH["E"] + TRUTH["A"] * N ** -TRUTH["alpha"] + TRUTH["B"] * D ** -TRUTH["beta"]

    return float(loss(N, D) - loss(*best))


def test_campaigns_of_chosen_runs_beat_random_ones():
    chosen, randomly = [], []
    for seed in range(2):
        first = start(seed)
        post = fit(
            simulated.measured(chinchilla(), TRUTH, first, seed=seed), chinchilla(), seed=0, draws=300,
            allow="flagged",
        )  # fmt: skip
        grid = [(N, D) for N in np.geomspace(1e7, 1e10, 4) for D in np.geomspace(1e8, 1e11, 5)]
        options = pd.DataFrame(
            [
                {"params": N, "target_tokens": D, "epochs": 1.0, "target_ratio": 1.0, "final_ratio": 1.0}
                for N, D in grid
            ]
        )
        plan = next_runs(
            post, options, compute=COMPUTE, target_tokens=TEXT, budget=BUDGET, number=3, seed=seed, **ALONE
        )
        assert plan.after < plan.before and plan.runs["flops"].sum() <= BUDGET
        assert not plan.runs["row"].duplicated().any()
        chosen.append(regret(pd.concat([first, options.iloc[plan.runs["row"]]], ignore_index=True), seed))
        random = np.random.default_rng(seed)
        affordable = options[6 * options["params"] * options["target_tokens"] <= BUDGET / 3]
        for _ in range(2):
            rows = affordable.iloc[random.choice(len(affordable), 3, replace=False)]
            randomly.append(regret(pd.concat([first, rows], ignore_index=True), seed))
    assert np.mean(chosen) < np.mean(randomly)


# --- the face -----------------------------------------------------------------------------------------------

POST = posterior(scattered(CHINCHILLA, 0, spread=0.002), synthetic.runs(), chinchilla())
ASK = {"compute": 1e14, "target_tokens": 3e5, "budget": 1e13, "freeze": {"r": 1.0}}


@pytest.fixture(scope="module")
def found() -> design.NextRuns:
    return next_runs(POST, **ASK)


def test_a_plan_is_compared_and_keeps_to_its_budget(found):
    assert found.runs["flops"].sum() <= 1e13
    assert {"largest run", "nothing", "random plans, mean"} <= set(found.against.index)
    assert found.against.loc["nothing", "after"] == pytest.approx(found.before)
    assert found.against["after"].iloc[0] == pytest.approx(found.after)
    assert np.all(found.single["flops"] <= 1e13)


def test_a_quantity_can_be_the_goal():
    plan = next_runs(POST, **ASK, number=2, goal=lambda c: np.log(c["alpha"]))
    assert len(plan.runs) <= 2 and plan.after <= plan.before
    with pytest.raises(RecipeError, match="expected a finite one a draw"):
        next_runs(POST, **ASK, goal=lambda c: np.nan * c["alpha"])


def test_candidates_keep_to_the_runs_and_to_the_budget():
    table, runs = candidate_runs(POST, 1e12), synthetic.runs()
    D = table["epochs"] * table["target_tokens"] / table["target_ratio"]
    assert np.all(6 * table["params"] * D <= 1e12)
    for name in ("params", "target_tokens", "epochs", "target_ratio", "final_ratio"):
        assert runs[name].min() * (1 - 1e-9) <= table[name].min()
        assert table[name].max() <= runs[name].max() * (1 + 1e-9)
    assert {0, 1} == set((table["final_ratio"] > table["target_ratio"]).astype(int))
    assert candidate_runs(POST, 1e12).equals(table)
    with pytest.raises(InfeasibleError, match=r"costs at most 10 FLOP"):
        candidate_runs(POST, 10.0)


def test_a_budget_too_small_is_said():
    table = candidate_runs(POST, 1e12)
    with pytest.raises(InfeasibleError, match=r"the cheapest costs .*; raise the budget"):
        next_runs(POST, table, **(ASK | {"budget": 1e3}))
    with pytest.raises(RecipeError, match="budget is -1"):
        next_runs(POST, table, **(ASK | {"budget": -1.0}))
