"""The global mode of a posterior: projection of the scales from many starts, then damped Newton.

Starts are draws of the exponents from their prior. For additive laws the scales that fit best in
relative error, none negative, are found for each start by linear algebra (variable projection). The
best starts are polished by Newton's method with Levenberg-Marquardt damping on the posterior itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float
from numpyro.distributions import biject_to

from m3bayes.errors import FitError
from m3bayes.inference.coordinates import coordinates, log_shapes, prior_on_real_line
from m3bayes.inference.data import log_at_reference
from m3bayes.inference.evaluation import Evaluate, evaluator
from m3bayes.inference.model import log_surface, site_priors
from m3bayes.inference.noise import Noise
from m3bayes.laws.law import Law

STARTS = 512
POLISHED = 24
NEWTON_STEPS = 80
# a projected term is at least this share of the surface, so that its log exists
SMALLEST_SHARE = 1e-3
DIFFERENCE = 1e-5
# tried at every step, times the damping that was best in the last one
DAMPINGS = np.array([1.0, 30.0, 1000.0])
# closer than this, in standard deviations along every axis, two starts have become one
MERGED = 0.1


@dataclass(frozen=True)
class Mode:
    """Optima of a posterior, best first.

    ``q`` (optimum, dim), ``potential`` (optimum,), ``hessian`` (dim, dim) at the best one
    """

    q: Float[np.ndarray, "optimum dim"]
    potential: Float[np.ndarray, " optimum"]
    hessian: Float[np.ndarray, "dim dim"]


def find_mode(law: Law, noise: Noise, n_groups: int, arrays: Mapping, random: np.random.Generator) -> Mode:
    """The global mode and every other optimum met on the way.

    Raises FitError where no start has a finite posterior density.
    """
    evaluate = evaluator(coordinates(law, noise, n_groups), arrays)
    starts = np.asarray(projected(law, noise, n_groups)(prior_starts(law, random), dict(arrays)))
    values, _ = evaluate(starts)
    return best_first(law, *newton(evaluate, starts[np.argsort(values, kind="stable")[:POLISHED]]))


def prior_starts(law: Law, random: np.random.Generator) -> Float[np.ndarray, "start coefficient"]:
    """STARTS draws of the reference-scaled coefficients from their priors, on the real line."""
    drawn = [random.permutation(prior_on_real_line(law)[c.name])[:STARTS] for c in law.coefficients]
    return np.stack(drawn, axis=1)


def best_first(
    law: Law,
    q: Float[np.ndarray, "start dim"],
    potentials: Float[np.ndarray, " start"],
    hessians: Float[np.ndarray, "start dim dim"],
) -> Mode:
    """The mode, from where descents ended; those of infinite potential do not count."""
    finite = np.isfinite(potentials)
    if not finite.any():
        raise FitError(
            f"law {law.name} gives no finite likelihood for any of {STARTS} draws of its prior; "
            "check its formula and the priors of its coefficients"
        )
    order = np.argsort(np.where(finite, potentials, np.inf), kind="stable")[: finite.sum()]
    return Mode(q[order], potentials[order], hessians[order[0]])


@lru_cache(maxsize=32)
def projected(law: Law, noise: Noise, n_groups: int):
    """(reference-scaled coefficients on the real line (start, coefficient), arrays) -> q (start, dim): the scales
    are projected, sigma is taken from the residuals."""
    sites_of = site_priors(law, noise, n_groups)
    space = coordinates(law, noise, n_groups)

    def start(real: Array, arrays) -> Array:
        sites: dict[str, Array] = {
            c.name: jnp.asarray(biject_to(c.prior.support)(value))
            for c, value in zip(law.coefficients, real, strict=True)
        }
        if law.log_shapes is not None:
            sites |= _projected_scales(law, sites, arrays)
        residual = jnp.abs(arrays["y"] - log_surface(law, sites, arrays))
        # the mean, and not the median: sorting takes longer than all else here
        typical = jnp.average(residual, weights=arrays["weight"] > 0)
        sites["sigma"] = jnp.broadcast_to(jnp.clip(typical, 1e-4, 0.3), sites_of["sigma"].shape())
        if "nu" in sites_of:
            sites["nu"] = jnp.asarray(10.0)
        return space.from_sites(sites, arrays)

    return jax.jit(jax.vmap(start, in_axes=(0, None)))


def _projected_scales(law: Law, sites, arrays) -> dict[str, Array]:
    """Reference-scaled scales that minimise the squared relative error, each at least a small share."""
    logs = log_shapes(law, sites, arrays)
    relative = jnp.stack([jnp.exp(log - arrays["y"]) for log in logs.values()], axis=1)
    scales = non_negative_least_squares(relative, jnp.ones_like(arrays["y"]), arrays["weight"] > 0)
    mean_shape = jnp.average(relative, axis=0, weights=arrays["weight"] > 0)
    scales = jnp.maximum(scales, SMALLEST_SHARE / jnp.maximum(mean_shape, SMALLEST_SHARE))
    log_reference = [log_at_reference(law, name, sites, arrays["reference"]) for name in logs]
    scaled = {n: s * jnp.exp(r) for n, s, r in zip(logs, scales, log_reference, strict=True)}
    # scales with bounded priors (E below the median loss) start inside them
    return {n: jnp.minimum(v, 0.98) if n == "E" else v for n, v in scaled.items()}


def non_negative_least_squares(design: ArrayLike, target: ArrayLike, weight: ArrayLike) -> Array:
    """argmin over s >= 0 of sum of weight (target - design s)^2, by trying every set of positive s.

    ``design`` (run, term) with a handful of terms; returns (term,).
    """
    design, target, weight = jnp.asarray(design), jnp.asarray(target), jnp.asarray(weight)
    n_terms = design.shape[1]
    gram = (design * weight[:, None]).T @ design
    moment = (design * weight[:, None]).T @ target
    ridge = 1e-12 * jnp.diag(jnp.diag(gram) + 1e-300)
    subsets = np.array(list(itertools.product([0.0, 1.0], repeat=n_terms)))

    def solve(active: Array) -> tuple[Array, Array]:
        both = active[:, None] * active[None, :]
        s = jnp.linalg.solve((gram + ridge) * both + jnp.diag(1 - active), moment * active)
        gain = s @ moment * 2 - s @ gram @ s
        return s, jnp.where((s >= 0).all() & jnp.isfinite(s).all(), gain, -jnp.inf)

    solutions, gains = jax.vmap(solve)(jnp.asarray(subsets))
    return solutions[jnp.argmax(gains)]


def newton(
    evaluate: Evaluate, q: Float[np.ndarray, "start dim"], steps: int = NEWTON_STEPS
) -> tuple[Float[np.ndarray, "start dim"], Float[np.ndarray, " start"], Float[np.ndarray, "start dim dim"]]:
    """Minimise from every start by Newton's method with Levenberg-Marquardt damping.

    Negative curvature is turned positive, so saddles are left; steps that do not descend are refused. Of starts
    that meet on their way, the best goes on. Returns q, potentials (inf for those) and the Hessians
    where they were last taken (at q itself once converged).
    """
    q = q.copy()
    starts, dim = q.shape
    values, gradients = map(np.array, evaluate(q))
    hessians = np.tile(np.eye(dim), (starts, 1, 1))
    damping = np.full(starts, 1e-3)
    moving = np.flatnonzero(np.isfinite(values))
    for _ in range(steps):
        if not len(moving):
            break
        g, H = gradients[moving], _hessians(evaluate, q[moving])
        usable = np.isfinite(g).all(axis=1) & np.isfinite(H).all(axis=(1, 2))
        g, H = np.where(usable[:, None], g, 0.0), np.where(usable[:, None, None], H, np.eye(dim))
        hessians[moving] = H
        curvature, axes = np.linalg.eigh(H)
        curvature = np.maximum(np.abs(curvature), 1e-8)
        along = np.einsum("sij,si->sj", axes, g)
        trials = damping[moving, None] * DAMPINGS
        moves = -np.einsum("sij,stj->sti", axes, along[:, None] / (curvature[:, None] + trials[:, :, None]))
        # a coordinate is a log or a logit: no step is worth more than e^3 in one go
        moves *= np.minimum(1.0, 3.0 / np.maximum(np.abs(moves).max(axis=2, keepdims=True), 1e-300))
        candidates = q[moving, None] + moves
        found, slopes = evaluate(candidates.reshape(-1, dim))
        found = np.where(np.isnan(found), np.inf, found).reshape(trials.shape)
        best = np.arange(len(moving)), found.argmin(axis=1)
        better = found[best] < values[moving]
        done = (np.sum(along**2 / curvature, axis=1) < 1e-10) | ~usable
        done |= ~better & (damping[moving] > 1e8)
        damping[moving] = np.where(better, np.maximum(trials[best] / 10, 1e-8), damping[moving] * 1e3)
        went = moving[better]
        q[went], values[went] = candidates[best][better], found[best][better]
        gradients[went] = slopes.reshape(candidates.shape)[best][better]
        met = merged(q[moving], values[moving], curvature, axes)
        values[moving[met]] = np.inf
        moving = moving[~(done | met)]
    return q, values, hessians


def merged(
    q: Float[np.ndarray, "start dim"],
    values: Float[np.ndarray, " start"],
    curvature: Float[np.ndarray, "start dim"],
    axes: Float[np.ndarray, "start dim dim"],
) -> Bool[np.ndarray, " start"]:
    """Which starts are at the place of a better one, in the metric of that one's Hessian."""
    along = np.einsum("sij,sti->stj", axes, q[None] - q[:, None])
    near = (along**2 * np.maximum(curvature, 1.0)[:, None] < MERGED**2).all(axis=2)
    order = np.argsort(np.argsort(values, kind="stable"))
    return (near & (order[:, None] < order)).any(axis=0)


def _hessians(evaluate: Evaluate, q: Float[np.ndarray, "start dim"]) -> Float[np.ndarray, "start dim dim"]:
    """By central differences of the gradient: as good for Newton's method and for preconditioning as the exact
    ones, and nothing more to compile."""
    steps = DIFFERENCE * np.eye(q.shape[1])
    points = np.stack([q[:, None] + steps, q[:, None] - steps])
    slopes = evaluate(points.reshape(-1, q.shape[1]))[1].reshape(points.shape)
    H = (slopes[0] - slopes[1]) / (2 * DIFFERENCE)
    return (H + np.swapaxes(H, 1, 2)) / 2
