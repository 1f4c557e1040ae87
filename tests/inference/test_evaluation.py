"""Potentials and gradients of many points: those of the coordinates, whatever else is asked for."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from m3bayes.inference.coordinates import coordinates
from m3bayes.inference.data import canonical
from m3bayes.inference.evaluation import FEWEST, MOST, evaluator
from m3bayes.inference.noise import normal
from m3bayes.laws import chinchilla
from tests.inference import simulated


@pytest.fixture(scope="module")
def problem():
    runs = simulated.measured(chinchilla(), simulated.CHINCHILLA, simulated.monolingual(40))
    arrays = canonical(runs, chinchilla(), normal()).arrays
    q = np.random.default_rng(0).normal(size=(2 * MOST + 7, 6)) * 0.3
    return arrays, q


def test_values_and_gradients_are_those_of_the_potential(problem):
    arrays, q = problem
    values, gradients = evaluator(coordinates(chinchilla(), normal(), 0), arrays)(q)
    assert values.shape == (len(q),) and gradients.shape == q.shape
    with jax.enable_x64(True):
        space = coordinates(chinchilla(), normal(), 0)
        one = jax.value_and_grad(space.potential)
        expected = [one(point, arrays) for point in q[::100]]
    np.testing.assert_allclose(values[::100], [value for value, _ in expected], rtol=1e-10)
    np.testing.assert_allclose(gradients[::100], [slope for _, slope in expected], rtol=1e-7, atol=1e-7)


def test_a_point_s_value_does_not_depend_on_its_company(problem, monkeypatch):
    arrays, q = problem
    evaluate = evaluator(coordinates(chinchilla(), normal(), 0), arrays)
    together = evaluate(q)
    for count in (1, FEWEST - 1, 2 * FEWEST, MOST + 1):
        for part, whole in zip(evaluate(q[:count]), together, strict=True):
            np.testing.assert_array_equal(part, whole[:count])
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    for other, whole in zip(
        evaluator(coordinates(chinchilla(), normal(), 0), arrays)(q), together, strict=True
    ):
        np.testing.assert_array_equal(other, whole)


def test_no_density_is_an_infinite_potential(problem):
    arrays, q = problem
    outside = q[:2].copy()
    outside[1, 0] = 20.0  # E far above the median loss
    values, _ = evaluator(coordinates(chinchilla(), normal(), 0), arrays)(outside)
    assert list(np.isfinite(values)) == [True, False]
