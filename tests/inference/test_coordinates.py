"""Coordinates: a bijection with the Jacobian it claims, and a smooth potential."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import biject_to
from numpyro.infer.util import log_density

from m3bayes.inference.coordinates import coordinates, sample_prior, scale_names
from m3bayes.inference.data import canonical
from m3bayes.inference.model import model, site_priors
from m3bayes.inference.noise import student_t
from m3bayes.laws import all_laws, chinchilla, m3
from m3bayes.laws.law import Law
from tests.inference import simulated

LAWS = [*all_laws(), m3(drop=("P",))]


def prepared(law: Law, seed: int):
    recipes = simulated.mixed(30).assign(languages=[1.0, 2.0, 8.0] * 10, continued=[0.0, 1.0] * 15)
    runs = simulated.measured(m3(), simulated.M3, recipes)
    arrays = canonical(runs, law, student_t()).arrays
    sites = sample_prior(site_priors(law, student_t(), 0), jax.random.key(seed))
    return coordinates(law, student_t(), 0), arrays, sites


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_round_trip_jacobian_and_gradient(law: Law):
    with jax.enable_x64(True):
        for seed in range(2):
            space, arrays, sites = prepared(law, seed)
            q = space.from_sites(sites, arrays)
            assert q.shape == (space.dim,)
            for name, value in space.to_sites(q, arrays).items():
                np.testing.assert_allclose(value, sites[name], rtol=1e-8)

            # density of q = density of the sites times |d sites / d q|, by brute force
            names = list(sites)

            def flat(q, space=space, arrays=arrays, names=names):
                found = space.to_sites(q, arrays)
                return jnp.concatenate([jnp.ravel(found[name]) for name in names])

            log_posterior, _ = log_density(model, (law, student_t(), 0, arrays), {}, sites)
            _, log_jacobian = np.linalg.slogdet(jax.jacfwd(flat)(q))
            potential = space.potential(q, arrays)
            assert float(potential) == pytest.approx(-float(log_posterior) - log_jacobian, rel=1e-7, abs=1e-6)

            gradient = np.asarray(jax.grad(space.potential)(q, arrays))
            step = 1e-6 * jnp.eye(space.dim)
            ends = jax.vmap(space.potential, in_axes=(0, None))(jnp.concatenate([q + step, q - step]), arrays)
            difference = (ends[: space.dim] - ends[space.dim :]) / 2e-6
            scale = max(1.0, abs(float(potential)))
            np.testing.assert_allclose(gradient, difference, rtol=1e-4, atol=1e-5 * scale)


def test_first_coordinate_is_the_mean_log_surface():
    with jax.enable_x64(True):
        space, arrays, sites = prepared(chinchilla(), 0)
        q = space.from_sites(sites, arrays)
        from m3bayes.inference.model import log_surface

        counted = arrays["weight"] > 0
        assert float(q[0]) == pytest.approx(float(log_surface(chinchilla(), sites, arrays)[counted].mean()))
        higher = space.to_sites(q.at[0].add(0.1), arrays)
        for name in ("E", "A", "B"):  # a change of level multiplies every term
            assert float(higher[name] / sites[name]) == pytest.approx(np.exp(0.1))


def test_outside_the_support_is_infinitely_unlikely():
    with jax.enable_x64(True):
        space, arrays, sites = prepared(chinchilla(), 0)
        q = space.from_sites(sites, arrays)
        assert space.potential(q.at[0].set(20.0), arrays) == jnp.inf  # E far above the median loss


def test_scales_are_found_in_the_law_s_order():
    assert scale_names(m3()) == ("E", "A", "B", "P")
    assert scale_names(m3(drop=("P",))) == ("E", "A", "B")
    assert next(law for law in all_laws() if law.log_shapes is None)
    assert all(scale_names(law) == () for law in all_laws() if law.log_shapes is None)


def test_prior_draws_are_inside_their_supports():
    sites_of = site_priors(m3(), student_t(), 0)
    drawn = sample_prior(sites_of, jax.random.key(3))
    assert all(bool(sites_of[name].support(value).all()) for name, value in drawn.items())
    assert all(
        np.isfinite(biject_to(sites_of[name].support).inv(value)).all() for name, value in drawn.items()
    )
