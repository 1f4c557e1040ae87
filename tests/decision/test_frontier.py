"""Recommending under every risk, and the mean-CVaR frontier: never beaten where it should be best."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3bayes.decision import Recommendation, Risk, frontier, recommend, risk
from m3bayes.decision.constraints import at_most
from m3bayes.decision.cost import money
from m3bayes.decision.frontier import undominated
from m3bayes.errors import RecipeError
from m3bayes.inference.predict import loss_draws
from m3bayes.laws import chinchilla
from tests.decision import synthetic
from tests.decision.synthetic import CHINCHILLA, posterior, scattered

C, U = 1e14, 3e5
POST = posterior(scattered(CHINCHILLA, 0, spread=0.2), synthetic.runs(), chinchilla())
REQUEST = {
    "compute": C,
    "target_tokens": U,
    "freeze": {"r": 1.0},
    "bounds": {"k": (0.01, 1e3), "D": (1e3, 1e9)},
}
RISKS = (
    risk.mean(),
    risk.quantile(0.8),
    risk.cvar(0.8),
    risk.regret_quantile(0.8),
    risk.regret_cvar(0.8),
    Risk("mean of squares", lambda losses: jnp.mean(losses**2)),
    Risk("mean regret", jnp.mean, of_regret=True),
)


@pytest.fixture(scope="module")
def found() -> dict[str, Recommendation]:
    # a loss that about half of the draws can reach
    middle = float(np.median(loss_draws(POST, recommend(POST, **REQUEST).recipe)))
    risks = (*RISKS, risk.probability_of(middle))
    return {each.name: recommend(POST, risk=each, **REQUEST) for each in risks}


def exactly(measured: Risk, best: Recommendation, losses: np.ndarray) -> float:
    with jax.enable_x64(True):
        return float(
            measured(jnp.asarray(losses - best.optimum.draws["loss"] if measured.of_regret else losses))
        )


@pytest.mark.parametrize("number", range(len(RISKS) + 1))
def test_no_other_risks_optimum_and_no_baseline_has_a_smaller_risk(found, number):
    name, best = list(found.items())[number]
    measured = RISKS[number] if number < len(RISKS) else risk.probability_of(float(name.split()[-1][:-1]))
    assert best.risk == name
    own = exactly(measured, best, loss_draws(POST, best.recipe)[:, 0])
    for other in found.values():
        theirs = exactly(measured, best, loss_draws(POST, other.recipe)[:, 0])
        # kinks are approached, not hit
        assert own <= theirs * (1 + 1e-5), other.risk
    feasible = best.baselines[best.baselines["feasible"].astype(bool)]
    for row in feasible.itertuples():
        columns = {"params": row.params, "target_tokens": U, "epochs": row.epochs}
        assert own <= exactly(measured, best, loss_draws(POST, columns)[:, 0])


def test_the_expected_regret_has_the_means_optimum(found):
    by_loss, by_regret = found["mean"], found["mean regret"]
    assert by_regret.loss.mean == pytest.approx(by_loss.loss.mean, rel=1e-12)
    assert by_regret.recipe.epochs == pytest.approx(by_loss.recipe.epochs, rel=1e-5)
    assert found["mean regret"].regret.mean == pytest.approx(by_loss.regret.mean, rel=1e-9)


def test_a_quantile_is_as_small_as_on_a_dense_grid(found):
    D = np.exp(np.linspace(np.log(1e5), np.log(1e9), 4001))
    runs, N = synthetic.runs(), C / 6 / D
    inside = (runs["params"].min() <= N) & (runs["params"].max() >= N)
    losses = loss_draws(
        POST, {"params": N[inside], "target_tokens": np.full(inside.sum(), U), "epochs": D[inside] / U}
    )
    for measured in (risk.quantile(0.8), risk.regret_quantile(0.8), risk.regret_cvar(0.8)):
        best = found[measured.name]
        own = exactly(measured, best, loss_draws(POST, best.recipe)[:, 0])
        dense = min(exactly(measured, best, values) for values in losses.T[::5])
        assert own <= dense * (1 + 1e-4)


@pytest.fixture(scope="module")
def curve():
    return frontier(POST, level=0.8, weights=(0.0, 0.5, 1.0), **REQUEST)


def test_the_frontier_runs_from_the_least_mean_to_the_least_tail(found, curve):
    table = curve.table
    assert np.all(np.diff(table["mean"]) >= 0) and np.all(np.diff(table["cvar"]) < 0)
    assert table["mean"].iloc[0] == pytest.approx(found["mean"].regret.mean, rel=1e-8)
    tail = found["regret-cvar:0.8"]
    own = exactly(risk.regret_cvar(0.8), tail, loss_draws(POST, tail.recipe)[:, 0])
    assert table["cvar"].iloc[-1] == pytest.approx(own, rel=1e-4)
    for recipe, mean in zip(curve.recipes, table["loss_mean"], strict=True):
        assert mean == pytest.approx(loss_draws(POST, recipe).mean())
        assert 6 * recipe.params * recipe.tokens <= C
    assert json.loads(json.dumps(curve.to_json(), allow_nan=False))["recipes"][0]["weight"] == 0


def test_dominated_points_are_dropped():
    points = np.array([[1.0, 5.0], [2.0, 6.0], [2.0, 3.0], [1.0, 5.0], [3.0, 3.0], [4.0, 1.0]])
    assert undominated(points, 0.0) == [0, 2, 5]


@pytest.mark.parametrize("given", [{"weights": ()}, {"weights": (2.0,)}, {"level": 1.0}])
def test_weights_and_levels_that_are_none_are_refused(given):
    with pytest.raises(RecipeError, match="expected"):
        frontier(POST, **REQUEST, **given)


def test_a_constraint_moves_the_whole_frontier(curve):
    """As a bound there; a second budget of half the compute is half the compute."""
    few = {**REQUEST, "level": 0.8, "weights": (0.0, 1.0)}
    most = 0.5 * min(recipe.params for recipe in curve.recipes)
    small = frontier(POST, constraints=[at_most("N", most)], **few)
    assert all(recipe.params <= most * (1 + 1e-9) for recipe in small.recipes)
    # regret counts from the optimum within the constraint
    assert small.table["loss_mean"].min() > curve.table["loss_mean"].min()
    best = recommend(POST, constraints=[at_most("N", most)], **REQUEST)
    assert small.table["loss_mean"].iloc[0] == pytest.approx(best.loss.mean, rel=1e-9)
    paid = frontier(POST, constraints=[at_most(money(1.0 / C), 0.5)], **few)
    half = frontier(POST, **{**few, "compute": C / 2})
    assert all(6 * recipe.params * recipe.tokens <= C / 2 * (1 + 1e-9) for recipe in paid.recipes)
    np.testing.assert_allclose(
        paid.table[["mean", "cvar", "loss_mean"]].iloc[[0, -1]],
        half.table[["mean", "cvar", "loss_mean"]].iloc[[0, -1]],
        rtol=1e-6,
    )
