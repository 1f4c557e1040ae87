"""The global mode of a posterior: projection of the scales from many starts, then damped Newton.

Starts are draws of the exponents from their prior. For additive laws the scales that fit best in
relative error, none negative, are found for each start by linear algebra (variable projection). The
best starts are polished by Newton's method with Levenberg-Marquardt damping on the posterior itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from m3bayes.errors import FitError
from m3bayes.inference.coordinates import Coordinates, coordinates, log_shapes, sample_prior, scale_names
from m3bayes.inference.data import log_at_reference
from m3bayes.inference.model import log_surface, site_priors
from m3bayes.inference.noise import Noise
from m3bayes.laws.law import Law

STARTS = 512
POLISHED = 24
NEWTON_STEPS = 80
# a projected term is at least this share of the surface, so that its log exists
SMALLEST_SHARE = 1e-3
DIFFERENCE = 1e-5


@dataclass(frozen=True)
class Mode:
    """Optima of a posterior, best first.

    ``q`` (optimum, dim), ``potential`` (optimum,), ``hessian`` (dim, dim) at the best one
    """

    q: Float[np.ndarray, "optimum dim"]
    potential: Float[np.ndarray, " optimum"]
    hessian: Float[np.ndarray, "dim dim"]


def find_mode(law: Law, noise: Noise, n_groups: int, arrays: Mapping, key: Array) -> Mode:
    """The global mode and every other optimum met on the way.

    Raises FitError where no start has a finite posterior density.
    """
    search = _search(law, noise, n_groups)
    qs, potentials, hessian = (np.asarray(a) for a in search(dict(arrays), key))
    finite = np.isfinite(potentials)
    if not finite.any():
        raise FitError(
            f"law {law.name} gives no finite likelihood for any of {STARTS} draws of its prior; "
            "check its formula and the priors of its coefficients"
        )
    order = np.argsort(potentials[finite], kind="stable")
    return Mode(qs[finite][order], potentials[finite][order], hessian)


@lru_cache(maxsize=32)
def _search(law: Law, noise: Noise, n_groups: int):
    space = coordinates(law, noise, n_groups)
    start = _start(law, noise, n_groups, space)

    @jax.jit
    def search(arrays, key):
        starts = jax.vmap(start, in_axes=(0, None))(jax.random.split(key, STARTS), arrays)
        values = jax.vmap(space.potential, in_axes=(0, None))(starts, arrays)
        best = starts[jnp.argsort(values)[:POLISHED]]
        qs, potentials, hessians = jax.lax.map(lambda q: newton(space.potential, q, arrays), best)
        return qs, potentials, hessians[jnp.argmin(potentials)]

    return search


def _start(law: Law, noise: Noise, n_groups: int, space: Coordinates):
    """(key, arrays) -> q: a draw from the prior, its scales projected and sigma from its residuals."""
    sites_of = site_priors(law, noise, n_groups)

    def start(key: Array, arrays) -> Array:
        sites = sample_prior(sites_of, key)
        if law.shapes is not None:
            sites |= _projected_scales(law, sites, arrays)
        residual = jnp.abs(arrays["y"] - log_surface(law, sites, arrays))
        weight = arrays["weight"] > 0
        typical = jnp.nanmedian(jnp.where(weight, residual, jnp.nan))
        sites["sigma"] = jnp.broadcast_to(jnp.clip(1.5 * typical, 1e-4, 0.3), sites_of["sigma"].shape())
        if "nu" in sites:
            sites["nu"] = jnp.asarray(10.0)
        return space.from_sites(sites, arrays)

    return start


def _projected_scales(law: Law, sites, arrays) -> dict[str, Array]:
    """Reference-scaled scales that minimise the squared relative error, each at least a small share."""
    logs, present = log_shapes(law, sites, arrays)
    names = scale_names(law)
    relative = jnp.where(present, jnp.exp(logs - arrays["y"][:, None]), 0.0)
    scales = non_negative_least_squares(relative, jnp.ones_like(arrays["y"]), arrays["weight"] > 0)
    mean_shape = jnp.average(relative, axis=0, weights=arrays["weight"] > 0)
    scales = jnp.maximum(scales, SMALLEST_SHARE / jnp.maximum(mean_shape, SMALLEST_SHARE))
    log_reference = [log_at_reference(law, name, sites, arrays["reference"]) for name in names]
    scaled = {n: s * jnp.exp(r) for n, s, r in zip(names, scales, log_reference, strict=True)}
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
    potential: Callable[[Array, Mapping], Array], q: Array, arrays: Mapping, steps: int = NEWTON_STEPS
) -> tuple[Array, Array, Array]:
    """Minimise from q by Newton's method with Levenberg-Marquardt damping.

    Negative curvature is turned positive, so saddles are left; steps that do not descend are refused.
    Returns q, the potential and the Hessian where it was last taken (at q itself once converged).
    """
    step_vectors = DIFFERENCE * jnp.eye(q.size)

    def derivatives(q: Array) -> tuple[Array, Array]:
        # Central differences of the gradient: as good for Newton's method and for preconditioning as the
        # exact Hessian, and a third of its compilation time.
        points = jnp.concatenate([q[None], q + step_vectors, q - step_vectors])
        g = jax.vmap(jax.grad(potential), in_axes=(0, None))(points, arrays)
        H = (g[1 : q.size + 1] - g[q.size + 1 :]) / (2 * DIFFERENCE)
        return g[0], (H + H.T) / 2

    def body(state):
        q, value, damping, step, _, _ = state
        g, H = derivatives(q)
        usable = jnp.isfinite(g).all() & jnp.isfinite(H).all()
        g, H = jnp.where(usable, g, 0.0), jnp.where(usable, H, jnp.eye(q.size))
        curvature, axes = jnp.linalg.eigh(H)
        curvature = jnp.maximum(jnp.abs(curvature), 1e-8)
        along = axes.T @ g

        def tried(damping):
            move = -axes @ (along / (curvature + damping))
            # a coordinate is a log or a logit: no step is worth more than e^3 in one go
            move = move * jnp.minimum(1.0, 3.0 / jnp.maximum(jnp.abs(move).max(), 1e-300))
            return q + move

        trials = jnp.stack([damping, damping * 30.0, damping * 1000.0])
        candidates = jax.vmap(tried)(trials)
        values = jax.vmap(potential, in_axes=(0, None))(candidates, arrays)
        values = jnp.where(jnp.isnan(values), jnp.inf, values)
        best = jnp.argmin(values)
        better = values[best] < value
        decrement = jnp.sum(along**2 / curvature)
        done = (decrement < 1e-10) | (~better & (damping > 1e8)) | ~usable
        damping = jnp.where(better, jnp.maximum(trials[best] / 10, 1e-8), damping * 1e3)
        return (
            jnp.where(better, candidates[best], q),
            jnp.where(better, values[best], value),
            damping,
            step + 1,
            done,
            H,
        )

    def unfinished(state):
        return (state[3] < steps) & ~state[4] & jnp.isfinite(state[1])

    state = (q, potential(q, arrays), jnp.asarray(1e-3), 0, jnp.asarray(False), jnp.eye(q.size))
    q, value, _, _, _, H = jax.lax.while_loop(unfinished, body, state)
    return q, value, H
