"""Farseer."""

from __future__ import annotations

import jax
import numpy as np
import pandas as pd
import pytest

from m3bayes.laws import farseer, published
from tests.laws.surfaces import FARSEER, loss, recipe, table


def test_public_runs():
    """The published coefficients on the 404 public runs, in bits per character."""
    runs = pd.read_csv(table("size_and_tokens.csv"))
    assert len(runs) == 404
    x = {name: runs[name].to_numpy(float) for name in farseer().columns}
    predicted = np.asarray(jax.vmap(farseer().loss, (None, 0))(published("farseer").coefficients, x))
    residual = runs["loss"] - predicted
    r2 = 1 - np.sum(residual**2) / np.sum((runs["loss"] - runs["loss"].mean()) ** 2)
    assert r2 == pytest.approx(0.9987, abs=1e-4)


def test_the_data_exponent_falls_with_size():
    def exponent(N):
        at = [
            np.log(loss(farseer(), {**FARSEER, "S": -60.0}, recipe(params=N, target_tokens=T)))
            for T in (1e9, 1e10)
        ]
        return (at[0] - at[1]) / np.log(10)

    assert exponent(1e8) > exponent(1e9) > exponent(1e10)
    assert exponent(1e9) == pytest.approx(np.exp(FARSEER["A"] * 1e9 ** FARSEER["a"] + FARSEER["E"]))


def test_larger_models_are_better_where_it_was_fitted():
    at = [loss(farseer(), FARSEER, recipe(params=N, target_tokens=5e10)) for N in (1e8, 4e8, 1.6e9, 6.4e9)]
    assert (np.diff(at) < 0).all()


def test_its_coefficients_belong_to_tokens():
    """N can be converted by ``at``, D cannot: that is why the law is not equivariant."""
    law, c, x = farseer(), FARSEER, recipe()
    sizes = {a.name: next(iter(a.at.values())) for a in law.coefficients if a.at}
    assert sizes == {"s": "q", "B": "b", "A": "a"}
    thousands = {**c, **{name: c[name] * 1e3 ** c[power] for name, power in sizes.items()}}
    assert loss(law, thousands, {**x, "params": x["params"] / 1e3}) == pytest.approx(loss(law, c, x))
    assert not law.equivariant
    slope = float(jax.grad(law.log_loss, argnums=1)(c, x)["target_tokens"]) * x["target_tokens"]
    assert slope < -0.01  # no coefficient's ``at`` could take a unit of tokens up
    assert not any(law.references[q].tokens for a in law.coefficients for q in a.at)


def test_published_values_are_inside_the_priors():
    """At N0 = 1e9 every published value lies within two standard deviations of its prior."""
    c, keys = published("farseer").coefficients, jax.random.split(jax.random.key(0), 9)
    for coefficient, key in zip(farseer().coefficients, keys, strict=True):
        value = c[coefficient.name]
        for power in coefficient.at.values():
            value *= 1e9 ** c[power]
        draws = np.asarray(coefficient.prior.sample(key, (1000,)))
        assert 0.03 < np.mean(draws < value) < 0.97, coefficient.name
