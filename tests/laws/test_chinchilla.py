"""Chinchilla, and its optimum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.laws import chinchilla, chinchilla_optimum, published
from tests.laws.surfaces import MAIN, loss, recipe


def test_published_value():
    # by hand: 70e9 parameters, 1.4e12 tokens
    c = published("hoffmann").coefficients
    expected = 1.69337 + 406.40 / 70e9**0.33917084 + 410.72 / 1.4e12**0.2849083
    assert loss(chinchilla(), c, recipe(params=70e9, target_tokens=1.4e12)) == pytest.approx(expected)


def test_repeated_tokens_count_in_full():
    once, again = recipe(target_tokens=8e9), recipe(target_tokens=2e9, epochs=4.0)
    assert loss(chinchilla(), MAIN, once) == pytest.approx(loss(chinchilla(), MAIN, again), rel=1e-14)


def test_source_tokens_count_if_asked():
    mixed, pure = recipe(target_tokens=2e9, target_ratio=0.25), recipe(target_tokens=8e9)
    assert loss(chinchilla("all"), MAIN, mixed) == pytest.approx(loss(chinchilla(), MAIN, pure), rel=1e-14)
    assert loss(chinchilla(), MAIN, mixed) == loss(chinchilla(), MAIN, recipe(target_tokens=2e9))


@settings(max_examples=30, deadline=None)
@given(
    compute=st.floats(17, 26).map(lambda e: 10.0**e),
    name=st.sampled_from(["hoffmann", "besiroglu"]),
    off=st.floats(-0.5, 0.5).filter(lambda v: abs(v) > 0.01),
)
def test_the_optimum_cannot_be_bettered(compute, name, off):
    c = published(name).coefficients
    N, D = chinchilla_optimum(c, compute)
    assert pytest.approx(compute) == 6 * N * D
    best = loss(chinchilla(), c, recipe(params=N, target_tokens=D))
    other = loss(chinchilla(), c, recipe(params=N * np.exp(off), target_tokens=D * np.exp(-off)))
    assert other > best


def test_the_optimum_of_draws():
    draws = {name: value * np.array([1.0, 1.1]) for name, value in MAIN.items()}
    N, D = chinchilla_optimum(draws, np.array([[1e20], [1e22]]))
    assert N.shape == D.shape == (2, 2)
    assert (N[1, 0], D[1, 0]) == pytest.approx(chinchilla_optimum(MAIN, 1e22))


def test_published_proportion():
    # G of the data-constrained fit, where alpha = beta: N* = G sqrt(C / 6)
    N, D = chinchilla_optimum(published("muennighoff").coefficients, 6.0)
    assert pytest.approx(0.22580, abs=5e-6) == N
    assert pytest.approx(1 / 0.22580, abs=1e-4) == D
