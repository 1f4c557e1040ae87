"""The coordinates in which a posterior is searched and sampled.

Sites (reference-scaled coefficients, sigma, nu) are mapped to a real vector q. Each site goes through the
bijection of its prior's support. For additive laws the scales E, A, B, P are replaced by *profile*
coordinates: the mean over the runs of the log surface, and the log odds of each term against the terms
before it, every term taken at its own geometric mean over the runs at the current exponents. The data
determine the first and often the second kind, whatever the exponents are, which takes the curvature out
of the (log A, alpha) sheets. Against the logs of the scales this map has Jacobian 1: given the exponents
it is a shift and a triangular map with unit diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, biject_to
from numpyro.infer.util import log_density

from m3bayes.inference.data import log_at_reference
from m3bayes.inference.model import model, site_priors
from m3bayes.inference.noise import Noise
from m3bayes.laws.law import Law

Sites = dict[str, Array]


@dataclass(frozen=True, eq=False)
class Coordinates:
    """``to_sites(q, arrays)`` and ``from_sites(sites, arrays)`` between q (dim,) and {site: value};
    ``potential(q, arrays)`` is minus the log posterior density of q, up to a constant."""

    dim: int
    to_sites: Callable[[Array, Mapping], Sites]
    from_sites: Callable[[Mapping[str, ArrayLike], Mapping], Array]
    potential: Callable[[Array, Mapping], Array]


@lru_cache(maxsize=64)
def coordinates(law: Law, noise: Noise, n_groups: int) -> Coordinates:
    """The coordinates of a law's posterior under a noise model."""
    sites_of = site_priors(law, noise, n_groups)
    scales = scale_names(law)
    free = [name for name in sites_of if name not in scales]
    sizes = [int(np.prod(sites_of[name].shape(), dtype=int)) for name in free]
    dim = len(scales) + sum(sizes)

    def to_sites(q: Array, arrays: Mapping) -> Sites:
        sites, _ = split(q)
        if scales:
            sites |= _scales_from_profile(law, scales, q[: len(scales)], sites, arrays)
        return {name: sites[name] for name in sites_of}

    def split(q: Array) -> tuple[Sites, Array]:
        """Sites other than scales, and the log Jacobian of their bijections."""
        sites, log_jacobian, at = {}, jnp.zeros(()), len(scales)
        for name, size in zip(free, sizes, strict=True):
            bijection = biject_to(sites_of[name].support)
            value = q[at : at + size].reshape(sites_of[name].shape())
            sites[name] = bijection(value)
            log_jacobian += jnp.sum(bijection.log_abs_det_jacobian(value, sites[name]))
            at += size
        return sites, log_jacobian

    def from_sites(sites: Mapping[str, ArrayLike], arrays: Mapping) -> Array:
        parts = [_profile_from_scales(law, scales, sites, arrays)] if scales else []
        parts += [jnp.ravel(biject_to(sites_of[name].support).inv(sites[name])) for name in free]
        return jnp.concatenate(parts)

    def potential(q: Array, arrays: Mapping) -> Array:
        others, log_jacobian = split(q)
        sites = dict(others)
        if scales:
            scaled = _scales_from_profile(law, scales, q[: len(scales)], others, arrays)
            sites |= scaled
            # densities of the scales are with respect to their logs
            log_jacobian += sum(jnp.log(value) for value in scaled.values())
        log_posterior, _ = log_density(model, (law, noise, n_groups, arrays), {}, sites)
        energy = -(log_posterior + log_jacobian)
        return jnp.where(jnp.isfinite(energy), energy, jnp.inf)

    return Coordinates(dim, jax.jit(to_sites), jax.jit(from_sites), jax.jit(potential))


def sample_prior(sites_of: Mapping[str, Distribution], key: Array) -> Sites:
    """One draw of every site from its prior."""
    keys = jax.random.split(key, len(sites_of))
    return {
        name: jnp.asarray(prior.sample(k)) for (name, prior), k in zip(sites_of.items(), keys, strict=True)
    }


def log_shapes(law: Law, sites: Mapping[str, ArrayLike], arrays: Mapping) -> tuple[Array, Array]:
    """Log of each term's shape at each run (run, term), 0 where it vanishes, and where it does not."""
    assert law.shapes is not None
    shapes = jax.vmap(law.shapes, in_axes=(None, 0))(sites, arrays["x"])
    values = jnp.stack([jnp.broadcast_to(shapes[n], arrays["y"].shape) for n in scale_names(law)], axis=1)
    present = values > 0
    return jnp.log(jnp.where(present, values, 1.0)), present


def scale_names(law: Law) -> tuple[str, ...]:
    """The scale coefficients of an additive law, in the order of its shapes."""
    if law.shapes is None:
        return ()
    probe = jax.eval_shape(law.shapes, dict.fromkeys(law.names, 1.0), dict.fromkeys(law.columns, 1.0))
    return tuple(name for name in law.names if name in probe)


class _Terms(NamedTuple):
    """Terms of the surface at the current exponents, one entry a term.

    ``centred`` (run, term) log shapes about their means over the runs, -inf where a term is absent;
    ``offset`` log of the reference-scaled scale minus log of the term at its mean;
    ``leverage`` log of how much the term varies over the runs a unit of its share
    """

    centred: Array
    offset: Array
    leverage: Array


def _terms(law: Law, scales: tuple[str, ...], sites: Mapping[str, ArrayLike], arrays: Mapping) -> _Terms:
    logs, present = log_shapes(law, sites, arrays)
    weight = (arrays["weight"] > 0)[:, None]
    count = (weight & present).sum(0)
    mean = jnp.where(weight & present, logs, 0.0).sum(0) / jnp.maximum(count, 1)
    at_reference = jnp.stack([log_at_reference(law, name, sites, arrays["reference"]) for name in scales])
    # a term that no run has is centred where its prior is
    mean = jnp.where(count > 0, mean, at_reference)
    centred = jnp.where(present, logs - mean, -jnp.inf)
    # E + B N^-beta with a small exponent is E' + B' log N: the data see share times spread, so that is the
    # coordinate, where a term is there in all runs and varies
    everywhere = count == weight.sum()
    square = jnp.where(weight & present, (logs - mean) ** 2, 0.0).sum(0) / jnp.maximum(count, 1)
    varies = everywhere & (square > 1e-12)
    leverage = jnp.where(varies, jnp.log(jnp.where(varies, square, 1.0)) / 2, 0.0)
    return _Terms(centred, at_reference - mean, leverage)


def _mean_log_surface(log_terms: Array, centred: Array, arrays: Mapping) -> Array:
    # a term can be absent from a run (-inf) without making the gradient NaN: E is always there
    surface = jax.nn.logsumexp(log_terms + centred, axis=1)
    weight = arrays["weight"] > 0
    return jnp.where(weight, surface, 0.0).sum() / weight.sum()


def _scales_from_profile(law, scales, profile: Array, sites, arrays) -> Sites:
    terms = _terms(law, scales, sites, arrays)
    odds = profile[1:] - terms.leverage[1:]
    # before[j] is the log of the sum of the terms before the j-th, the first term being 1
    before = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jax.nn.softplus(odds))[:-1]])
    log_terms = jnp.concatenate([jnp.zeros(1), (odds + before)[: len(scales) - 1]])
    level = profile[0] - _mean_log_surface(log_terms, terms.centred, arrays)
    return {
        name: jnp.exp(value) for name, value in zip(scales, log_terms + level + terms.offset, strict=True)
    }


def _profile_from_scales(law, scales, sites, arrays) -> Array:
    terms = _terms(law, scales, sites, arrays)
    log_terms = jnp.log(jnp.stack([sites[name] for name in scales])) - terms.offset
    odds = [log_terms[j] - jax.nn.logsumexp(log_terms[:j]) + terms.leverage[j] for j in range(1, len(scales))]
    return jnp.stack([_mean_log_surface(log_terms, terms.centred, arrays), *odds])
