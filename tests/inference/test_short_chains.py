"""Many short chains: they start and are judged in groups, and give the posterior of few long ones."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import m3bayes as m3
from m3bayes.errors import FitError
from m3bayes.inference.data import canonical
from m3bayes.inference.diagnostics import nested_r_hat
from m3bayes.inference.fit import first_starts, next_starts
from m3bayes.inference.mode import find_mode
from m3bayes.inference.noise import normal
from m3bayes.inference.sampler import Chain
from tests.inference.many_tables import LAW, SHORT, table

MANY = {"noise": normal(), "chains": 128, "draws": 32}


@pytest.mark.parametrize("devices", [(), tuple(jax.devices()[:1])])
def test_posteriors_are_those_of_long_chains(devices):
    found = m3.fit_many([table(0)], LAW, **MANY, devices=devices)["0"]
    assert found.verdict == "passed" and found.draws["beta"].shape == (128, 32)
    one, other = found.summary(), m3.fit(table(0), LAW, **SHORT, progress=False).summary()
    assert (abs(one["mean"] - other["mean"]) < 4 * np.hypot(one["mcse_mean"], other["mcse_mean"])).all()
    np.testing.assert_allclose(one["sd"], other["sd"], rtol=0.2)
    np.testing.assert_array_equal(one.loc["beta", "r_hat"], nested_r_hat(found.draws["beta"][None], 16)[0])


def test_neighbouring_chains_start_together():
    with jax.enable_x64(True):
        mode = find_mode(
            LAW, normal(), 0, canonical(table(0), LAW, normal()).arrays, np.random.default_rng(0)
        )
    _, starts, _ = first_starts(mode, 64, 0, 16)
    assert starts.shape == (64, 4) and len(np.unique(starts, axis=0)) == 16
    np.testing.assert_array_equal(starts[::4], first_starts(mode, 16, 0)[1])
    np.testing.assert_array_equal(starts[:4], np.repeat(starts[:1], 4, axis=0))
    ends = np.random.default_rng(1).normal(size=(64, 5, 4))
    _, again = next_starts([Chain(q, {}) for q in ends], 16)
    np.testing.assert_array_equal(again, np.repeat(ends[::4, -1], 4, axis=0))


def test_a_number_of_short_chains_that_makes_no_groups_is_refused():
    with pytest.raises(FitError, match=r"chains is 33, with 50 draws each: .* give 32 or 48, or 200 draws"):
        m3.fit(table(0), LAW, chains=33, draws=50)
