"""Optima from neighbours' optima: those of a search from scratch; and points of faces back from recipes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3bayes.decision.budgets import regime_optima, request
from m3bayes.decision.faces import arrays, faces, recipe_at
from m3bayes.decision.nearby import point_of
from tests.decision import synthetic
from tests.decision.synthetic import posterior, wide

POST = posterior(wide(7), synthetic.runs())


@pytest.mark.parametrize("compute, text", [(3e13, 2e5), (1e15, 1e6)])
def test_they_are_those_of_a_search_from_scratch(compute, text):
    asked = request(POST, None, None)
    near = [regime_optima(asked, asked.at(compute, text * factor)) for factor in (0.5, 2.0)]
    space = asked.at(compute, text)
    scratch, found = regime_optima(asked, space), regime_optima(asked, space, near)
    assert set(found) == set(scratch)
    for regime, optima in found.items():
        excess = optima.loss / scratch[regime].loss - 1
        # draws as wide as the prior: a few may have an optimum of their own that no neighbour knows
        assert np.mean(excess > 1e-9) <= 0.05 and excess.max() < 1e-2


def test_a_point_of_a_face_comes_back_from_its_recipe():
    asked = request(POST, None, None)
    space = asked.at(1e14, 3e5)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        parts, _ = faces(space)
        for face in map(arrays, parts["two-stage"]):
            recipe = recipe_at(face, jnp.asarray(rng.uniform(size=4)), space.cost)
            again = recipe_at(face, point_of(face, recipe, space.cost), space.cost)
            for name, value in recipe.items():
                assert float(again[name]) == pytest.approx(float(value), rel=1e-9)
