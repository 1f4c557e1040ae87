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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float
from numpyro.distributions import Distribution, biject_to
from numpyro.infer.util import log_density

from m3bayes.inference.data import log_at_reference
from m3bayes.inference.model import HANDLERS, log_surface, model, site_priors
from m3bayes.inference.noise import Noise
from m3bayes.laws.law import Law

Sites = dict[str, Array]

PRIOR_DRAWS = 2000


@dataclass(frozen=True, eq=False)
class Coordinates:
    """``to_sites(q, arrays)`` and ``from_sites(sites, arrays)`` between q (dim,) and {site: value};
    ``surface(q, arrays)`` gives the sites and the log surface (run,);
    ``potential(q, arrays)`` is minus the log posterior density of q, up to a constant."""

    dim: int
    surface: Callable[[Array, Mapping], tuple[Sites, Array]]
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

    def located(q: Array, arrays: Mapping) -> tuple[Sites, Array, Array]:
        """Sites, log surface, and the log Jacobian from q."""
        sites, log_jacobian = split(q)
        if scales:
            scaled, surface = scales_from_profile(law, q[: len(scales)], sites, arrays)
            sites |= scaled
            # densities of the scales are with respect to their logs
            log_jacobian += sum(jnp.log(value) for value in scaled.values())
        else:
            surface = log_surface(law, sites, arrays)
        return {name: sites[name] for name in sites_of}, surface, log_jacobian

    def from_sites(sites: Mapping[str, ArrayLike], arrays: Mapping) -> Array:
        parts = [profile_from_scales(law, sites, arrays)] if scales else []
        parts += [jnp.ravel(biject_to(sites_of[name].support).inv(sites[name])) for name in free]
        return jnp.concatenate(parts)

    def potential(q: Array, arrays: Mapping) -> Array:
        sites, surface, log_jacobian = located(q, arrays)
        with HANDLERS:
            log_posterior, _ = log_density(model, (law, noise, n_groups, arrays), {"surface": surface}, sites)
        energy = -(log_posterior + log_jacobian)
        return jnp.where(jnp.isfinite(energy), energy, jnp.inf)

    return Coordinates(
        dim,
        surface=jax.jit(lambda q, arrays: located(q, arrays)[:2]),
        to_sites=jax.jit(lambda q, arrays: located(q, arrays)[0]),
        from_sites=jax.jit(from_sites),
        potential=jax.jit(potential),
    )


def sample_prior(sites_of: Mapping[str, Distribution], key: Array) -> Sites:
    """One draw of every site from its prior."""
    keys = jax.random.split(key, len(sites_of))
    return {
        name: jnp.asarray(prior.sample(k)) for (name, prior), k in zip(sites_of.items(), keys, strict=True)
    }


def real_line(law: Law, sites: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """The reference-scaled coefficients among the sites, each on the real line."""
    return {c.name: jnp.asarray(biject_to(c.prior.support).inv(sites[c.name])) for c in law.coefficients}


@lru_cache(maxsize=64)
def prior_on_real_line(law: Law) -> Mapping[str, Float[np.ndarray, " draw"]]:
    """PRIOR_DRAWS draws from the prior of each coefficient by itself, as :func:`real_line` has them."""

    @jax.jit
    def draw():
        # one key for all: alike priors are drawn once, and nothing here looks at two coefficients together
        key = jax.random.key(0)
        return real_line(law, {c.name: c.prior.sample(key, (PRIOR_DRAWS,)) for c in law.coefficients})

    with jax.enable_x64(True):
        return {name: np.asarray(values) for name, values in draw().items()}


def scale_names(law: Law) -> tuple[str, ...]:
    """The scale coefficients of an additive law, in the order of its coefficients."""
    if law.log_shapes is None:
        return ()
    probe = jax.eval_shape(law.log_shapes, dict.fromkeys(law.names, 1.0), dict.fromkeys(law.columns, 1.0))
    return tuple(name for name in law.names if name in probe)


def log_shapes(
    law: Law, sites: Mapping[str, ArrayLike], arrays: Mapping, wanted: Sequence[str] | None = None
) -> dict[str, Array]:
    """{scale: (run,)} log of the shape of each term at each run, -inf where the term is absent.

    ``wanted`` are the scales whose terms are looked at, all of the law's by default.
    """
    assert law.log_shapes is not None
    scales = scale_names(law)
    # shapes are of canonical coefficients, and one that is no scale can have a reference too
    free = {
        c.name: sites[c.name] * jnp.exp(-log_at_reference(law, c.name, sites, arrays["reference"]))
        for c in law.coefficients
        if c.at and c.name not in scales
    }
    found = jax.vmap(law.log_shapes, in_axes=(None, 0), axis_size=arrays["y"].size)(
        {**sites, **free}, arrays["x"]
    )
    return {name: found[name] for name in (scales if wanted is None else wanted)}


class _Term(NamedTuple):
    """A term of the surface at the current exponents.

    ``centred``  (run,) its log shape about the mean over the runs, -inf where it is absent
    ``offset``   log of its reference-scaled scale minus log of the term at its mean
    ``leverage``  log of how much it varies over the runs a unit of its share
    """

    centred: Array
    offset: Array
    leverage: Array


# Terms are kept apart, and not stacked into one array: the compiler then makes a few loops over the runs of
# all that is done with them, which takes half the time.
def _terms(
    law: Law, sites: Mapping[str, ArrayLike], arrays: Mapping, wanted: Sequence[str] | None
) -> dict[str, _Term]:
    counted = arrays["weight"] > 0
    runs = counted.sum()

    def term(name: str, log_shape: Array) -> _Term:
        present = log_shape > -jnp.inf
        seen = counted & present
        count = seen.sum()

        def mean_of(values: Array) -> Array:
            return jnp.where(seen, values, 0.0).sum() / jnp.maximum(count, 1)

        at_reference = log_at_reference(law, name, sites, arrays["reference"])
        log_shape = jnp.where(present, log_shape, 0.0)
        # a term that no run has is centred where its prior is
        mean = jnp.where(count > 0, mean_of(log_shape), at_reference)
        # E + B N^-beta with a small exponent is E' + B' log N: the data see share times spread, so that is
        # the coordinate, where a term is there in all runs and varies
        square = mean_of((log_shape - mean) ** 2)
        varies = (count == runs) & (square > 1e-12)
        leverage = jnp.where(varies, jnp.log(jnp.where(varies, square, 1.0)) / 2, 0.0)
        return _Term(jnp.where(present, log_shape - mean, -jnp.inf), at_reference - mean, leverage)

    return {name: term(name, shape) for name, shape in log_shapes(law, sites, arrays, wanted).items()}


def _mean_over_runs(values: Array, arrays: Mapping) -> Array:
    counted = arrays["weight"] > 0
    return jnp.where(counted, values, 0.0).sum() / counted.sum()


def _log_of_sum(logs: Sequence[Array]) -> Array:
    """Log of the sum of terms given by their logs, elementwise; a term can be absent (-inf)."""
    largest = jax.lax.stop_gradient(reduce(jnp.maximum, logs))
    largest = jnp.where(largest > -jnp.inf, largest, 0.0)
    return largest + jnp.log(sum((jnp.exp(log - largest) for log in logs), start=jnp.zeros(())))


def scales_from_profile(
    law: Law,
    profile: Array,
    sites: Mapping[str, ArrayLike],
    arrays: Mapping,
    wanted: Sequence[str] | None = None,
) -> tuple[Sites, Array]:
    """The scales at profile coordinates and the other sites, and the log surface (run,) of their terms."""
    terms = _terms(law, sites, arrays, wanted)
    # logs of the terms at their means, the first being 1, and of the sum of those already there
    logs, before = [jnp.zeros(())], jnp.zeros(())
    for term, coordinate in zip(list(terms.values())[1:], profile[1:], strict=True):
        odds = coordinate - term.leverage
        logs.append(before + odds)
        before = before + jax.nn.softplus(odds)
    shape = _log_of_sum([log + term.centred for log, term in zip(logs, terms.values(), strict=True)])
    level = profile[0] - _mean_over_runs(shape, arrays)
    scales = {
        name: jnp.exp(log + level + term.offset)
        for log, (name, term) in zip(logs, terms.items(), strict=True)
    }
    return scales, level + shape


def profile_from_scales(
    law: Law, sites: Mapping[str, ArrayLike], arrays: Mapping, wanted: Sequence[str] | None = None
) -> Array:
    """The profile coordinates of the scales among ``sites``; inverse of :func:`scales_from_profile`."""
    terms = _terms(law, sites, arrays, wanted)
    logs = [jnp.log(sites[name]) - term.offset for name, term in terms.items()]
    surface = _log_of_sum([log + term.centred for log, term in zip(logs, terms.values(), strict=True)])
    odds = [logs[j] - _log_of_sum(logs[:j]) + term.leverage for j, term in enumerate(terms.values()) if j > 0]
    return jnp.stack([_mean_over_runs(surface, arrays), *odds])
