"""The priors that the laws share, in reference-scaled coordinates (see ``law.py``)."""

from __future__ import annotations

import math

import jax
import numpyro.distributions as dist
from numpyro.distributions import transforms


def log_normal(median: float, sd: float) -> dist.Distribution:
    """A positive quantity whose log is Normal(log median, sd)."""
    return dist.LogNormal(math.log(median), sd)


def bounded_log_normal(median: float, sd: float, low: float, high: float) -> dist.Distribution:
    """Log-normal cut to (low, high): with an unbounded exponent the mean extrapolated loss is infinite."""
    base = dist.TruncatedNormal(math.log(median), sd, low=math.log(low), high=math.log(high))
    support = dist.constraints.interval(math.log(low), math.log(high))
    return dist.TransformedDistribution(base, transforms.ExpTransform(domain=support))


def logit_normal(location: float, sd: float) -> dist.Distribution:
    """A quantity in (0, 1) whose logit is Normal(location, sd)."""
    return dist.TransformedDistribution(dist.Normal(location, sd), transforms.SigmoidTransform())


def beta(a: float, b: float) -> dist.Distribution:
    """Beta(a, b), the same to the last bit whether or not the law is built under x64."""
    # numpyro keeps these parameters as an array, in the precision of the moment
    with jax.enable_x64(False):
        return dist.Beta(a, b)


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
