"""`fit` agrees with long runs of plain NumPyro on the same model (data/reference), and a wrong posterior does not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import numpyro.distributions as dist
import pytest

from benchmarks.reference_posteriors import FOLDER, LARGEST_R_HAT, REFERENCES, compared, statistics, table
from m3bayes.inference.fit import fit
from m3bayes.laws import priors
from m3bayes.laws.law import Law

# Combined Monte Carlo standard errors. Some 170 figures are compared in all: one of them would be farther off by
# chance once in a hundred such tests.
BOUND = 4.0


def kept(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def disagreements(name: str, law: Law, **settings) -> dict[str, float]:
    """{quantity statistic: difference of a fit of ``law`` to the reference, in standard errors of the difference}"""
    runs = table(name)
    post = fit(runs, law, noise=REFERENCES[name].noise, seed=1, **{"draws": 2000, **settings}, progress=False)
    mine = statistics(compared(law, post.quantities, post.constants, runs))
    found = {}
    for quantity, row in kept(name)["posterior"].items():
        for statistic, (value, error) in mine[quantity].items():
            expected, its_error = row[statistic]
            found[f"{quantity} {statistic}"] = (value - expected) / np.hypot(error, its_error)
    return found


def outside(name: str, law: Law, **settings) -> dict[str, float]:
    return {which: z for which, z in disagreements(name, law, **settings).items() if abs(z) > BOUND}


def with_prior(law: Law, name: str, prior: dist.Distribution) -> Law:
    """The law with another prior of one coefficient."""
    changed = tuple(replace(c, prior=prior) if c.name == name else c for c in law.coefficients)
    return replace(law, coefficients=changed)


@pytest.mark.parametrize("name", REFERENCES)
def test_reference_is_sound_and_belongs_to_its_table(name: str):
    reference, runs = kept(name), table(name)
    assert reference["runs"]["fingerprint"] == runs.fingerprint()
    assert {*REFERENCES[name].law.names, "sigma"} <= reference["posterior"].keys()
    for row in reference["posterior"].values():
        assert row["r_hat"] <= LARGEST_R_HAT
        assert min(row["ess_bulk"], row["ess_tail"]) >= 1000


@pytest.mark.parametrize("name", REFERENCES)
def test_fit_agrees(name: str):
    assert outside(name, REFERENCES[name].law) == {}


@pytest.mark.parametrize("name", REFERENCES)
def test_fit_in_float32_agrees(name: str):
    assert outside(name, REFERENCES[name].law, precision="float32") == {}


def test_many_short_chains_agree():
    assert outside("chinchilla", REFERENCES["chinchilla"].law, chains=128, draws=64) == {}


def test_a_prior_1_3_times_too_wide_is_caught():
    law = with_prior(REFERENCES["m3"].law, "tau", priors.logit_normal(-1.2, 1.3 * 1.2))
    assert {"tau mean", "tau sd"} <= outside("m3", law).keys()


def test_a_dropped_jacobian_is_caught():
    # without the Jacobian of x = exp(q) the density of x lacks a factor x: LogNormal(m, s) is LogNormal(m - s^2, s)
    law = with_prior(REFERENCES["data_constrained"].law, "R_N", dist.LogNormal(np.log(5.0) - 1.0, 1.0))
    assert {"R_N mean", "R_N q50"} <= outside("data_constrained", law).keys()
