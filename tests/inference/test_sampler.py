"""The sampler: chains depend on their key alone, and go on bit for bit from where they were kept."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from m3bayes.inference import sampler
from m3bayes.inference.coordinates import coordinates
from m3bayes.inference.data import canonical
from m3bayes.inference.mode import find_mode
from m3bayes.inference.noise import normal
from m3bayes.inference.sampler import ChainStore, frame_at, frame_of, sample
from m3bayes.laws import chinchilla
from tests.inference import simulated


@pytest.fixture(scope="module")
def problem():
    runs = simulated.measured(chinchilla(), simulated.CHINCHILLA, simulated.monolingual(40))
    with jax.enable_x64(True):
        arrays = canonical(runs, chinchilla(), normal()).arrays
        mode = find_mode(chinchilla(), normal(), 0, arrays, np.random.default_rng(0))
        yield arrays, mode, frame_at(mode.q[0], mode.hessian)


def run(problem, keys=(1, 2), **options):
    arrays, mode, frame = problem
    settings = {"warmup": 100, "draws": 300, "target_accept": 0.9} | options
    starts = np.stack([mode.q[0]] * len(keys))
    with jax.enable_x64(True):
        return sample(
            coordinates(chinchilla(), normal(), 0),
            arrays,
            frame,
            starts,
            [jax.random.key(k) for k in keys],
            **settings,
        )


def test_a_chain_depends_on_its_key_alone(problem):
    together, alone = run(problem), run(problem, keys=(2,))
    np.testing.assert_array_equal(together[1].q, alone[0].q)
    assert not np.array_equal(together[0].q, together[1].q)
    assert together[0].q.shape == (300, 6)
    assert set(together[0].statistics) == set(sampler.STATISTICS)


def test_resumed_chains_are_bit_identical(problem):
    whole = run(problem)
    kept: dict[int, list] = {0: [], 1: []}
    run(problem, store=ChainStore(lambda chain: None, lambda chain, arrays: kept[chain].append(arrays)))
    assert len(kept[0]) == 3  # warm-up, then 250 and 50 draws
    for step in range(3):
        again = run(
            problem, store=ChainStore(lambda chain, s=step: kept[chain][s], lambda chain, arrays: None)
        )
        for chain, expected in zip(again, whole, strict=True):
            np.testing.assert_array_equal(chain.q, expected.q)
            for name, values in expected.statistics.items():
                np.testing.assert_array_equal(chain.statistics[name], values)


def test_progress_is_reported_up_to_the_end(problem):
    calls = []
    run(problem, report=lambda chain, done, divergences: calls.append((chain, done, divergences)))
    assert {chain for chain, _, _ in calls} == {0, 1}
    assert [done for chain, done, _ in calls if chain == 0] == [100, 350, 400]


def test_a_start_outside_the_support_is_brought_inside(problem):
    arrays, mode, frame = problem
    far = mode.q[0].copy()
    far[0] += 30.0  # E above the median loss: no density there
    with jax.enable_x64(True):
        chains = sample(
            coordinates(chinchilla(), normal(), 0), arrays, frame, far[None], [jax.random.key(0)],
            warmup=100, draws=50, target_accept=0.9,
        )  # fmt: skip
    assert np.isfinite(chains[0].statistics["lp"]).all()


def test_frames_whiten():
    random = np.random.default_rng(0)
    root = random.normal(size=(3, 3))
    covariance = root @ root.T
    axes = np.asarray(frame_at(np.zeros(3), np.linalg.inv(covariance)).axes)
    np.testing.assert_allclose(axes @ axes.T, covariance, rtol=1e-4, atol=1e-5)
    draws = random.normal(size=(5000, 3)) @ root.T
    axes = np.asarray(frame_of(draws).axes)
    np.testing.assert_allclose(axes @ axes.T, np.cov(draws, rowvar=False), rtol=1e-4, atol=1e-5)


def test_where_one_chain_fails_the_others_end_with_their_chunk(problem):
    written: list[int] = []

    def fail(chain: int, done: int, divergences: int) -> None:
        if chain == 0:
            raise ZeroDivisionError("in chain 0")

    def write(chain: int, arrays) -> None:
        if chain == 1:
            written.append(int(arrays["done"]))

    with pytest.raises(ZeroDivisionError, match="in chain 0"):
        run(problem, draws=100_000, report=fail, store=ChainStore(lambda chain: None, write))
    assert max(written, default=0) < 50_000
