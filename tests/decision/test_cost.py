"""Costs: the named ones and a user's, their inverses, and derivatives through the inverse."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3bayes.decision.cost import (
    Cost,
    as_cost,
    check_increases,
    fitted,
    hours,
    money,
    six_nd,
    tightest,
    with_attention,
)
from m3bayes.errors import RecipeError, RunTableError
from m3bayes.runs import Runs, runs_from_frame
from tests.decision import synthetic


def with_embeddings(N, D):
    """6 N D and what 2e5 embedding parameters of a wide vocabulary cost besides."""
    return 6 * (N + 40.0 * jnp.sqrt(N)) * D + 1e6 * N


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def test_six_nd_counts_real_parameters_and_tokens():
    cost = six_nd().in_units(1e6, 1e3)
    assert float(cost.flops(2.0, 3.0)) == 6 * 2e6 * 3e3


@pytest.mark.parametrize("cost", [six_nd(), Cost("embeddings", with_embeddings)], ids=lambda cost: cost.name)
def test_inverses_spend_the_budget(cost):
    cost = cost.in_units(1e3, 1e2)
    N, D = cost.params(1e15, 1e5), cost.tokens(1e15, 1e3)
    assert float(cost.flops(N, 1e5)) == pytest.approx(1e15, rel=1e-12)
    assert float(cost.flops(1e3, D)) == pytest.approx(1e15, rel=1e-12)
    solved = float(cost.log_params(math.log(1e15), math.log(1e5), math.log(1e-3), math.log(1e12)))
    assert solved == pytest.approx(math.log(N), abs=1e-12)


@pytest.mark.parametrize("C", [1e-3, 1e10, 1e15, 1e24, 1e300])
def test_closed_forms_are_what_a_search_finds(C):
    closed, searched = six_nd().in_units(1e3, 1e2), Cost("6ND", lambda N, D: 6.0 * N * D).in_units(1e3, 1e2)
    for inverse in ("params", "tokens"):
        found, expected = (getattr(cost, inverse)(C, 50.0) for cost in (closed, searched))
        assert found == pytest.approx(expected, rel=1e-12)


def test_what_cannot_be_paid_is_no_recipe():
    fixed = Cost("with a fixed part", lambda N, D: 6.0 * N * D + 1e9 * N)
    assert fixed.tokens(1e15, 1e7) == 0.0
    assert six_nd().tokens(1e300, 1e-3) == math.inf


def test_params_solved_for_differentiate_twice_as_the_closed_form_does():
    numeric = Cost("6ND", lambda N, D: 6.0 * jnp.asarray(N) * D)

    def curve(cost: Cost):
        def log_params(x):
            return cost.log_params(x[0] ** 2, jnp.sin(x[1]) + x[0], math.log(1e-3), math.log(1e30))

        return log_params

    x = jnp.array([5.5, 0.7])
    for derivative in (jax.grad, jax.hessian):
        expected, found = derivative(curve(six_nd()))(x), derivative(curve(numeric))(x)
        assert jnp.allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_derivatives_of_a_users_cost_agree_with_finite_differences():
    cost, step = Cost("embeddings", with_embeddings), 1e-4

    def log_params(log_C: float) -> float:
        return float(cost.log_params(log_C, math.log(1e8), math.log(1.0), math.log(1e15)))

    x = math.log(1e17)
    slope = jax.grad(lambda x: cost.log_params(x, math.log(1e8), math.log(1.0), math.log(1e15)))
    assert float(slope(x)) == pytest.approx(
        (log_params(x + step) - log_params(x - step)) / 2 / step, rel=1e-7
    )
    bend = (log_params(x + step) - 2 * log_params(x) + log_params(x - step)) / step**2
    assert float(jax.grad(slope)(x)) == pytest.approx(bend, abs=2e-6)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda N, D: -6 * N * D, "increases in both"),
        (lambda N, D: 6 * N * 1e9, "increases in both"),
        (lambda N, D: 6 / N * D, "increases in both"),
        (lambda N, D: N * D * math.nan, "increases in both"),
        (lambda N, D: math.log(N) * D, "failed"),
        (lambda N: N, "failed"),
    ],
)
def test_a_cost_that_is_none_is_refused_in_one_line(function, said):
    with pytest.raises(RecipeError, match=said) as caught:
        as_cost(function)
    assert "\n" not in str(caught.value)


# --- attention, fitted costs, money and hours, several budgets


def logged(c: float, a: float, b: float, scatter: float = 0.0, **units) -> Runs:
    """The synthetic runs with FLOP logged of all but two."""
    runs = synthetic.runs(**units)
    noise = np.exp(scatter * np.random.default_rng(0).normal(size=len(runs)))
    flops = c * (runs["params"] * runs.unit_params) ** a * (runs.tokens * runs.unit_tokens) ** b * noise
    flops[[3, 7]] = np.nan
    return runs_from_frame(
        runs.frame().assign(flops=flops), unit_params=runs.unit_params, unit_tokens=runs.unit_tokens
    )


def test_attention_counts_twelve_flop_a_token_layer_width_and_place():
    layers, width, context = 12, 768, 1024
    N, D = 12 * layers * width**2, 1e9
    # 3 passes, scores and mix of values, 2 FLOP each a layer, token, place and width
    expected = 6 * N * D + 3 * 2 * 2 * layers * width * context * D
    by_number = with_attention(context, width / layers)
    assert float(by_number.flops(N, D)) == pytest.approx(expected, rel=1e-12)
    by_function = with_attention(context, lambda N: width / layers + 0 * N)
    assert float(by_function.flops(N, D)) == pytest.approx(expected, rel=1e-12)
    assert with_attention(context) == with_attention(context), "equal costs are compiled once"
    # the larger the model, the less attention counts
    shares = [float(by_number.flops(N, D) / six_nd().flops(N, D)) for N in (1e6, 1e8, 1e10)]
    assert shares[0] > shares[1] > shares[2] > 1


@pytest.mark.parametrize("given", [{"context": 0}, {"context": 10, "aspect": -1.0}])
def test_attention_of_no_context_is_refused(given):
    with pytest.raises(RecipeError, match="both above 0"):
        with_attention(**given)


@pytest.mark.parametrize("units", [{}, {"unit_params": 1e6, "unit_tokens": 1e3}], ids=["plain", "units"])
def test_a_fitted_cost_is_what_the_flop_were_made_with(units):
    cost = fitted(logged(7.5, 0.97, 1.02, **units))
    assert (cost.function.c, cost.function.a, cost.function.b) == pytest.approx((7.5, 0.97, 1.02), rel=1e-9)
    assert cost.function.scatter < 1e-12
    assert cost.params(1e15, 1e7) == pytest.approx((1e15 / 7.5 / 1e7**1.02) ** (1 / 0.97), rel=1e-9)
    assert float(cost.flops(1e6, cost.tokens(1e15, 1e6))) == pytest.approx(1e15, rel=1e-9)


def test_a_fitted_cost_says_its_scatter_and_is_right_within_it():
    cost = fitted(logged(7.5, 0.97, 1.02, scatter=0.05))
    # of 34 runs and 3 coefficients: the standard error of a scatter is scatter / sqrt(2 x 31)
    assert cost.function.scatter == pytest.approx(0.05, abs=4 * 0.05 / math.sqrt(62))
    assert f"scatter {cost.function.scatter:.2g}" in cost.name
    runs = logged(7.5, 0.97, 1.02)
    x = np.column_stack([np.ones(len(runs)), np.log(runs["params"]), np.log(runs.tokens)])[
        ~np.isnan(runs["flops"])
    ]
    errors = 0.05 * np.sqrt(np.diag(np.linalg.inv(x.T @ x)))
    found = [math.log(cost.function.c), cost.function.a, cost.function.b]
    assert np.all(np.abs(np.array(found) - [math.log(7.5), 0.97, 1.02]) < 4 * errors)


def test_what_cannot_be_fitted_is_said():
    with pytest.raises(RunTableError, match="no column flops"):
        fitted(synthetic.runs())
    runs = logged(6.0, 1.0, 1.0)
    with pytest.raises(RunTableError, match="do not vary apart"):
        fitted(runs.where("params == 1e6"))
    with pytest.raises(RunTableError, match="logged of 2 runs"):
        fitted(runs.select([0, 1, 3]))
    with pytest.raises(RecipeError, match="falls with N or D"):
        fitted(logged(1e20, -0.5, 1.0))


def test_hours_are_flop_over_speed_and_money_is_their_price():
    N, D = 2e8, 4e9
    spent = float(hours(1e15, 0.4).flops(N, D))
    assert spent == pytest.approx(6 * N * D / (0.4 * 1e15) / 3600)
    dollars = money(8 * 2.5 / (3600 * 1e15), 0.4, unit="USD")
    assert float(dollars.flops(N, D)) == pytest.approx(8 * 2.5 * spent) and dollars.unit == "USD"
    assert dollars.params(20.0, D) == pytest.approx(N * 20.0 / (8 * 2.5 * spent), rel=1e-12)
    by_size = hours(1e15, lambda N: 0.4 + 0 * N)
    assert float(by_size.flops(N, D)) == pytest.approx(spent)
    assert by_size.tokens(spent, N) == pytest.approx(D, rel=1e-12)
    with_context = hours(1e15, 0.4, flops=with_attention(2048))
    assert float(with_context.flops(N, D)) > spent


def test_the_better_a_size_is_used_the_more_hours_buy():
    small, large = hours(1e15, 0.2), hours(1e15, lambda N: 0.2 + 0.3 * N / (N + 1e8))
    N = np.geomspace(1e6, 1e10, 9)
    at_small, at_large = (np.array([cost.tokens(100.0, n) for n in N]) for cost in (small, large))
    assert np.all(at_large > at_small) and np.all(np.diff(at_large) < 0)
    check_increases(large, (1e6, 1e10), (1e6, 1e12))


@pytest.mark.parametrize(
    "make",
    [
        lambda: money(0.0),
        lambda: money(1.0, 1.5),
        lambda: hours(-1.0),
        lambda: hours(1e15, lambda N: N**1.5),
        lambda: tightest([(six_nd(), math.inf), (six_nd(), 1.0)]),
    ],
)
def test_prices_that_are_none_are_refused_in_one_line(make):
    with pytest.raises(RecipeError, match="expected") as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_cost_that_falls_somewhere_between_is_found():
    falls = hours(1e15, lambda N: jnp.where(N > 1e8, 0.9, 0.3))
    check_increases(falls, (1e4, 1e7), (1e6, 1e9))
    with pytest.raises(RecipeError, match="expected one that increases in both"):
        check_increases(falls, (1e4, 1e10), (1e6, 1e9))


def test_the_tightest_of_several_budgets():
    time = hours(1e12, lambda N: 0.5 * N / (N + 1e6))
    both = tightest([(six_nd(), 1e16), (time, 10.0)])
    N, D = (each.ravel() for each in np.meshgrid(np.geomspace(1e4, 1e9, 30), np.geomspace(1e6, 1e11, 30)))
    within = (np.asarray(six_nd().flops(N, D)) <= 1e16) & (np.asarray(time.flops(N, D)) <= 10.0)
    assert np.array_equal(np.asarray(both.flops(N, D)) <= 1e16, within) and 0 < within.sum() < len(within)
    for D in (1e7, 1e9):
        assert both.params(1e16, D) == pytest.approx(min(six_nd().params(1e16, D), time.params(10.0, D)))
    closed = tightest([(six_nd(), 1e16), (money(1e-15), 8.0)])
    assert closed.params(1e16, 1e9) == pytest.approx(8e15 / 6e9, rel=1e-12)
    assert closed.tokens(1e16, 1e7) == pytest.approx(8e15 / 6e7, rel=1e-12)
    assert tightest([(six_nd(), 1.0)]) == six_nd()
