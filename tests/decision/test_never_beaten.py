"""Recommendations of 200 random posteriors of ten laws, at random budgets, are never beaten.

Not by a dense grid, which knows nothing of faces, and which comes to within 1e-6 of them once it is refined; not by
a baseline that is feasible; and no risk's recipe by another's on its own risk. Bounds are those of the runs, far
beyond them, or held, so that corners of all kinds are among the optima.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import biject_to

from m3bayes.decision import Risk, risk
from m3bayes.decision.baselines import baselines
from m3bayes.decision.choice import Choice, choices, search, simplest
from m3bayes.decision.cost import six_nd
from m3bayes.decision.optimize import Surface, optima_by_regime
from m3bayes.decision.residuals import residuals
from m3bayes.decision.several_budgets import faces_within
from m3bayes.decision.space import RECIPE, space
from m3bayes.errors import InfeasibleError
from m3bayes.laws import Law, named
from m3bayes.runs import Runs, runs_from_frame
from tests.decision import synthetic
from tests.laws.surfaces import plausible

LAWS = ("m3", "chinchilla", "data_constrained", "target_ratio", "atlas", "prescriptive", "practical", "farseer",
        "staged", "dcpt")  # fmt: skip
CASES, DRAWS, BLOCK = 20, 8, 512
RISKS = (
    risk.mean(), risk.quantile(0.75), risk.cvar(0.75), risk.regret_quantile(0.75), risk.regret_cvar(0.75),
)  # fmt: skip
WIDE = {
    "params": (1e5, 1e13), "tokens": (1e6, 1e14), "source_tokens": (0.0, 1e14), "epochs": (0.1, 200.0),
    "last_stage_share": (0.05, 1.0),
}  # fmt: skip
ASKED: tuple[dict[str, Any], ...] = (
    {"bounds": {}, "freeze": {}},
    {"bounds": WIDE, "freeze": {}},
    {"bounds": {"k": (0.7, 4.0)}, "freeze": {"r": 0.3}},
    {"bounds": {"S": (None, 1e9)}, "freeze": {}},
)


def runs() -> Runs:
    """Runs of every kind of recipe, N from 3e7 to 2e10."""
    frame = synthetic.runs().frame()
    return runs_from_frame(
        frame.assign(params=1e3 * frame["params"], target_tokens=1e3 * frame["target_tokens"])
    )


RUNS = runs()


def drawn(law: Law, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Coefficients scattered about plausible ones: a posterior's place first, then its draws."""
    place, width = random.normal(0, 0.5, len(law.names)), 10 ** random.uniform(-2, -0.5)
    c = {}
    with jax.enable_x64(True):
        for shift, (name, value) in zip(place, plausible(law).items(), strict=True):
            bijection = biject_to(law[name].prior.support)
            # some plausible coefficients are in another unit than their prior
            real = float(bijection.inv(jnp.asarray(value))) if _inside(law, name, value) else None
            noise = shift * 0.3 + random.normal(0, width, DRAWS)
            c[name] = value * np.exp(noise) if real is None else np.asarray(bijection(real + noise))
    return c


def _inside(law: Law, name: str, value: float) -> bool:
    support = law[name].prior.support
    assert support is not None
    return bool(support(jnp.asarray(value)))


class Case:
    """A posterior, a request, and what the library finds: of each draw, and for all together."""

    def __init__(self, law: Law, number: int):
        random = np.random.default_rng([zlib.crc32(law.name.encode()), number])
        self.law, self.c = law, drawn(law, random)
        self.post = synthetic.posterior(self.c, RUNS, law)
        compute, target_tokens = 10 ** random.uniform(17.5, 21.5), 10 ** random.uniform(7.5, 9)
        with jax.enable_x64(True):
            self.space = space(
                RUNS, law, compute=compute, target_tokens=target_tokens, cost=six_nd(), **ASKED[number % len(ASKED)]
            )  # fmt: skip
            self.faces, _ = faces_within(self.space)
            self.surface, self.extra = Surface(law, six_nd()), self.space.further_columns(law)
            self.found = optima_by_regime(self.surface, self.c, self.extra, self.faces)
        self.least = np.min([optimum.loss for optimum in self.found.values()], axis=0)

    def best(self, minimised: Risk) -> Choice:
        with jax.enable_x64(True):
            of_regimes = search(self.post, self.space, self.faces, minimised, self.least, self.found)
        return simplest(of_regimes.values())

    def feasible_baselines(self) -> list[Choice]:
        with jax.enable_x64(True):
            standing, _ = baselines(self.space, self.surface, self.c, self.extra, {})
            recipes = [baseline.recipe for baseline in standing if baseline.feasible]
            return choices(self.post, risk.mean(), recipes, self.least) if recipes else []


def cases(name: str, count: int) -> Iterator[Case]:
    """So many whose request is feasible."""
    made = 0
    for number in range(3 * count):
        try:
            case = Case(named(name), number)
        except InfeasibleError:
            continue
        made += 1
        yield case
        if made == count:
            return
    raise AssertionError(f"only {made} of {3 * count} requests are feasible")


def naive(case: Case) -> Callable[..., np.ndarray]:
    """(draw, recipe) losses of N, k, r and r_f, (recipe,) each, by the law alone."""
    block = _block(case.law)

    def losses(*recipes: np.ndarray) -> np.ndarray:
        names = ("params", "epochs", "target_ratio", "final_ratio")
        count, parts = len(recipes[0]), []
        with jax.enable_x64(True):
            for start in range(0, count, BLOCK):
                rows = slice(start, start + BLOCK)
                x = {n: np.resize(values[rows], BLOCK) for n, values in zip(names, recipes, strict=True)}
                fixed = {"target_tokens": case.space.target_tokens, **case.extra}
                x |= {n: np.full(BLOCK, value) for n, value in fixed.items()}
                parts.append(np.asarray(block(case.c, x)))
        return np.concatenate(parts, axis=1)[:, :count]

    return losses


@lru_cache
def _block(law: Law):
    return jax.jit(jax.vmap(jax.vmap(law.loss, in_axes=(None, 0)), in_axes=(0, None)))


@pytest.mark.parametrize("name", LAWS)
def test_no_optimum_is_above_a_dense_grid_and_none_below_a_refined_one(name):
    corners: Counter[str] = Counter()
    for number, case in enumerate(cases(name, CASES)):
        best, losses = case.best(risk.mean()), naive(case)
        draw = number % DRAWS
        compared = [(best.risk, lambda *x, of=losses: of(*x).mean(axis=0))]
        if number % 2:
            compared.append((case.least[draw], lambda *x, of=losses, draw=draw: of(*x)[draw]))
        for mine, of_recipes in compared:
            dense, refined = synthetic.slowly(of_recipes, case.space)
            assert mine <= dense * (1 + 1e-12), (number, case.space)
            assert mine == pytest.approx(refined, rel=1e-6), (number, case.space)
        # what is found can be trained, has the loss that it is said to have, and no baseline is better
        with jax.enable_x64(True):
            assert case.space.why_not(best.recipe) is None
            table = residuals(case.space, best.recipe)
        x = (np.array([getattr(best.recipe, variable)]) for variable in RECIPE)
        assert losses(*x).mean() == pytest.approx(best.risk, rel=1e-9)
        assert all(best.risk <= other.risk * (1 + 1e-12) for other in case.feasible_baselines())
        corners.update(table["quantity"][table["binding"].to_numpy(bool) & (table["sense"] != "=")])
        corners["case"] += 1
    assert corners["case"] == CASES
    # a test of optima inside alone would not be one
    assert len(corners) >= 3, corners


@pytest.fixture(scope="module")
def by_risk() -> list[tuple[Case, list[Choice]]]:
    return [(case, [case.best(each) for each in RISKS]) for case in cases("m3", 8)]


def test_no_risks_recipe_is_worse_on_its_own_risk_than_anothers(by_risk):
    apart = 0
    for case, found in by_risk:
        for measured, own in zip(RISKS, found, strict=True):
            with jax.enable_x64(True):
                others = choices(case.post, measured, [other.recipe for other in found], case.least)
            # kinks of quantiles are approached, not hit
            slack = 1e-5 * float(own.loss.mean())
            assert all(own.risk <= other.risk + slack for other in others), measured.name
            apart += any(other.risk > own.risk + 10 * slack for other in others)
    # the risks want different recipes, or this would show nothing
    assert apart > len(by_risk)
