"""continue_from: against a dense grid over (D_2, r_f), and against recommend where there is hardly a checkpoint."""

from __future__ import annotations

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from m3bayes.decision import recommend, risk
from m3bayes.decision.constraints import at_most
from m3bayes.decision.continuing import Checkpoint, Continuation, continue_from
from m3bayes.decision.cost import hours
from m3bayes.errors import InfeasibleError, M3BayesError, RecipeError
from m3bayes.inference.predict import loss_draws, predict
from tests.decision import synthetic
from tests.decision.synthetic import TRUTH, posterior, scattered

C, U, N = 3e13, 3e5, 1e6
RUNS = synthetic.runs()
POST = posterior(scattered(TRUTH, 0, spread=0.05), RUNS)
FRESH, MIXED = Checkpoint(N, 3e6), Checkpoint(N, 2e6, 0.2)


def ask(checkpoint: Checkpoint = FRESH, **request) -> Continuation:
    return continue_from(POST, checkpoint, **({"compute": C, "target_tokens": U} | request))


def dense(checkpoint: Checkpoint, compute: float = C, points: int = 150) -> tuple[dict, np.ndarray]:
    """Feasible recipes on a grid over (D_2, r_f), straight from the definitions, and their losses (draw, recipe)."""
    D_1, r_1 = checkpoint.tokens, checkpoint.target_ratio
    most = compute / 6 / checkpoint.params
    D_2 = np.geomspace(1e3, most, points) * (1 - 1e-12)
    last = np.append(np.geomspace(0.1, 1.0, points), [r_1] if r_1 else [])
    D_2, last = (each.ravel() for each in np.meshgrid(D_2, last))
    D, T = D_1 + D_2, r_1 * D_1 + last * D_2
    k, r, share = T / U, T / D, np.where(last == r_1, np.nan, D_2 / D)
    inside = (k >= 0.7) & (k <= 16) & (r >= 0.1) & (r <= 1) & (RUNS.tokens.min() <= D)
    inside &= (RUNS.tokens.max() >= D) & (RUNS.source_tokens.max() >= D - T)
    inside &= np.isnan(share) | ((share >= 0.2) & (share <= 0.5))
    columns = {"params": np.full(D.shape, N), "epochs": k, "target_ratio": r, "final_ratio": last,
               "target_tokens": np.full(D.shape, U), "first_ratio": np.full(D.shape, r_1)}  # fmt: skip
    columns = {name: values[inside] for name, values in columns.items()}
    assert inside.sum() > 500
    return columns, loss_draws(POST, columns)


@pytest.mark.parametrize("checkpoint", [FRESH, MIXED], ids=["source", "mixed"])
def test_no_stage_of_a_dense_grid_is_better(checkpoint):
    found = ask(checkpoint)
    _, losses = dense(checkpoint)
    assert np.all(found.draws["loss"] <= losses.min(axis=1) * (1 + 1e-12))
    assert found.draws["loss"] == pytest.approx(losses.min(axis=1), rel=2e-3)
    assert found.loss.mean <= losses.mean(axis=0).min()
    assert found.loss.mean == pytest.approx(losses.mean(axis=0).min(), rel=2e-3)


@pytest.mark.parametrize("minimised", [risk.cvar(0.8), risk.regret_quantile(0.9)], ids=lambda each: each.name)
def test_other_risks_too(minimised):
    found = ask(MIXED, risk=minimised)
    _, losses = dense(MIXED, points=60)
    base = found.draws["loss"] if minimised.of_regret else 0.0
    mine = loss_draws(POST, found.recipe)[:, 0]
    risks = [float(minimised(jnp.asarray(column - base))) for column in losses.T]
    assert float(minimised(jnp.asarray(mine - base))) <= min(risks) + 1e-6
    assert found.risk == minimised.name


@pytest.mark.parametrize("checkpoint", [FRESH, MIXED], ids=["source", "mixed"])
def test_the_parts_belong_together(checkpoint):
    found, best = ask(checkpoint), ask(checkpoint).recipe
    D_2, D_1, r_1 = found.stage.tokens, checkpoint.tokens, checkpoint.target_ratio
    assert best.params == N and best.tokens == pytest.approx(D_1 + D_2, rel=1e-12)
    assert best.target_tokens_seen == pytest.approx(r_1 * D_1 + found.stage.target_ratio * D_2, rel=1e-9)
    assert best.first_ratio in (None, r_1) and found.stage.target_ratio == best.final_ratio
    assert found.schedule.stages[0].tokens == D_1 and found.schedule.tokens == pytest.approx(best.tokens)
    # only new tokens cost
    assert found.compute_used == pytest.approx(6 * N * D_2, rel=1e-9) and found.compute_used <= C
    said = predict(POST, best)
    assert (found.loss.mean, found.loss.upper) == (said.loss_mean[0], said.loss_upper[0])
    assert np.all(found.regret.draws >= 0) and list(found.optimum.index) == [*found.draws]
    feasible = found.baselines[found.baselines["feasible"].to_numpy(bool)]
    assert np.all(feasible["excess_mean"] >= -1e-9)
    assert np.all(found.constraints["relative"].dropna() >= -1e-9)
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["stage"]["tokens"] == D_2 and written["checkpoint"]["tokens"] == D_1


def test_with_hardly_a_checkpoint_it_is_recommend():
    """Of D_1 -> 0 tokens at r_1, to go on with another mixture is one stage of that mixture."""
    free = {"bounds": {"share": (0, 1)}}
    found = ask(Checkpoint(N, 1e-3), **free)
    whole = recommend(POST, compute=C, target_tokens=U, freeze={"N": N, "share": 1.0})
    assert found.loss.mean == pytest.approx(whole.loss.mean, rel=1e-6)
    for name in ("epochs", "target_ratio", "tokens"):
        assert getattr(found.recipe, name) == pytest.approx(getattr(whole.recipe, name), rel=1e-3)
    assert found.draws["loss"] == pytest.approx(whole.optimum.draws["loss"], rel=1e-6)


def test_more_compute_never_harms_and_a_second_budget_holds():
    losses = [ask(compute=compute).draws["loss"] for compute in (1e13, 2e13, 4e13)]
    assert np.all(losses[1] <= losses[0] * (1 + 1e-9)) and np.all(losses[2] <= losses[1] * (1 + 1e-9))
    tight = ask(constraints=[at_most(hours(1e10), 1e13 / 1e10 / 3600)])
    assert tight.compute_used == pytest.approx(1e13, rel=1e-9)
    assert tight.draws["loss"] == pytest.approx(losses[0], rel=1e-9)
    assert [n.about for n in tight.notes if n.code == "AT_BOUND"].count(("hours",)) == 1


def test_frozen_shares_choose_the_kind_of_stage():
    same = ask(MIXED, freeze={"share": 1.0})
    assert same.stage.target_ratio == pytest.approx(0.2) and same.recipe.first_ratio is None
    other = ask(MIXED, freeze={"share": 0.4, "r_f": 1.0})
    assert other.recipe.last_stage_share == pytest.approx(0.4) and other.stage.target_ratio == 1.0
    assert other.stage.tokens == pytest.approx(0.4 / 0.6 * MIXED.tokens)


@pytest.mark.parametrize(
    ("checkpoint", "request_", "error", "said"),
    [
        (FRESH, {"compute": 1e9}, InfeasibleError, r"share >= 0\.2 \(runs\) and 1e\+09 FLOP, which pay for"),
        (Checkpoint(N, 1e9), {}, InfeasibleError, r"source_tokens <= \S+ \(runs\), of which 1e\+09 are seen"),
        (FRESH, {"bounds": {"k": (0, 0.01)}}, InfeasibleError, "exclude each other"),
        (FRESH, {"freeze": {"share": 1.0}}, InfeasibleError, "the checkpoint has seen no target text"),
        (FRESH, {"freeze": {"N": 1e5}}, RecipeError, "N is the checkpoint's"),
        (FRESH, {"ci": 2.0}, RecipeError, "ci is 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(checkpoint, request_, error, said):
    with pytest.raises(error, match=said) as caught:
        ask(checkpoint, **request_)
    assert isinstance(caught.value, M3BayesError) and "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [(0.0, 1.0), (1.0, math.inf), (1.0, 1.0, 1.5)])
def test_a_checkpoint_that_is_none(given):
    with pytest.raises(RecipeError, match=r"checkpoint: .* expected"):
        Checkpoint(*given)
