"""Notes on what is spent and what cannot be; recipes that bounds leave out by a hair."""

from __future__ import annotations

import dataclasses

import jax

from m3bayes.decision.cost import hours, six_nd
from m3bayes.decision.recommendation import miscounted
from m3bayes.decision.residuals import residuals, unspendable, unused
from m3bayes.decision.space import Space, space
from m3bayes.errors import Note
from m3bayes.laws import m3
from m3bayes.recipe import Recipe
from tests.decision import synthetic
from tests.decision.synthetic import TRUTH, posterior, scattered

RUNS = synthetic.runs()
LARGEST = 6 * float(RUNS["params"].max()) * float(RUNS.tokens.max())


def request(compute: float, **bounds) -> Space:
    with jax.enable_x64(True):
        return space(RUNS, m3(), compute=compute, target_tokens=3e5, cost=six_nd(), bounds=bounds, freeze={})


def test_compute_beyond_the_largest_recipe_is_said():
    assert not unspendable(request(0.99 * LARGEST))
    (note,) = unspendable(request(2 * LARGEST))
    assert note.code == "COMPUTE_UNUSED" and f"{LARGEST:.4g}" in note.message
    assert not unspendable(request(2 * LARGEST, params=(None, 1e30), tokens=(None, 1e30)))


def test_what_is_left_unused_names_the_bounds_that_hold_it():
    asked = request(2 * LARGEST)
    N, D = asked["params"].high, asked["tokens"].high
    at_its_largest = Recipe(N, 3e5, D / 3e5, 1.0, 1.0)
    (note,) = unused(residuals(asked, at_its_largest), asked)
    assert asked["params"].high_text in note.message and asked["tokens"].high_text in note.message
    (note,) = unused(residuals(asked, Recipe(N / 2, 3e5, D / 2 / 3e5, 1.0, 1.0)), asked)
    assert "overfit" in note.message


def test_a_recipe_just_outside_is_told_by_how_much():
    asked = request(LARGEST, params=(None, 1e6))
    why = asked.why_not(Recipe(1e6 * (1 + 3e-6), 3e5, 2.0, 1.0, 1.0))
    assert why is not None and why.endswith("by 3e-06 of it")
    why = asked.why_not(Recipe(2e6, 3e5, 2.0, 1.0, 1.0))
    assert why is not None and "of it" not in why


def test_six_nd_is_questioned_where_the_table_logged_something_else():
    post = posterior(scattered(TRUTH, 0), RUNS, m3())
    note = Note("FLOPS_DIFFER", "logged", ("flops",))
    logged = dataclasses.replace(post, runs=dataclasses.replace(RUNS, notes=(note,)))
    assert miscounted(logged, six_nd()) == [note]
    assert not miscounted(post, six_nd()) and not miscounted(logged, hours(1e15, 0.4))
