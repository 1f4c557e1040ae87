"""Inverse questions, against Chinchilla's closed forms and searches on grids."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import brentq

from m3bayes.decision.budgets import recommended, request
from m3bayes.decision.constraints import at_least, at_most, equal
from m3bayes.decision.cost import hours, money
from m3bayes.decision.inverse import (
    best_epochs,
    least_compute,
    least_target_text,
    smallest_model,
    value_of_text,
)
from m3bayes.errors import InfeasibleError, RecipeError
from m3bayes.inference.predict import loss_draws
from m3bayes.laws import chinchilla, chinchilla_optimum
from tests.decision import synthetic
from tests.decision.synthetic import CHINCHILLA, DRAWS, TRUTH, posterior, scattered

E, A, B, ALPHA, BETA = (CHINCHILLA[name] for name in ("E", "A", "B", "alpha", "beta"))
ONE = posterior(
    {name: np.full(DRAWS, value) for name, value in CHINCHILLA.items()}, synthetic.runs(), chinchilla()
)
MANY = posterior(scattered(CHINCHILLA, 0, spread=0.01), synthetic.runs(), chinchilla())
OPEN = {"params": (0.0, math.inf), "tokens": (0.0, math.inf), "epochs": (0.0, math.inf)}
# four epochs at most: the data are 4 U, the rest of the compute goes into N
FOUR = OPEN | {"epochs": (0.0, 4.0)}
ALONE = {"r": 1.0}


def chinchilla_loss(N, D):
    return E + A * N**-ALPHA + B * D**-BETA


def test_the_least_compute_is_where_the_optimum_has_the_loss():
    found = least_compute(ONE, 1e6, 3.5, bounds=OPEN, freeze=ALONE)
    expected = brentq(
        lambda log_C: chinchilla_loss(*chinchilla_optimum(CHINCHILLA, math.exp(log_C))) - 3.5, 25, 60
    )
    assert math.log(found.value) == pytest.approx(expected, abs=2e-3)
    assert found.probability == 1 and found.loss.mean <= 3.5
    assert 6 * found.recipe.params * found.recipe.tokens <= found.value * (1 + 1e-9)
    assert "AT_BOUND" not in [note.code for note in found.notes]


def test_a_little_less_compute_is_not_enough():
    found = least_compute(MANY, 1e6, 3.5, 0.8, bounds=OPEN, freeze=ALONE)
    assert found.probability >= 0.8
    asked = request(MANY, None, OPEN, ALONE)
    _, losses, _ = recommended(asked, asked.at(found.value * 0.99, 1e6))
    assert np.mean(losses <= 3.5) < 0.8
    surer = least_compute(MANY, 1e6, 3.5, 0.95, bounds=OPEN, freeze=ALONE)
    assert surer.value > found.value


def test_the_least_text_is_what_four_epochs_need():
    C = 1e17
    D_star = float(chinchilla_optimum(CHINCHILLA, C)[1])
    wanted = chinchilla_loss(C / (6 * 0.2 * D_star), 0.2 * D_star)
    found = least_target_text(ONE, C, wanted, bounds=FOUR, freeze=ALONE)
    assert math.log(found.value) == pytest.approx(math.log(0.2 * D_star / 4), abs=2e-3)
    assert found.recipe.epochs == pytest.approx(4)
    assert [note.about for note in found.notes if note.code == "AT_BOUND"] == [("epochs",)]


def test_the_smallest_model_is_the_smaller_root():
    C = 1e17
    N_star = float(chinchilla_optimum(CHINCHILLA, C)[0])
    wanted = chinchilla_loss(0.3 * N_star, C / (6 * 0.3 * N_star))
    found = smallest_model(ONE, C, 1e6, wanted, bounds=OPEN, freeze=ALONE)
    assert math.log(found.value) == pytest.approx(math.log(0.3 * N_star), abs=2e-3)
    assert found.recipe.params == pytest.approx(found.value)
    assert "AT_BOUND" not in [note.code for note in found.notes]  # N is what was asked for


def test_out_of_reach_is_said_with_the_best_probability():
    with pytest.raises(InfeasibleError, match=r"no compute from .* reaches loss 1.7 .*; the best is 0:"):
        least_compute(ONE, 1e6, 1.7, bounds=OPEN, freeze=ALONE)
    with pytest.raises(RecipeError, match=r"probability 1\.5"):
        least_compute(ONE, 1e6, 3.5, 1.5)


def test_more_text_is_worth_what_the_closed_form_says():
    C, U, more = 1e17, 1e6, 1e6

    def loss(C: float, U: float) -> float:
        return chinchilla_loss(C / (24 * U), 4 * U)

    found = value_of_text(ONE, C, U, more, bounds=FOUR, freeze=ALONE)
    assert found.gain.mean == pytest.approx(loss(C, U) - loss(C, U + more), rel=1e-6)
    # a tenth of the text more, which bigger models can stand in for
    little = value_of_text(ONE, 1e14, U, U / 100, bounds=FOUR, freeze=ALONE)
    multiple = brentq(lambda m: loss(m * 1e14, U) - loss(1e14, 1.01 * U), 1, 1e3)
    assert little.beyond == 0 and "BEYOND_1000X" not in [note.code for note in little.notes]
    assert little.compute.mean == pytest.approx(
        multiple, rel=0.02
    )  # straight lines between factors of 10^(1/4)
    # no compute makes up for as much text again
    assert found.beyond == 1 and found.compute.mean == pytest.approx(1e3, rel=1e-9)
    assert any(note.code == "BEYOND_1000X" and "in 100% of the draws" in note.message for note in found.notes)


def test_another_cost_keeps_its_inverse_and_its_unit():
    cost = hours(1e12)
    asked = request(ONE, cost, OPEN, ALONE)
    assert (asked.cost.unit, asked.cost.tokens_for) == ("hours", cost.tokens_for)
    in_hours = least_compute(ONE, 1e6, 3.5, bounds=OPEN, freeze=ALONE, cost=cost)
    in_flop = least_compute(ONE, 1e6, 3.5, bounds=OPEN, freeze=ALONE)
    assert in_hours.value == pytest.approx(in_flop.value / 3.6e15, rel=3e-3)
    with pytest.raises(InfeasibleError, match=r"already cost \S+ hours"):
        least_target_text(ONE, 1e-12, 3.5, cost=cost, freeze=ALONE)


def test_a_smaller_model_takes_more_compute():
    """With N at most a third of the best, D is what the loss still needs."""
    free = least_compute(ONE, 1e6, 3.5, bounds=OPEN, freeze=ALONE)
    most = free.recipe.params / 3
    found = least_compute(ONE, 1e6, 3.5, bounds=OPEN, freeze=ALONE, constraints=[at_most("N", most)])
    D = ((3.5 - E - A * most**-ALPHA) / B) ** (-1 / BETA)
    assert found.value == pytest.approx(6 * most * D, rel=2e-3)
    assert found.recipe.params == pytest.approx(most) and found.value > free.value
    assert ("params",) in [note.about for note in found.notes if note.code == "AT_BOUND"]
    loose = least_compute(ONE, 1e6, 3.5, bounds=OPEN, freeze=ALONE, constraints=[at_most("N", 10 * most)])
    assert loose.value == pytest.approx(free.value, rel=2e-3)


def test_fewer_epochs_take_more_text():
    C = 1e17
    D_star = float(chinchilla_optimum(CHINCHILLA, C)[1])
    wanted = chinchilla_loss(C / (6 * 0.2 * D_star), 0.2 * D_star)
    one = least_target_text(ONE, C, wanted, bounds=FOUR, freeze=ALONE, constraints=[at_most("k", 1)])
    assert math.log(one.value) == pytest.approx(math.log(0.2 * D_star), abs=2e-3)
    assert one.recipe.epochs == pytest.approx(1)
    # a second budget that allows .8 of the compute
    less, paid = (
        least_target_text(ONE, most, wanted, bounds=FOUR, freeze=ALONE, constraints=constraints)
        for most, constraints in ((0.8 * C, ()), (C, [at_most(money(1 / C), 0.8)]))
    )
    assert paid.value == pytest.approx(less.value, rel=2e-3) and paid.value > 1.05 * one.value / 4
    assert 6 * paid.recipe.params * paid.recipe.tokens <= 0.8 * C * (1 + 1e-9)


def test_constraints_on_the_size_are_those_of_the_smallest_model():
    C = 1e17
    N_star = float(chinchilla_optimum(CHINCHILLA, C)[0])
    wanted = chinchilla_loss(0.3 * N_star, C / (6 * 0.3 * N_star))
    ask = {"compute": C, "target_tokens": 1e6, "loss": wanted, "bounds": OPEN, "freeze": ALONE}
    free = smallest_model(ONE, **ask)
    larger = 1.5 * free.value
    for constraints in ([at_least("N", larger)], [equal("params", larger)]):
        assert smallest_model(ONE, **ask, constraints=constraints).value == pytest.approx(larger, rel=1e-9)
    most = smallest_model(ONE, **ask, constraints=[at_most("N", larger)])
    assert most.value == pytest.approx(free.value, rel=2e-3)
    with pytest.raises(InfeasibleError, match=r"no params from .* reaches loss"):
        smallest_model(ONE, **ask, constraints=[at_most("N", free.value / 2)])
    # with fewer tokens allowed a larger model must do
    D = 0.5 * free.recipe.tokens
    fewer = smallest_model(ONE, **ask, constraints=[at_most("D", D)])
    N = ((wanted - E - B * D**-BETA) / A) ** (-1 / ALPHA)
    assert fewer.value == pytest.approx(N, rel=2e-3) and fewer.value > free.value


def test_text_is_worth_more_where_it_may_be_repeated_less():
    def loss(k: float, U: float) -> float:
        return chinchilla_loss(1e17 / (6 * k * U), k * U)

    for k in (4, 2):
        found = value_of_text(
            ONE, 1e17, 1e6, 1e6, bounds=FOUR, freeze=ALONE, constraints=[at_most("epochs", k)]
        )
        assert found.gain.mean == pytest.approx(loss(k, 1e6) - loss(k, 2e6), rel=1e-6)


def test_a_constraint_that_nothing_meets_is_said():
    for ask in (
        lambda **given: least_compute(ONE, 1e6, 3.5, **given),
        lambda **given: least_target_text(ONE, 1e17, 3.5, **given),
        lambda **given: smallest_model(ONE, 1e17, 1e6, 3.5, **given),
        lambda **given: value_of_text(ONE, 1e17, 1e6, 1e6, **given),
    ):
        with pytest.raises(InfeasibleError, match="constraint"):
            ask(freeze=ALONE, constraints=[at_most("N", 1e3)])
        with pytest.raises(RecipeError, match="no variable 'depth'"):
            ask(freeze=ALONE, constraints=[at_most("depth", 1e3)])


TEXTS = """
import m3bayes as m3
from tests.decision.test_inverse import ONE
for ask in (
    lambda: m3.least_compute(ONE, 1e6, loss="3"),
    lambda: m3.least_target_text(ONE, "1e17", 3.5),
    lambda: m3.smallest_model(ONE, 1e17, 1e6, 3.5, probability="half"),
    lambda: m3.value_of_text(ONE, 1e17, "1e6", 1e6),
    lambda: m3.best_epochs(ONE, "1e6", 1e5),
    lambda: m3.next_runs(ONE, compute=1e14, target_tokens=1e5, budget="1e12"),
    lambda: m3.recommend(ONE, compute="1e14", target_tokens=1e5),
    lambda: m3.recommend(ONE, compute=1e14, target_tokens=True),
    lambda: m3.recommend(ONE, compute=1e14, target_tokens=1e5, bounds={"k": (None, "4")}),
    lambda: m3.recommend(ONE, compute=1e14, target_tokens=1e5, freeze={"r": "1"}),
    lambda: m3.recommend(ONE, compute=1e14, target_tokens=1e5, ci=[0.9]),
):
    try:
        ask()
    except m3.RecipeError as error:
        print(error)
"""


def test_a_text_for_a_number_is_refused_in_one_line():
    # in a process of its own, without this one's checks of types
    ran = subprocess.run([sys.executable, "-c", TEXTS], stdout=subprocess.PIPE, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "loss: '3'; expected a number",
        "compute: '1e17'; expected a number",
        "probability: 'half'; expected a number",
        "target_tokens: '1e6'; expected a number",
        "params: '1e6'; expected a number",
        "budget: '1e12'; expected a number",
        "compute: '1e14'; expected a number",
        "target_tokens: True; expected a number",
        "bounds epochs: '4'; expected a number",
        "freeze target_ratio: '1'; expected a number",
        "ci: [0.9]; expected a number",
    ]


def test_best_epochs_are_those_of_a_grid():
    post = posterior(scattered(TRUTH, 1, spread=0.02), synthetic.runs())
    N, U = 1e6, 1e5
    found = best_epochs(post, N, U)
    k = np.geomspace(0.7, 16, 2001)
    losses = loss_draws(post, {"params": N, "target_tokens": U, "epochs": k})
    assert found.recipe.epochs == pytest.approx(k[np.argmin(losses.mean(axis=0))], rel=3e-3)
    assert found.epochs.draws == pytest.approx(k[np.argmin(losses, axis=1)], rel=3e-3)
    assert found.loss.mean <= losses.mean(axis=0).min() * (1 + 1e-12)
    bounded = best_epochs(post, N, U, bounds={"epochs": (0.7, 2.0)})
    assert bounded.recipe.epochs == pytest.approx(2.0) and "AT_BOUND" in [note.code for note in bounded.notes]


def test_an_answer_at_the_least_that_was_looked_at_says_so():
    found = smallest_model(MANY, 1e14, 1e6, 20.0, freeze=ALONE)
    assert found.value == pytest.approx(float(synthetic.runs()["params"].min()))
    said = [note.message for note in found.notes if note.about == ("params",) and note.code == "AT_BOUND"]
    assert len(said) == 1 and "less may be" in said[0]
