"""The global mode, against scipy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from m3bayes.errors import FitError
from m3bayes.inference.coordinates import coordinates, sample_prior
from m3bayes.inference.data import canonical
from m3bayes.inference.mode import find_mode, newton, non_negative_least_squares
from m3bayes.inference.model import site_priors
from m3bayes.inference.noise import student_t
from m3bayes.inference.simulate import simulate
from m3bayes.laws import chinchilla, law, m3
from tests.inference import simulated


def test_non_negative_least_squares_matches_scipy():
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        for _ in range(30):
            design = random.uniform(size=(20, 4)) ** 2
            target = design @ np.maximum(random.normal(size=4), 0) + 0.3 * random.normal(size=20)
            weight = random.integers(0, 2, 20).astype(float)
            found = np.asarray(non_negative_least_squares(design, target, weight))
            expected, _ = optimize.nnls(design * weight[:, None], target * weight)
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_newton_leaves_saddles_and_ends_at_a_minimum():
    def double_well(q):
        values = (q[:, 0] ** 2 - 2) ** 2 + 0.5 * (q[:, 1] - 1) ** 2
        return values, np.stack([4 * q[:, 0] * (q[:, 0] ** 2 - 2), q[:, 1] - 1], axis=1)

    q, values, hessians = newton(double_well, np.array([[1e-3, 5.0], [-2.0, 0.0]]))
    np.testing.assert_allclose(q, [[np.sqrt(2), 1], [-np.sqrt(2), 1]], atol=1e-6)
    np.testing.assert_allclose(values, 0, atol=1e-10)
    np.testing.assert_allclose(hessians, [np.diag([16.0, 1.0])] * 2, atol=1e-3)


def test_of_starts_that_meet_the_better_one_goes_on():
    def bowl(q):
        return np.sum(q**2, axis=1) / 2, q

    q, values, _ = newton(bowl, np.array([[1.01, 0.01], [1.0, 0.0], [30.0, 0.0]]))
    assert list(np.isfinite(values)) == [False, True, True]
    np.testing.assert_allclose(q[1:], 0, atol=1e-6)


@pytest.mark.parametrize("surface", [chinchilla(), m3()], ids=lambda v: v.name)
def test_never_worse_than_scipy_from_many_starts(surface):
    design = simulated.measured(m3(), simulated.M3, simulated.mixed(50))
    space = coordinates(surface, student_t(), 0)
    with jax.enable_x64(True):
        value_and_gradient = jax.jit(jax.value_and_grad(space.potential))
        for seed in range(4):
            made = simulate(surface, design, jax.random.key(seed))
            arrays = canonical(made.runs, surface, student_t(), made.constants).arrays
            mode = find_mode(surface, student_t(), 0, arrays, np.random.default_rng(0))
            best = np.inf
            for start in range(12):
                sites = sample_prior(site_priors(surface, student_t(), 0), jax.random.key(start))
                found = optimize.minimize(
                    lambda q, arrays=arrays: tuple(
                        np.asarray(v, float) for v in value_and_gradient(q, arrays)
                    ),
                    np.asarray(space.from_sites(sites, arrays)),
                    jac=True,
                    method="L-BFGS-B",
                )
                best = min(best, found.fun) if np.isfinite(found.fun) else best
            assert mode.potential[0] <= best + 1e-6 * abs(best)
            assert (np.diff(mode.potential) >= 0).all()
            gradient = np.asarray(value_and_gradient(jnp.asarray(mode.q[0]), arrays)[1])
            whitened = gradient @ np.linalg.solve(mode.hessian, gradient)
            assert whitened < 1e-6  # nats still to be gained


def test_recovers_the_truth_without_noise():
    runs = simulated.measured(chinchilla(), simulated.CHINCHILLA, simulated.monolingual(60), sigma=1e-4)
    with jax.enable_x64(True):
        canon = canonical(runs, chinchilla(), student_t())
        mode = find_mode(chinchilla(), student_t(), 0, canon.arrays, np.random.default_rng(0))
        sites = coordinates(chinchilla(), student_t(), 0).to_sites(jnp.asarray(mode.q[0]), canon.arrays)
    assert float(sites["alpha"]) == pytest.approx(0.34, abs=2e-3)
    assert float(sites["beta"]) == pytest.approx(0.285, abs=2e-3)
    assert float(sites["E"]) * canon.scale["loss"] == pytest.approx(1.7, abs=0.01)


def test_a_law_without_finite_losses_is_named():
    broken = law("broken", lambda c, x: jnp.log(-x["params"] * c["E"]), [chinchilla()["E"]])
    runs = simulated.measured(chinchilla(), simulated.CHINCHILLA, simulated.monolingual(20))
    with jax.enable_x64(True):
        arrays = canonical(runs, broken, student_t()).arrays
        with pytest.raises(FitError, match="law broken gives no finite likelihood"):
            find_mode(broken, student_t(), 0, arrays, np.random.default_rng(0))
