"""fit_many in batches: the posteriors of fit up to Monte Carlo error, the same gate, any number of devices."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import m3bayes as m3
from m3bayes.errors import FitError
from m3bayes.inference import batched as batched_module
from m3bayes.inference.batched_mode import descents, mode_of
from m3bayes.inference.data import canonical
from m3bayes.inference.mode import find_mode, prior_starts
from tests.inference.many_tables import LAW, SHORT, table, tables

TABLES = {**tables(3), "long": table(7, rows=40)}
BAD = table(9).select(np.arange(30) < 2)


@pytest.fixture(scope="module")
def batched():
    return m3.fit_many({**TABLES, "bad": BAD}, LAW, **SHORT, devices=jax.devices()[:1], batch=2)


def in_standard_errors(one, other) -> float:
    """The largest difference of two means."""
    a, b = one.summary(), other.summary()
    return float((abs(a["mean"] - b["mean"]) / np.hypot(a["mcse_mean"], b["mcse_mean"])).max())


def test_posteriors_are_those_of_fit(batched):
    for name, runs in TABLES.items():
        alone, found = m3.fit(runs, LAW, **SHORT, progress=False), batched[name]
        assert found.verdict == "passed"
        assert in_standard_errors(found, alone) < 4, name
        for draws in ("E", "beta", "sigma"):
            assert found.draws[draws].std() == pytest.approx(alone.draws[draws].std(), rel=0.25)
        assert found.constants == alone.constants and found.runs is runs
        assert found.log_likelihood.shape[-1] == len(runs)


def test_the_device_is_named_and_failures_are_rows(batched):
    device = f"1 x {jax.devices()[0].device_kind}"
    assert (batched.table["device"] == device).all()
    assert batched["long"].settings["device"] == device
    assert list(batched.table.index) == [*TABLES, "bad"]
    assert batched.table.loc["bad", "verdict"] == "failed"
    assert "2 runs, expected at least" in batched.table.loc["bad", "error"]


def test_what_misses_the_gate_is_tried_again_and_then_flagged():
    found = m3.fit_many(tables(3), LAW, **SHORT | {"draws": 8}, devices=jax.devices()[:1], batch=2)
    assert list(found.table["verdict"]) == ["flagged"] * 3 and list(found.table["attempts"]) == [3] * 3
    for name in tables(3):
        post = found[name]
        assert post.draws["E"].shape == (4, 4 * 8) and post.settings["target_accept"] == 0.99
        assert {"ESCALATED", "ESS_BULK"} <= {note.code for note in post.notes}


def test_modes_are_those_of_fit():
    noise = SHORT["noise"]
    with jax.enable_x64(True):
        canonicals = [canonical(runs, LAW, noise) for runs in tables(3).values()]
        starts = [prior_starts(LAW, np.random.default_rng(number)) for number in range(3)]
        arrays = jax.tree.map(lambda *leaves: np.stack(leaves), *(dict(one.arrays) for one in canonicals))
        ends = map(np.asarray, jax.jit(descents(LAW, noise, 0))(np.stack(starts), arrays))
        for number, (q, potential, hessian) in enumerate(zip(*ends, strict=True)):
            found = mode_of(LAW, q, potential, hessian)
            alone = find_mode(LAW, noise, 0, canonicals[number].arrays, np.random.default_rng(number))
            assert found.potential[0] == pytest.approx(alone.potential[0], abs=1e-6)
            np.testing.assert_allclose(found.hessian, alone.hessian, rtol=1e-3, atol=1e-2)


def test_calibrations_go_through_batches_too(monkeypatch):
    monkeypatch.setattr("m3bayes.inference.batched.BATCH", 2)
    settings = {"simulations": 3, "draws": 300, "noise": SHORT["noise"]}
    found = m3.calibrate(LAW, table(0), **settings, devices=jax.devices()[:1])
    alone = m3.calibrate(LAW, table(0), **settings)
    assert not found.ranks.isna().any(axis=None) and list(found.ranks) == list(alone.ranks)
    # of 99 draws of two samples of one posterior; ranks of their own have sd 5 at most
    assert (abs(found.ranks - alone.ranks) < 5 * 5 * np.sqrt(2)).all(axis=None)


def test_few_tables_are_not_filled_up_to_a_whole_batch(monkeypatch):
    sizes = []
    sample = batched_module._sample
    monkeypatch.setattr(batched_module, "_sample", lambda *given: (sizes.append(given[-1]), sample(*given)))
    m3.fit_many(tables(3), LAW, **SHORT, devices=jax.devices()[:1])
    assert set(sizes) == {8}


def test_a_batch_of_no_table_is_refused():
    with pytest.raises(FitError, match="batch is 0"):
        m3.fit_many(TABLES, LAW, **SHORT, devices=jax.devices(), batch=0)


EIGHT = """
import hashlib, sys
import jax
import m3bayes as m3
from tests.inference.many_tables import LAW, SHORT, tables
for count in (1, 2, 8):
    found = m3.fit_many(tables(10), LAW, **SHORT, devices=jax.devices()[:count], batch=2)
    assert set(found.table["device"]) == {f"{count} x cpu"}
    digest = hashlib.sha256(b"".join(found[name].draws["beta"].tobytes() for name in tables(10)))
    means = [found[name].draws["beta"].mean() for name in tables(10)]
    print(digest.hexdigest(), *means)
"""


def test_eight_devices_give_the_numbers_of_two_and_agree_with_one():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    ran = subprocess.run(
        [sys.executable, "-c", EIGHT], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    one, two, eight = (line.split() for line in ran.stdout.splitlines())
    assert two == eight
    alone = m3.fit_many(tables(10), LAW, **SHORT)
    for number, name in enumerate(tables(10)):
        beta = alone.posteriors[name].summary().loc["beta"]
        for found in (one, eight):
            assert abs(float(found[1 + number]) - beta["mean"]) < 4 * np.sqrt(2) * beta["mcse_mean"], name
