"""Architectures and multiples: feasible, never better than the free optimum, and the best that can be had."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from m3bayes.decision import Recommendation, recommend
from m3bayes.decision.architectures import grain
from m3bayes.errors import InfeasibleError, RecipeError
from m3bayes.inference.predict import loss_draws
from m3bayes.recipe import Recipe
from tests.decision import synthetic
from tests.decision.synthetic import TRUTH, posterior, scattered

C, U = 1e14, 3e5
RUNS = synthetic.runs()
POST = posterior(scattered(TRUTH, 0, spread=0.02), RUNS)
RANGE = {"epochs": (0.7, 16.0), "tokens": (7e4, 1.6e8)}
SIZES = {"tiny": 5e4, "small": 6e5, "large": 4e6, "unseen": 1e9}


def ask(**request) -> Recommendation:
    return recommend(POST, **({"compute": C, "target_tokens": U} | request))


@pytest.fixture(scope="module")
def free() -> Recommendation:
    return ask()


@pytest.fixture(scope="module")
def found() -> Recommendation:
    mine = {"built": Recipe(6e5, U, 8.0), "not built": Recipe(7e5, U, 8.0)}
    return ask(architectures=SIZES, baselines=mine)


def dense(N: float) -> float:
    """The least mean loss at one N on a grid over k, r and r_f, straight from the definitions."""
    k, r, part = (
        each.ravel()
        for each in np.meshgrid(
            np.geomspace(0.7, 16, 60), np.geomspace(0.1, 1, 40), [0.0, 0.2, 0.25, 0.3, 0.4, 0.5]
        )
    )
    last = np.where(part == 0, r, np.minimum(r / np.where(part == 0, 1, part), 1.0))
    D, share = k * U / r, np.where(part == 0, 0.5, r / last)
    inside = (6 * N * D <= C) & (RUNS.tokens.min() <= D) & (RUNS.tokens.max() >= D)
    inside &= (D * (1 - r) <= RUNS.source_tokens.max()) & (share >= 0.2 - 1e-12) & (share <= 0.5 + 1e-12)
    columns = {"epochs": k[inside], "target_ratio": r[inside], "final_ratio": last[inside]}
    return float(
        loss_draws(
            POST, {**columns, "params": np.full(inside.sum(), N), "target_tokens": np.full(inside.sum(), U)}
        )
        .mean(axis=0)
        .min()
    )


def test_each_architecture_against_a_dense_grid(found):
    tried = found.snapped.tried
    assert list(tried.index) == list(SIZES) and "params <= 2e+07 (runs)" in tried.loc["unseen", "why_not"]
    for name in ("tiny", "small", "large"):
        row, grid = tried.loc[name], dense(SIZES[name])
        assert row["params"] == SIZES[name] and row["why_not"] == ""
        assert row["loss_mean"] <= grid + 1e-12 and row["loss_mean"] == pytest.approx(grid, rel=1e-3)
    best = tried["loss_mean"].idxmin()
    assert found.recipe.params == SIZES[best] and found.loss.mean == pytest.approx(
        tried.loc[best, "loss_mean"]
    )


def test_what_snapping_costs_is_against_the_best_of_any_size(found, free):
    snapped = found.snapped
    assert snapped.free == free.recipe and found.recipe.params != free.recipe.params
    assert snapped.risk >= 0 and snapped.excess.mean == pytest.approx(
        found.loss.mean - free.loss.mean, abs=1e-12
    )
    assert 6 * found.recipe.params * found.recipe.tokens <= C
    (note,) = [note for note in found.notes if note.code == "SNAPPED"]
    assert note.about == ("params",) and f"to {found.recipe.params:.4g}" in note.message
    assert np.all(found.regret.draws >= 0) and free.snapped is None
    held = found.constraints.loc[f"params = {found.recipe.params:.4g} (architectures)"]
    assert held["binding"]
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))["snapped"]
    assert written["tried"]["unseen"]["loss_mean"] is None and written["free"]["params"] == free.recipe.params


def test_a_baseline_that_cannot_be_built_is_not_feasible(found):
    table = found.baselines
    assert table.loc["built", "feasible"] and table.loc["built", "excess_mean"] >= 0
    assert "none of the architectures" in table.loc["not built", "why_not"]


def test_the_free_optimum_among_the_architectures_costs_nothing(free):
    again = ask(architectures=[free.recipe.params, 5e4])
    assert again.snapped.risk <= 1e-9 * again.loss.mean
    assert again.loss.mean == pytest.approx(free.loss.mean, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "letter", "step"), [("epochs", "k", 1.0), ("epochs", "epochs", 3.0), ("tokens", "D", 1e6)]
)
def test_multiples_are_whole_and_feasible_and_the_better_neighbour(name, letter, step, free):
    found = ask(multiples={letter: step})
    value = getattr(found.recipe, name)
    assert value / step == pytest.approx(round(value / step), rel=1e-9) and value > 0
    assert 6 * found.recipe.params * found.recipe.tokens <= C * (1 + 1e-12)
    assert found.loss.mean >= free.loss.mean - 1e-9 and found.snapped.risk >= 0
    below = math.floor(getattr(free.recipe, name) / step) * step
    neighbours = [below, below + step]
    held = [ask(freeze={name: v}).loss.mean for v in neighbours if RANGE[name][0] <= v <= RANGE[name][1]]
    assert found.loss.mean == pytest.approx(min(held), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_can_be_built_is_feasible_and_never_better(seed):
    random = np.random.default_rng(seed)
    compute = 10 ** random.uniform(12.5, 14.5)
    sizes = np.exp(random.uniform(math.log(3e4), math.log(4e5), 2)).tolist()
    free = ask(compute=compute)
    found = ask(compute=compute, architectures=sizes, multiples={"k": random.uniform(0.7, 2)})
    best = found.recipe
    assert best.params in sizes and 6 * best.params * best.tokens <= compute * (1 + 1e-12)
    assert np.all(found.constraints["relative"] >= -1e-9)
    assert found.snapped.risk >= 0 and found.loss.mean >= free.loss.mean * (1 - 1e-9)


def test_sizes_and_multiples_together():
    found = ask(architectures=[5e4, 6e5], multiples={"k": 2.0})
    assert found.recipe.params in (5e4, 6e5) and found.recipe.epochs % 2 == 0
    (note,) = [note for note in found.notes if note.code == "SNAPPED"]
    assert note.about == ("params", "epochs") and found.snapped.risk >= 0


@pytest.mark.parametrize(
    ("request_", "error", "said"),
    [
        ({"architectures": [1.0, 1e12]}, InfeasibleError, r"no architecture is .*: 1: params >= 3e\+04 \(runs\); 1e"),
        ({"architectures": [6e5], "compute": 1e11}, InfeasibleError, "feasible: 600000: .*already cost"),
        ({"multiples": {"k": 100.0}}, InfeasibleError, r"no multiple of epochs is .*= 1 x 100: epochs <= 16"),
        ({"architectures": []}, RecipeError, "at least one N"),
        ({"architectures": {"none": -1.0}}, RecipeError, "architecture none has params -1"),
        ({"multiples": {"r": 0.1}}, RecipeError, "multiples of 'r'"),
        ({"multiples": {"k": 0.0}}, RecipeError, "step 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_one_line(request_, error, said):
    with pytest.raises(error, match=said) as caught:
        ask(**request_)
    assert "\n" not in str(caught.value)


def test_sizes_by_number_are_named_by_it():
    assert grain([1e8, 2.5e8], {"D": 4}).sizes == {"1e+08": 1e8, "2.5e+08": 2.5e8}
    assert not grain(None, None)
