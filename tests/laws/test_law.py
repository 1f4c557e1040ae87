"""What a law is, and laws of one's own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from m3bayes.errors import LawError
from m3bayes.laws import Coefficient, Reference, additive_law, chinchilla, law, m3, without
from m3bayes.laws.law import (
    REFERENCES,
    data_seen,
    source_tokens_seen,
    target_tokens_seen,
    tokens_seen,
)
from tests.laws.surfaces import loss, plausible, recipe


def test_tokens_of_a_recipe():
    x = recipe(target_tokens=2e9, epochs=3.0, target_ratio=0.25)
    assert target_tokens_seen(x) == 6e9
    assert tokens_seen(x) == 24e9
    assert source_tokens_seen(x) == 18e9
    assert source_tokens_seen(recipe(epochs=3.7, target_tokens=1.1e9)) == 0


def test_data_of_a_law_without_ratios():
    assert data_seen("target") == (target_tokens_seen, "T")
    assert data_seen("all") == (tokens_seen, "D")
    with pytest.raises(
        LawError, match=r"^tokens is 'source'; expected 'target' \(T = k U\) or 'all' \(D = T / r\)$"
    ):
        data_seen("source")


def test_reference_quantities():
    x = recipe(params=4e8, target_tokens=2e9, epochs=3.0, target_ratio=0.25)
    values = {name: float(jnp.exp(of.log_value(x))) for name, of in REFERENCES.items()}
    assert values == pytest.approx({"N": 4e8, "U": 2e9, "T": 6e9, "D": 24e9, "k": 2.0, "v": 0.2})
    once = recipe(epochs=1.0)
    assert np.isnan(REFERENCES["k"].log_value(once))
    assert np.isnan(REFERENCES["v"].log_value(once))


def test_coefficients_by_name():
    assert chinchilla()["A"].unit == "loss params^alpha"
    with pytest.raises(
        LawError, match=r"^law chinchilla has no coefficient 'tau'; it has E, A, B, alpha, beta$"
    ):
        chinchilla()["tau"]
    assert repr(chinchilla()) == "Law(chinchilla: E, A, B, alpha, beta)"


def test_what_belongs_to_a_dropped_coefficient_goes_with_it():
    # eta belongs to tau, which belongs to B
    assert m3(drop=("B",)).names == ("E", "A", "P", "alpha", "delta", "kappa", "omega")
    assert m3(drop=("tau",)).names == tuple(n for n in m3().names if n not in ("tau", "eta"))
    assert m3(floor=True, drop=("gamma",)).names == m3(drop=("gamma",)).names
    # where the penalty reads it, tau means something without B
    assert "tau" in m3(penalty_tokens="target+source", drop=("B",)).names


def test_dropping_twice_is_dropping_both():
    twice, once = without(m3(drop=("P",)), ("tau",)), m3(drop=("P", "tau"))
    assert twice.names == once.names
    assert twice.options == once.options == {"drop": ("P", "tau")}
    c, x = {n: plausible(m3())[n] for n in once.names}, recipe(epochs=4.0, target_ratio=0.3)
    assert loss(twice, c, x) == loss(once, c, x)
    assert without(m3(), ()) is m3()


def test_what_cannot_be_dropped():
    with pytest.raises(LawError) as error:
        m3(drop=("alpha",))
    assert str(error.value) == (
        "alpha cannot be dropped from m3: no value switches it off; these can be: "
        "A, B, P, lambda, tau, eta, gamma, kappa, omega"
    )


@pytest.mark.parametrize(
    ("coefficients", "message"),
    [
        ([Coefficient("E", dist.Normal()), Coefficient("E", dist.Normal())],
         "law mine declares E more than once"),
        ([Coefficient("E", dist.Normal(), at={"N": "-alpha"})],
         "law mine: E is scaled by N^(-alpha), but the law has no coefficient 'alpha'"),
        ([Coefficient("E", dist.Normal(), at={"M": "E"})],
         "law mine: E is scaled at 'M', which is no reference quantity; known are N, U, T, D, k, v"),
        ([Coefficient("E", dist.Normal(), owner="A")],
         "law mine: the owner of E is 'A', but the law has no such coefficient; it has E"),
    ],
)  # fmt: skip
def test_a_badly_declared_law(coefficients, message):
    with pytest.raises(LawError) as error:
        law("mine", lambda c, x: jnp.asarray(c["E"]), coefficients)
    assert str(error.value) == message


def test_a_law_of_ones_own():
    """A vocabulary term beside Chinchilla's data term, in twenty lines."""

    def shapes(c, x):
        return {
            "E": jnp.ones(()),
            "B": target_tokens_seen(x) ** -jnp.asarray(c["beta"]),
            "V": jnp.asarray(x["vocabulary"]) ** -jnp.asarray(c["nu"]),
        }

    mine = additive_law(
        "mine",
        shapes,
        [
            Coefficient("E", dist.Beta(2.0, 2.0), "loss", of_loss=True),
            Coefficient("B", dist.LogNormal(-2.0, 1.0), "loss tokens^beta", of_loss=True, at={"T": "-beta"}),
            Coefficient("V", dist.LogNormal(-2.0, 1.0), "loss", of_loss=True, at={"w": "-nu"}, off=0.0),
            Coefficient("beta", dist.Uniform(0.03, 2.0)),
            Coefficient("nu", dist.Uniform(0.03, 2.0), owner="V"),
        ],
        columns=("target_tokens", "epochs", "vocabulary"),
        references={"w": Reference(lambda x: jnp.log(x["vocabulary"]))},
    )
    c = {"E": 1.5, "B": 400.0, "V": 3.0, "beta": 0.3, "nu": 0.2}
    x = {"target_tokens": 1e9, "epochs": 2.0, "vocabulary": 5e4}
    expected = 1.5 + 400 / 2e9**0.3 + 3 / 5e4**0.2
    assert loss(mine, c, x) == pytest.approx(expected, rel=1e-12)
    slope = jax.grad(mine.loss)(c, x)["nu"]
    assert slope == pytest.approx(-3 / 5e4**0.2 * np.log(5e4))
    assert without(mine, ("V",)).names == ("E", "B", "beta")


def test_a_law_of_any_form():
    mine = law(
        "mine",
        lambda c, x: jnp.exp(jnp.asarray(c["slope"]) * jnp.log(x["params"])),
        [Coefficient("slope", dist.Normal(0.0, 1.0))],
        columns=("params",),
        equivariant=False,
    )
    assert mine.log_shapes is None
    assert loss(mine, {"slope": 0.5}, {"params": 16.0}) == pytest.approx(4.0)
