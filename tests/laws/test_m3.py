"""M3: the limits and identities it promises."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.laws import atlas, chinchilla, chinchilla_optimum, data_constrained, m3, prescriptive
from m3bayes.laws.m3 import log_effective_tokens, worth_of_epochs
from tests.laws.surfaces import MAIN, coefficients, loss, plausible, recipe, recipes

few = settings(max_examples=20, deadline=None)


@few
@given(c=coefficients(m3()), x=recipes())
def test_one_epoch_of_target_text_is_chinchilla(c, x):
    x = {**x, "epochs": 1.0, "target_ratio": 1.0, "final_ratio": 1.0}
    main = {name: c[name] for name in MAIN}
    assert loss(m3(), c, x) == pytest.approx(loss(chinchilla(), main, x), rel=1e-13)


@few
@given(c=coefficients(m3(), P=0.0), x=recipes())
def test_without_source_text_its_data_term_is_muennighoffs(c, x):
    x = {**x, "target_ratio": 1.0, "final_ratio": 1.0}
    other = data_constrained(drop=("R_N",))
    assert loss(m3(), c, x) == pytest.approx(
        loss(other, {**{n: c[n] for n in MAIN}, "R_D": 1 / c["lambda"]}, x), rel=1e-12
    )


@few
@given(c=coefficients(atlas()), x=recipes())
def test_additive_source_text_is_atlas(c, x):
    nested = m3(drop=("P", "eta", "gamma"))
    assert loss(nested, c, x) == pytest.approx(loss(atlas(), c, x), rel=1e-12)


@few
@given(c=coefficients(prescriptive()), x=recipes())
def test_with_repeats_in_full_and_no_source_text_it_is_prescriptive(c, x):
    nested = m3(drop=("lambda", "tau", "gamma", "omega"))
    assert loss(nested, c, x) == pytest.approx(loss(prescriptive(), c, x), rel=1e-12)


@few
@given(c=coefficients(m3()), x=recipes(), share=st.floats(0.1, 1.0))
def test_below_one_epoch_only_the_tokens_seen_matter(c, x, share):
    x = {**x, "epochs": 1.0}
    part = {**x, "epochs": share, "target_tokens": x["target_tokens"] / share}
    assert loss(m3(), c, part) == pytest.approx(loss(m3(), c, x), rel=1e-13)


@few
@given(c=coefficients(m3()), x=recipes())
def test_continuous_at_one_epoch(c, x):
    below, at, above = (loss(m3(), c, {**x, "epochs": k}) for k in (1 - 1e-13, 1.0, 1 + 1e-13))
    assert below == pytest.approx(at, rel=1e-9)
    assert above == pytest.approx(at, rel=1e-9)


def test_the_first_repetition_can_cost_infinitely_much():
    """For delta < 1 the penalty's slope grows without bound as k falls to 1."""
    c = plausible(m3(), delta=0.5)
    at = loss(m3(), c, recipe())
    slope = [(loss(m3(), c, recipe(epochs=1 + step)) - at) / step for step in (1e-4, 1e-6, 1e-8)]
    assert slope[1] > 5 * slope[0] > 0
    assert slope[2] > 5 * slope[1]


@few
@given(c=coefficients(m3(), P=0.0), x=recipes(), more=st.floats(0.01, 1.0))
def test_ending_on_the_target_and_more_source_text_help(c, x, more):
    """With P = 0: r_f up (gamma > 0), or r down at the same target tokens (tau > 0), is never worse."""
    here = loss(m3(), c, x)
    pure = {**x, "final_ratio": x["final_ratio"] + more * (1 - x["final_ratio"])}
    mixed = {**x, "target_ratio": x["target_ratio"] / (1 + more)}
    assert loss(m3(), c, pure) <= here
    assert loss(m3(), c, mixed) < here


@few
@given(c=coefficients(m3()), x=recipes())
def test_overfitting_only_costs(c, x):
    cost = loss(m3(), c, x) - loss(m3(), {**c, "P": 0.0}, x)
    assert cost > 0 if x["epochs"] > 1 else cost == 0


def test_bilingual_transfer_score():
    """BTS = 2 - 2^(1 + gamma) / (1 + tau) at eta = 1, where ATLAS has 2 - 2 / (1 + tau)."""
    c, d = plausible(m3(), eta=1.0, P=0.0), 4e9
    alone = loss(m3(), c, recipe(target_tokens=d))
    bts = 2 - 2 ** (1 + c["gamma"]) / (1 + c["tau"])
    bilingual = d * (2 - bts)  # tokens needed, since BTS = -(bilingual - 2 d) / d
    mixed = recipe(target_tokens=bilingual / 2, target_ratio=0.5, final_ratio=0.5)
    assert loss(m3(), c, mixed) == pytest.approx(alone, rel=1e-13)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_how_far_source_text_can_stand_in(eta):
    """With S fixed and U -> 0: at eta = 1 D_eff tends to tau S, below 1 to nothing."""
    c, S = plausible(m3(), eta=eta), 1e10
    few_tokens = [recipe(target_tokens=U, target_ratio=U / (U + S)) for U in (1e4, 1e2)]
    D_eff = [float(jnp.exp(log_effective_tokens(c, x))) for x in few_tokens]
    if eta == 1:
        assert D_eff == pytest.approx([c["tau"] * S] * 2, rel=1e-4)
    else:
        assert D_eff[1] / D_eff[0] == pytest.approx(100 ** -(1 - eta), rel=1e-3)
    # the first source token is worth tau at any eta
    pure, touch = recipe(target_tokens=1e9), recipe(target_tokens=1e9, target_ratio=1 / (1 + 1e-6))
    gain = float(jnp.exp(log_effective_tokens(c, touch)) - jnp.exp(log_effective_tokens(c, pure)))
    assert gain == pytest.approx(c["tau"] * 1e9 * 1e-6, rel=1e-4)


@pytest.mark.parametrize("repetition", [0.0, 1e-9, 0.07, 3.0])
def test_worth_of_epochs(repetition):
    k = np.array([0.2, 1.0, 1.5, 4.0, 40.0])
    worth = np.asarray(worth_of_epochs(k, repetition))
    # the sum over infinitesimal epochs of what each is still worth
    expected = [
        v
        if v <= 1
        else 1 + np.trapezoid(np.exp(-repetition * np.linspace(0, v - 1, 20001)), dx=(v - 1) / 20000)
        for v in k
    ]
    np.testing.assert_allclose(worth, expected, rtol=1e-6)
    if repetition == 3.0:
        assert worth_of_epochs(1e9, repetition) == pytest.approx(1 + 1 / 3)


def scaled_surface(c, compute: float, x: float) -> np.ndarray:
    """(L - E) / A N*^-alpha over a grid of (k, r), r_f = 1, at 6 N D = compute and U = x D*(C)."""
    N_best, D_best = (float(v) for v in chinchilla_optimum(c, compute))
    U = x * D_best
    k, r = np.meshgrid(np.geomspace(0.1, 60, 80), np.linspace(0.02, 1, 50), indexing="ij")
    grid = {**recipe(target_tokens=U, epochs=k, target_ratio=r), "params": compute * r / (6 * U * k)}
    excess = np.asarray(m3().loss({**c, "E": 0.0}, {n: jnp.asarray(v) for n, v in grid.items()}))
    return excess / (c["A"] * N_best ** -c["alpha"])


def test_optima_collapse():
    """At P = 0 and C = 6 N D the optimum depends on U and C through U / D*(C) alone, exactly."""
    c = plausible(m3(), P=0.0)
    small, large = scaled_surface(c, 1e18, 0.1), scaled_surface(c, 1e24, 0.1)
    np.testing.assert_allclose(small, large, rtol=1e-10)
    ample = scaled_surface(c, 1e18, 2.0)
    epochs = [np.unravel_index(surface.argmin(), surface.shape)[0] for surface in (small, large, ample)]
    assert epochs[0] == epochs[1]
    assert epochs[0] > epochs[2]


def test_optima_do_not_collapse_exactly_with_overfitting():
    c = plausible(m3())
    assert not np.allclose(scaled_surface(c, 1e18, 0.1), scaled_surface(c, 1e24, 0.1), rtol=1e-3)
