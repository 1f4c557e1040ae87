"""Law, prior and noise as ONE NumPyro model: prior, posterior and simulation all come from it.

Sample sites are the law's reference-scaled coefficients, ``sigma`` and, for Student-t noise, ``nu``; the
observed site ``log_loss`` is the log of loss / median loss, one value a run.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from m3bayes.inference.data import unscale
from m3bayes.inference.noise import Noise
from m3bayes.laws import priors
from m3bayes.laws.law import Law

# numpyro's handlers are one stack for all threads: whoever runs the model under some holds this
HANDLERS = threading.Lock()


class _StudentT(dist.StudentT):
    """Student-t with a cheaper normalising constant, for nu >= 1: log gamma and its derivative are long programs,
    and this is in every gradient of the sampler."""

    def log_prob(self, value: ArrayLike, intermediates=None) -> Array:
        nu, scale = jnp.asarray(self.df), jnp.asarray(self.scale)
        t = (jnp.asarray(value) - jnp.asarray(self.loc)) / scale
        constant = log_gamma_ratio(nu / 2) - 0.5 * jnp.log(jnp.pi * nu) - jnp.log(scale)
        return constant - (nu + 1) / 2 * jnp.log1p(t**2 / nu)


def log_gamma_ratio(x: ArrayLike) -> Array:
    """log Gamma(x + 1/2) - log Gamma(x), to 1e-14 for x >= 1/2: Stirling's series beyond 8, by recurrence."""
    x = jnp.asarray(x)
    ratio = jnp.ones(())
    for k in range(8):
        ratio = ratio * (x + k) / (x + k + 0.5)
    y = x + 8
    series = 0.0
    for coefficient in (691 / 180224, -31 / 18432, 17 / 14336, -1 / 640, 1 / 192, -1 / 8):
        series = series / y**2 + coefficient
    return jnp.log(ratio) + jnp.log(y) / 2 + series / y


def noise_priors(noise: Noise, n_groups: int) -> dict[str, dist.Distribution]:
    """{site: prior}: sigma of log loss (one, or one a group), and nu - 2 ~ Gamma(2, .1)."""
    sigma = priors.log_normal(0.008, 1.0)
    sites = {"sigma": sigma.expand((n_groups,)).to_event(1) if noise.by else sigma}
    if noise.kind == "student-t":
        sites["nu"] = dist.TransformedDistribution(
            dist.Gamma(2.0, 0.1), dist.transforms.AffineTransform(2.0, 1.0, domain=dist.constraints.positive)
        )
    return sites


def site_priors(law: Law, noise: Noise, n_groups: int) -> dict[str, dist.Distribution]:
    """{site: prior} of everything that is sampled, in a fixed order."""
    return {**{c.name: c.prior for c in law.coefficients}, **noise_priors(noise, n_groups)}


def log_surface(law: Law, scaled: Mapping[str, ArrayLike], arrays: Mapping) -> Array:
    """(padded,) log loss of every run, relative to the median loss."""
    c = unscale(law, scaled, arrays["reference"])
    return jax.vmap(law.log_loss, in_axes=(None, 0))(c, arrays["x"])


def observation(
    noise: Noise, location: ArrayLike, sites: Mapping[str, ArrayLike], arrays: Mapping
) -> dist.Distribution:
    """Distribution of the measured log losses about the surface."""
    sigma = jnp.asarray(sites["sigma"])
    sigma = sigma[arrays["group"]] if noise.by else sigma
    scale = jnp.sqrt(sigma**2 + arrays["relative_se"] ** 2) if noise.known else sigma
    if noise.kind == "student-t":
        return _StudentT(sites["nu"], location, scale)
    return dist.Normal(location, scale)


def model(
    law: Law,
    noise: Noise,
    n_groups: int,
    arrays: Mapping,
    observed: bool = True,
    surface: Array | None = None,
) -> None:
    """The NumPyro model; ``observed=False`` simulates log losses from the prior.

    ``surface`` is what :func:`log_surface` gives at the sites, where the caller has it already.
    """
    sites = {name: numpyro.sample(name, prior) for name, prior in site_priors(law, noise, n_groups).items()}
    location = log_surface(law, sites, arrays) if surface is None else surface
    counted = arrays["weight"] > 0
    weight = jnp.where(counted, arrays["weight"], 1.0)
    with (
        numpyro.plate("run", arrays["y"].shape[0]),
        numpyro.handlers.mask(mask=counted),
        numpyro.handlers.scale(scale=weight),
    ):
        numpyro.sample(
            "log_loss", observation(noise, location, sites, arrays), obs=arrays["y"] if observed else None
        )
