"""Costs: 6 N D and a user's, their inverses, and derivatives through the inverse."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import pytest

from m3bayes.decision.cost import Cost, as_cost, six_nd
from m3bayes.errors import RecipeError


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
