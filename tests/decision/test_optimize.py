"""Optima: against a slow search, closed forms and theorems; the objective's derivatives; risks with kinks."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3bayes.decision import risk
from m3bayes.decision.cost import Cost, six_nd
from m3bayes.decision.faces import arrays, faces
from m3bayes.decision.newton import newton
from m3bayes.decision.optimize import Best, Optima, Surface, best, objectives, optima, optima_by_regime
from m3bayes.decision.risk import Risk, mean
from m3bayes.decision.space import Space, space
from m3bayes.laws import Law, chinchilla, chinchilla_optimum, m3
from tests.decision import synthetic
from tests.decision.synthetic import CHINCHILLA, DRAWS, TRUTH, scattered, wide

WIDE = {
    "params": (1e3, 1e12), "tokens": (1e3, 1e12), "source_tokens": (0.0, 1e12), "epochs": (0.1, 200.0),
    "last_stage_share": (0.05, 1.0),
}  # fmt: skip
FRESH = {"epochs": (0.001, 1.0), "params": (1e3, 1e9), "tokens": (1e3, 1e9)}
OPEN = {"params": (0.0, math.inf), "tokens": (0.0, math.inf), "epochs": (0.0, math.inf)}


def request(law: Law, compute: float, U: float, cost: Cost | None = None, **given) -> Space:
    given = {"bounds": {}, "freeze": {}} | given
    with jax.enable_x64(True):
        return space(synthetic.runs(), law, compute=compute, target_tokens=U, cost=cost or six_nd(), **given)


def solved(found: Space, law: Law, c) -> dict[str, Optima]:
    with jax.enable_x64(True):
        parts, _ = faces(found)
    return {regime: optima(Surface(law, found.cost), c, {}, regime, parts[regime]) for regime in parts}


def least(of_regimes: dict[str, Optima]) -> Optima:
    return min(of_regimes.values(), key=lambda optima: optima.loss.mean())


def joint(found: Space, law: Law, c, risk: Risk, regime: str) -> Best:
    with jax.enable_x64(True):
        parts, _ = faces(found)
    starts = [np.full(4, 0.5)] * len(parts[regime])
    return best(Surface(law, found.cost), risk, c, {}, regime, parts[regime], starts)


@pytest.mark.parametrize("case", range(20))
def test_optima_of_draws_are_those_of_a_slow_search(case):
    """20 budgets and wide posteriors, the bounds those of the runs or far beyond, corners of all kinds among them."""
    rng = np.random.default_rng(1000 + case)
    c = wide(case)
    found = request(
        m3(), 10 ** rng.uniform(11.5, 15.5), 10 ** rng.uniform(4.5, 6), bounds=[{}, WIDE][case % 2]
    )
    loss = np.min([optimum.loss for optimum in solved(found, m3(), c).values()], axis=0)
    slow = synthetic.slow_search(synthetic.draw(c, 3 * case), found)
    # the slow search may stop short of the optimum, never below it
    assert slow * (1 - 1e-4) <= loss[3 * case] <= slow * (1 + 1e-9)


def test_chinchillas_optimum_is_the_closed_form():
    law, c, U = chinchilla(), scattered(CHINCHILLA, 0), 1e6
    found = request(law, 1e15, U, bounds=OPEN, freeze={"r": 1.0})
    optimum = least(solved(found, law, c))
    N, D = chinchilla_optimum(c, 1e15)
    assert optimum.loss == pytest.approx(
        c["E"] + c["A"] * N ** -c["alpha"] + c["B"] * D ** -c["beta"], rel=1e-12
    )
    # flat at the optimum: the place is known to the square root of the loss's rounding
    assert optimum.columns["params"] == pytest.approx(np.asarray(N), rel=1e-6)
    assert optimum.columns["epochs"] == pytest.approx(np.asarray(D) / U, rel=1e-6)


def test_source_text_never_helps_a_law_of_target_tokens():
    law, c = chinchilla(), scattered(CHINCHILLA, 1)
    of_regimes = solved(request(law, 1e13, 1e6), law, c)
    alone = of_regimes.pop("monolingual").loss
    for optimum in of_regimes.values():
        assert np.all(optimum.loss >= alone * (1 - 1e-12))


def test_where_r_is_held_at_one_one_stage_is_monolingual():
    law, c = chinchilla(), scattered(CHINCHILLA, 0)
    found = request(law, 1e15, 1e6, bounds=OPEN, freeze={"r": 1.0})
    with jax.enable_x64(True):
        parts, _ = faces(found)
    shared = optima_by_regime(Surface(law, found.cost), c, {}, parts)
    assert shared["single-stage"] is shared["monolingual"]
    np.testing.assert_allclose(
        shared["single-stage"].loss, solved(found, law, c)["single-stage"].loss, rtol=1e-12
    )


def test_one_epoch_is_a_corner_where_overfitting_starts_with_infinite_slope():
    c = scattered(TRUTH | {"delta": 0.4, "P": 1.0}, 2)
    optimum = least(solved(request(m3(), 1e14, 3e5), m3(), c))
    assert np.all(optimum.columns["epochs"] == 1.0)
    # and with the slope gone, nothing holds it there
    c = scattered(TRUTH | {"delta": 1.6, "P": 1e-4}, 2)
    optimum = least(solved(request(m3(), 1e14, 3e5), m3(), c))
    assert np.all(optimum.columns["epochs"] > 1.01)


def test_without_overfitting_optima_depend_on_U_over_fresh_tokens_alone():
    """laws.md: at P = 0, C = 6 N D and no bounds, on x = U / D*(C), exactly."""
    law, c = (
        m3(drop=("P",)),
        {name: v for name, v in scattered(TRUTH, 3).items() if name in m3(drop=("P",)).names},
    )
    bounds = OPEN | {"S": (0.0, math.inf), "r": (1e-6, 1.0), "r_f": (1e-6, 1.0), "share": (0.1, 0.5)}
    one = {name: values[:1].repeat(DRAWS) for name, values in c.items()}
    found = []
    for C, x in ((1e14, 0.05), (1e17, 0.05), (1e17, 0.02)):
        N, D = (float(v[0]) for v in chinchilla_optimum(one, C))
        columns = least(solved(request(law, C, x * D, bounds=bounds), law, one)).columns
        scaled = columns["params"][0] / N
        found.append(
            [scaled, *(float(columns[name][0]) for name in ("epochs", "target_ratio", "final_ratio"))]
        )
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0] != pytest.approx(found[2], rel=1e-2)


def test_a_users_cost_is_solved_for():
    """With a cost that only counts N twice over, the optimum is that of 6 N D at half the compute."""
    law, c = chinchilla(), scattered(CHINCHILLA, 4)
    twice = Cost("12ND", lambda N, D: 12.0 * jnp.asarray(N) * D)
    bounds = {"params": (1e3, 1e9), "epochs": (0.01, 1e3), "tokens": (1e3, 1e9)}
    by_half = solved(request(law, 0.5e13, 1e6, bounds=bounds, freeze={"r": 1.0}), law, c)
    by_cost = solved(request(law, 1e13, 1e6, cost=twice, bounds=bounds, freeze={"r": 1.0}), law, c)
    assert least(by_cost).loss == pytest.approx(least(by_half).loss, rel=1e-12)
    assert least(by_cost).columns["params"] == pytest.approx(least(by_half).columns["params"], rel=1e-5)


@pytest.mark.parametrize("compute", [1e12, 3e14])
def test_the_joint_optimum_is_no_worse_than_a_dense_grid(compute):
    c, found = scattered(TRUTH, 5), request(m3(), compute, 3e5)
    with jax.enable_x64(True):
        parts, _ = faces(found)
        t = jnp.asarray(np.random.default_rng(0).uniform(size=(1500, 4)) * 1.4 - 0.2).clip(0, 1)
        risks = jax.jit(
            lambda face: jax.lax.map(
                lambda t: objectives(Surface(m3(), found.cost), mean(), c, {})[0](face, t), t, batch_size=100
            )
        )
        for regime, several in parts.items():
            dense = min(float(risks(arrays(face)).min()) for face in several)
            assert joint(found, m3(), c, mean(), regime).risk <= dense


def test_the_best_loss_differentiates_in_compute():
    """d L* / d log C: by the envelope theorem it is the objective's derivative at the optimum, held still."""
    c, compute, step = scattered(TRUTH, 6), 2e13, 1e-3

    def at(log_C: float) -> Best:
        return joint(request(m3(), math.exp(log_C), 3e5), m3(), c, mean(), "two-stage")

    here = at(math.log(compute))
    assert 0 < here.t[1] < 1  # an optimum inside, along k at least
    with jax.enable_x64(True):
        surface = Surface(m3(), six_nd())

        def value(log_C):
            return objectives(surface, mean(), c, {})[0](here.face._replace(log_C=log_C), jnp.asarray(here.t))

        slope = float(jax.grad(value)(math.log(compute)))
    ends = [at(math.log(compute) + sign * step).risk for sign in (1, -1)]
    assert slope < 0
    assert slope == pytest.approx((ends[0] - ends[1]) / 2 / step, rel=1e-5)


def test_the_optimum_differentiates_implicitly():
    """dt/dlog C = -H^-1 d2L/dt dlogC over the free coordinates, through the same objective."""
    law, c = chinchilla(), scattered(CHINCHILLA, 7)
    found = request(law, 1e13, 1e8, bounds=FRESH, freeze={"r": 1.0})
    here = joint(found, law, c, mean(), "monolingual")
    with jax.enable_x64(True):
        surface, t = Surface(law, six_nd()), jnp.asarray(here.t)

        def value(t_k, log_C):
            return objectives(surface, mean(), c, {})[0](here.face._replace(log_C=log_C), t.at[1].set(t_k))

        t_k, log_C = here.t[1], math.log(1e13)
        assert 0 < t_k < 1 and here.t[0] == 1.0
        bend, cross = (jax.grad(jax.grad(value), argnums=i)(t_k, log_C) for i in (0, 1))
        slope = -float(cross / bend)

        def moved(step: float) -> float:
            shifted = jax.jit(lambda t: newton(jax.vmap(lambda t: value(t[1], log_C + step), in_axes=1), t))
            return float(shifted(jnp.asarray(here.t)[:, None]).t[1, 0])

        assert slope == pytest.approx((moved(1e-2) - moved(-1e-2)) / 2e-2, rel=1e-3)


def test_a_risk_with_kinks_is_minimised_too():
    """The worst draw's loss: Newton alone stops where two draws are equally bad."""
    law, c = chinchilla(), scattered(CHINCHILLA, 8, spread=0.2)
    worst = Risk("worst draw", jnp.max)
    found = request(law, 1e13, 1e8, bounds=FRESH, freeze={"r": 1.0})
    recipe = joint(found, law, c, worst, "monolingual")
    D = np.exp(np.linspace(np.log(1e5), np.log(1e8), 20001))
    N = 1e13 / 6 / D
    losses = c["E"] + c["A"] * N[:, None] ** -c["alpha"] + c["B"] * D[:, None] ** -c["beta"]
    assert recipe.risk <= losses.max(axis=1).min() * (1 + 1e-5)


def test_newton_finds_the_minimum_of_quadratics_in_a_box():
    rng = np.random.default_rng(9)
    A = rng.normal(size=(50, 4, 4))
    H = A @ A.transpose(0, 2, 1) + 0.1 * np.eye(4)
    centre = rng.uniform(-0.5, 1.5, size=(50, 4))
    with jax.enable_x64(True):

        def f(t):
            return 1 + jnp.einsum("ib,bij,jb->b", t - centre.T, H, t - centre.T)

        found = jax.jit(lambda t: newton(f, t))(jnp.full((4, 50), 0.5))
    t = np.full((50, 4), 0.5)
    for _ in range(20000):  # projected gradient, slowly
        t = np.clip(t - 0.01 * np.einsum("bij,bj->bi", H, t - centre), 0, 1)
    expected = 1 + np.einsum("bi,bij,bj->b", t - centre, H, t - centre)
    assert np.asarray(found.value) == pytest.approx(expected, rel=1e-8)
    assert np.all((np.asarray(found.t) >= 0) & (np.asarray(found.t) <= 1))


def test_newton_never_goes_up_and_leaves_saddles():
    with jax.enable_x64(True):
        starts = jnp.asarray(np.random.default_rng(10).uniform(size=(2, 40)))

        def f(t):
            return jnp.sin(9 * t[0]) * jnp.cos(7 * t[1]) + t[0] * t[1]

        found = jax.jit(lambda t: newton(f, t))(starts)
        assert np.all(np.asarray(found.value) <= np.asarray(f(starts)))
        saddle = jax.jit(lambda t: newton(lambda t: (t[0] - 0.5) ** 2 - (t[1] - 0.501) ** 2, t))(
            jnp.full((2, 1), 0.5)
        )
        assert float(saddle.value[0]) == pytest.approx(-(0.501**2))


@pytest.mark.parametrize("kind", ["quantile", "cvar", "probability"])
def test_risks_with_kinks_are_no_worse_than_a_dense_grid(kind):
    """Along the budget, where all is known in one dimension, with as many kinks as the draws have places."""
    c = scattered(CHINCHILLA, 6)
    found = request(chinchilla(), 1e15, 1e6, bounds=OPEN, freeze={"r": 1.0})
    D = np.exp(np.linspace(np.log(1e4), np.log(1e12), 20_001))[:, None]
    loss = c["E"] + c["A"] * (1e15 / 6 / D) ** -c["alpha"] + c["B"] * D ** -c["beta"]
    limit = 1.001 * float(np.median(loss.min(axis=0)))  # about half of the draws can stay below it
    measured = {
        "quantile": risk.quantile(0.9),
        "cvar": risk.cvar(0.9),
        "probability": risk.probability_of(limit),
    }[kind]
    smallest = joint(found, chinchilla(), c, measured, "monolingual").risk
    with jax.enable_x64(True):
        dense = np.asarray(jax.jit(jax.vmap(measured))(jnp.asarray(loss)))
    assert 0 < dense.min() < dense.max()
    assert smallest <= dense.min() * (1 + 1e-6)
