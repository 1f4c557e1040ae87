"""The priors that the laws share, in reference-scaled coordinates (see ``law.py``)."""

from __future__ import annotations

import math
import statistics

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import transforms


class _BoundedLogNormal(dist.LogNormal):
    """LogNormal cut to (low, high). Its normalising constant is a number, worked out once, so that the
    density is a few operations: priors are in every gradient of the sampler."""

    def __init__(self, median: float, sd: float, low: float, high: float):
        super().__init__(math.log(median), sd)
        self.low, self.high = low, high
        self.scores = (math.log(low / median) / sd, math.log(high / median) / sd)
        ends = [statistics.NormalDist().cdf(score) for score in self.scores]
        self.log_mass = math.log(ends[1] - ends[0])

    @property
    def support(self):
        return dist.constraints.interval(self.low, self.high)

    def log_prob(self, value: ArrayLike, intermediates=None) -> Array:
        return jnp.asarray(super().log_prob(value)) - self.log_mass

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        assert key is not None
        scores = jax.random.truncated_normal(key, *self.scores, sample_shape)
        return jnp.clip(jnp.exp(self.loc + self.scale * scores), self.low, self.high)

    def sample_with_intermediates(self, key: Array | None, sample_shape: tuple[int, ...] = ()):
        # what numpyro.sample calls; inherited, it would draw from the log-normal that is not cut
        return self.sample(key, sample_shape), []


class _Beta(dist.Distribution):
    """Beta with its normalising constant worked out once (see :class:`_BoundedLogNormal`), the same to the last
    bit in either precision: numpyro's keeps its parameters as an array in the precision of the moment."""

    def __init__(self, a: float, b: float):
        super().__init__()
        self.a, self.b = float(a), float(b)
        self.log_mass = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    @property
    def support(self):
        return dist.constraints.unit_interval

    def log_prob(self, value: ArrayLike, intermediates=None) -> Array:
        return (self.a - 1) * jnp.log(value) + (self.b - 1) * jnp.log1p(-jnp.asarray(value)) - self.log_mass

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        assert key is not None
        if not (self.a.is_integer() and self.b.is_integer()):
            return jax.random.beta(key, self.a, self.b, sample_shape)
        # the a-th smallest of a + b - 1 uniform numbers, which takes next to no time to compile
        uniform = jax.random.uniform(key, (*sample_shape, int(self.a + self.b) - 1))
        return jnp.sort(uniform)[..., int(self.a) - 1]


def log_normal(median: float, sd: float) -> dist.Distribution:
    """A positive quantity whose log is Normal(log median, sd)."""
    return dist.LogNormal(math.log(median), sd)


def bounded_log_normal(median: float, sd: float, low: float, high: float) -> dist.Distribution:
    """Log-normal cut to (low, high): with an unbounded exponent the mean extrapolated loss is infinite."""
    return _BoundedLogNormal(median, sd, low, high)


def logit_normal(location: float, sd: float) -> dist.Distribution:
    """A quantity in (0, 1) whose logit is Normal(location, sd)."""
    return dist.TransformedDistribution(dist.Normal(location, sd), transforms.SigmoidTransform())


def beta(a: float, b: float) -> dist.Distribution:
    """Beta(a, b), the same to the last bit whether or not the law is built under x64."""
    return _Beta(a, b)


def exponent() -> dist.Distribution:
    """Of model size or data: median .35, within (.03, 2)."""
    return bounded_log_normal(0.35, 0.5, 0.03, 2.0)


def floor() -> dist.Distribution:
    """E relative to the median loss."""
    return beta(2.0, 2.0)


def term() -> dist.Distribution:
    """A main term at the reference run, relative to the median loss."""
    return log_normal(0.15, 1.0)


def overfitting() -> dist.Distribution:
    """The repetition penalty at the reference run, relative to the median loss."""
    return log_normal(0.02, 1.5)
