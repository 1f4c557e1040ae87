"""Guidelines: the map against optima at single cells, the collapse and the model size where they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from m3bayes.decision import guidelines
from m3bayes.decision.budgets import increasing, regime_optima, request
from m3bayes.decision.constraints import at_most
from m3bayes.decision.regret import best_regime
from m3bayes.errors import InfeasibleError, RecipeError
from m3bayes.laws import chinchilla, m3
from tests.cli.conftest import handmade
from tests.decision import synthetic
from tests.decision.synthetic import CHINCHILLA, DRAWS, TRUTH, posterior, scattered

POST = handmade(DRAWS // 2)  # near the truth of the embedded table
COMPUTE, TEXT = np.array([3e13, 2e14]), np.geomspace(5e4, 3e6, 8)
OPEN = {"params": (0.0, math.inf), "tokens": (0.0, math.inf), "epochs": (0.0, math.inf)}


@pytest.fixture(scope="module")
def found() -> guidelines.RegimeMap:
    return guidelines.regimes(POST, COMPUTE, TEXT)


@pytest.fixture(scope="module")
def searched() -> dict[tuple[int, int], np.ndarray]:
    """Best regime of each draw at some cells, every one searched from scratch."""
    asked = request(POST, None, None)
    cells = [(0, 1), (0, 4), (1, 2), (1, 6)]
    return {(i, j): best_regime(regime_optima(asked, asked.at(COMPUTE[i], TEXT[j]))) for i, j in cells}


def test_probabilities_are_those_of_a_search_at_the_cell(found, searched):
    for (i, j), regime in searched.items():
        for name, probability in found.probability.items():
            # a crossing interpolated to a few percent moves few draws from one side to the other
            assert probability[i, j] == pytest.approx(np.mean(regime == name), abs=0.08)
    total = sum(found.probability.values())
    assert total[~np.isnan(total)] == pytest.approx(1)


def test_the_threshold_of_each_draw_is_where_two_stages_stop_being_best(found):
    asked, i = request(POST, None, None), 1
    inside = np.isfinite(found.threshold.draws[:, i]) & (found.threshold.draws[:, i] > 0)
    assert inside.mean() > 0.5
    middle = float(np.median(found.threshold.draws[inside, i]))
    two = best_regime(regime_optima(asked, asked.at(COMPUTE[i], middle))) == "two-stage"
    clear = inside & (np.abs(np.log(found.threshold.draws[:, i] / middle)) > 0.05)
    assert clear.sum() > 10
    assert np.all(two[clear] == (found.threshold.draws[clear, i] > middle))


def test_the_threshold_has_its_interval_and_its_scarcity(found):
    curve = found.threshold
    assert np.all(curve.lower <= curve.target_tokens) and np.all(curve.target_tokens <= curve.upper)
    assert curve.draws.shape == (DRAWS, 2)
    assert np.all((curve.below + curve.above <= 1) & (curve.one_crossing <= 1))
    table, cells = found.threshold_frame(), found.frame()
    assert list(table["compute"]) == list(COMPUTE) and len(cells) == 2 * len(TEXT)
    assert cells["threshold"].iloc[0] == curve.target_tokens[0]
    named = ["probability_monolingual", "probability_single_stage", "probability_two_stage"]
    assert cells[named].sum(axis=1).to_numpy() == pytest.approx(1)


def test_a_margin_favours_the_simpler_regimes():
    text = TEXT[[1, 4]]
    free, dear = (guidelines.regimes(POST, COMPUTE[:1], text, margin=margin) for margin in (0.0, 10.0))
    assert np.all(dear.probability["monolingual"] == 1)
    assert np.all(dear.probability["two-stage"] <= free.probability["two-stage"])
    assert np.all(dear.threshold.below == 1) and np.all(dear.threshold.draws == 0)


def test_chinchillas_best_epochs_and_size_are_the_rules():
    """With the target text alone, k* = D*(C) / D_T and N = N*(C), whatever D_T and C."""
    post = posterior(scattered(CHINCHILLA, 0), synthetic.runs(), chinchilla())
    grid = {"compute": [1e14, 1e16], "target_tokens": [1e5, 1e6, 1e7], "bounds": OPEN, "freeze": {"r": 1.0}}
    collapse = guidelines.epochs(post, **grid)
    assert collapse.rule_error.upper < 1e-5 and collapse.at_bound == 0
    assert collapse.spread is not None and collapse.spread.upper < 1e-5
    assert collapse.epochs * collapse.scarcity == pytest.approx(np.ones((DRAWS, 2, 3)), rel=1e-5)
    assert collapse.table["rule"].to_numpy() == pytest.approx(collapse.table["epochs"].to_numpy(), rel=0.05)
    size = guidelines.model_size(post, **grid)
    assert size.ratio == pytest.approx(np.ones((DRAWS, 2, 3)), rel=1e-5)


def test_without_overfitting_epochs_collapse_on_one_curve():
    """laws.md: at P = 0, C = 6 N D and no bounds every optimum depends on x = D_T / D*(C) alone, exactly."""
    law = m3(drop=("P",))
    c = {name: v for name, v in scattered(TRUTH, 3, spread=0.02).items() if name in law.names}
    post = posterior(c, synthetic.runs(), law)
    bounds = OPEN | {"S": (0.0, math.inf), "r": (1e-6, 1.0), "r_f": (1e-6, 1.0), "share": (0.1, 0.5)}
    found = guidelines.epochs(post, [1e14, 3e15], np.geomspace(1e5, 1e7, 7), bounds=bounds)
    assert found.spread is not None
    # what is left is interpolation between the cells
    assert found.spread.upper < 0.02
    # where the runs' range cuts epochs off, the curves come apart
    cut = guidelines.epochs(post, [1e14, 3e15], np.geomspace(1e5, 1e7, 4))
    assert cut.at_bound > 0 and cut.spread is not None and cut.spread.mean > 3 * found.spread.mean


def test_a_constraint_narrows_the_map_as_a_bound_does():
    post = posterior(scattered(CHINCHILLA, 0), synthetic.runs(), chinchilla())
    grid = {"compute": [1e14, 1e16], "target_tokens": [1e5, 1e6], "freeze": {"r": 1.0}}
    found = guidelines.epochs(post, bounds=OPEN, constraints=[at_most("k", 4)], **grid)
    bounded = guidelines.epochs(post, bounds=OPEN | {"epochs": (0.0, 4.0)}, **grid)
    assert np.nanmax(found.epochs) <= 4 * (1 + 1e-9) and found.at_bound > 0
    np.testing.assert_allclose(found.epochs, bounded.epochs, rtol=1e-9)
    size = guidelines.model_size(post, bounds=OPEN, constraints=[at_most("N", 1e5)], **grid)
    assert size.at_bound == 1
    # N*(C) is that of no constraint
    free = guidelines.model_size(post, bounds=OPEN, **grid)
    assert np.all(size.ratio < free.ratio)


def test_a_constraint_narrows_the_map_of_regimes():
    text = TEXT[[1, 4]]
    narrow = guidelines.regimes(POST, COMPUTE[:1], text, constraints=[at_most("S", 1e-3)])
    # without source text there is the target text alone
    assert np.all(narrow.probability["monolingual"] == 1)


@pytest.mark.parametrize(
    "given",
    ["1e14", ["1e13", "1e14"], [1e13, "1e14"], [1e13, math.nan], [1e13, math.inf], [True, 2.0], [1e13, None],
     [[1e13, 1e14]], [[1e13], [1e13, 1e14]], [1e13 + 1j], [10**400], [], [0.0, 1.0], 1e14, {1.0: 2.0}],
    ids=str,
)  # fmt: skip
def test_grids_that_are_none_are_refused(given):
    """Tried where types are not checked: callers do not check them."""
    unchecked = getattr(increasing, "__wrapped__", increasing)
    with pytest.raises(
        RecipeError, match=r"compute is .*; expected positive numbers that increase"
    ) as caught:
        unchecked("compute", given)
    assert "\n" not in str(caught.value)


def test_grids_of_any_numbers_are_taken():
    for given in ([10**19, 10**21], range(1, 4), np.float32([1, 2]), (1, 2.5), np.array([3])):
        values = increasing("compute", given)
        assert values.dtype == np.float64 and list(values) == [float(value) for value in given]


def test_what_cannot_be_mapped_is_refused():
    with pytest.raises(RecipeError, match=r"compute is .*; expected positive numbers that increase"):
        guidelines.regimes(POST, [2e14, 1e14], TEXT)
    with pytest.raises(InfeasibleError, match=r"nowhere on the map: .*more than compute=10"):
        guidelines.regimes(POST, [1.0, 10.0], TEXT)
    with pytest.raises(RecipeError, match="ci is 2"):
        guidelines.epochs(POST, COMPUTE, TEXT, ci=2.0)


def test_a_note_says_where_many_draws_change_regime_more_than_once():
    compute = np.array([1e14, 2e14])
    once = np.ones((100, 2), int)
    often = once.copy()
    often[:30, 1] = 2
    assert guidelines._several(compute, once) == []
    (note,) = guidelines._several(compute, often)
    assert note.code == "SEVERAL_CROSSINGS" and "30% of the draws at 2e+14 FLOP" in note.message
