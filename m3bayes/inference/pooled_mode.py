"""Where a pooled posterior is sampled from: a point for every group, and its derivatives there.

Each group's runs are first fitted by themselves, with the law's priors (mode.py). Means and spreads between groups
come from these fits; then, in turn, all coordinates are moved by damped Newton steps in the coordinates of
pooled_model.py, and these are laid anew about the place reached. What is left after the last turn is the
frame that chains move in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import biject_to

from m3bayes.errors import FitError
from m3bayes.inference.coordinates import Sites, coordinates, prior_on_real_line
from m3bayes.inference.evaluation import evaluator
from m3bayes.inference.mode import find_mode, newton
from m3bayes.inference.model import log_surface
from m3bayes.inference.noise import Noise
from m3bayes.inference.pooled_model import (
    Expansion,
    PooledModel,
    group_log_likelihood,
    noise_of,
    noise_sites,
    own_from_theta,
    own_sites,
    pooled_coordinates,
    shared_sites,
    spread_scales,
    state_at,
)
from m3bayes.inference.sampler import Frame, frame_at

TURNS = 3
NEWTON_STEPS = 12
SMALLEST_SPREAD = 0.05  # of the prior's scale, where a search may begin

Point = Mapping[str, Any]  # {coefficient: (group,), sigma, nu, m, log_s}


def find_pooled_mode(
    model: PooledModel, tables: Sequence[Mapping[str, Any]], random: np.random.Generator
) -> tuple[dict[str, Any], Frame]:
    """The arrays of a pooled posterior, tables (padded alike) and expansion, and the frame of its chains.

    Raises FitError where no start has a finite density.
    """
    stacked = jax.tree.map(lambda *parts: np.stack([np.asarray(part) for part in parts]), *tables)
    point = _first_point(model, tables, random)
    space = pooled_coordinates(model)
    for turn in range(TURNS):
        arrays = {"table": stacked, "expansion": expand(model, point, stacked)}
        q = np.asarray(space.from_sites(point, arrays))
        ends, potentials, hessians = newton(evaluator(space, arrays), q[None], NEWTON_STEPS)
        if not np.isfinite(potentials[0]):
            raise FitError(f"law {model.law.name} gives no finite likelihood for the groups together")
        if turn + 1 < TURNS:
            point = _point_at(model)(jnp.asarray(ends[0]), arrays)
    return arrays, frame_at(ends[0], hessians[0])


@lru_cache(maxsize=16)
def _point_at(model: PooledModel):
    @jax.jit
    def point(q: Array, arrays: Mapping) -> Sites:
        state = state_at(model, q, arrays)
        return {**state.sites, **state.hyper.noise, "m": state.hyper.m, "log_s": state.hyper.log_s}

    return point


def _first_point(
    model: PooledModel, tables: Sequence[Mapping[str, Any]], random: np.random.Generator
) -> Point:
    """Every group's own mode; of what they share the median, of spreads what these modes say, held in bounds."""
    law, plain = model.law, Noise(model.noise.kind, None, model.noise.known)
    space = coordinates(law, plain, 0)
    found: list[Sites] = []
    for arrays in tables:
        mode = find_mode(law, plain, 0, arrays, random)
        found.append(space.to_sites(jnp.asarray(mode.q[0]), arrays))
    sites = {name: np.array([float(one[name]) for one in found]) for name in found[0]}
    theta = {n: np.asarray(biject_to(law[n].prior.support).inv(jnp.asarray(sites[n]))) for n in law.names}
    prior, scales = prior_on_real_line(law), spread_scales(model)
    point: dict[str, np.ndarray] = {}
    for name in law.names:
        # groups with few runs can have their mode anywhere that the prior allows
        middle, sd = np.median(theta[name]), prior[name].std()
        if name in model.shared:
            theta[name] = np.full(model.groups, middle)
        else:
            theta[name] = middle + np.clip(theta[name] - middle, -2 * sd, 2 * sd)
        point[name] = np.asarray(biject_to(law[name].prior.support)(jnp.asarray(theta[name])))
    point["m"] = np.array([np.median(theta[name]) for name in model.partial])
    spread = [1.48 * np.median(np.abs(theta[n] - np.median(theta[n]))) for n in model.partial]
    bounds = [(SMALLEST_SPREAD * scales[name], 2 * scales[name]) for name in model.partial]
    point["log_s"] = np.log([np.clip(s, *bound) for s, bound in zip(spread, bounds, strict=True)])
    for name in noise_sites(model):
        by_group = name == "sigma" and model.by_group
        point[name] = sites[name] if by_group else np.median(sites[name])
    return point


def expand(model: PooledModel, point: Point, stacked: Mapping[str, Any]) -> Expansion:
    """The expansion of all groups' log likelihoods at a point {coefficient: (group,), noise}."""
    with jax.enable_x64(True):
        parts = _derivatives(model)({n: jnp.asarray(value) for n, value in point.items()}, stacked)
    u, v, gradient, H, K, theta, J = map(np.asarray, parts)
    # a Student-t's second derivatives can have the wrong sign, also at a mode
    values, axes = np.linalg.eigh((H + np.swapaxes(H, 1, 2)) / 2)
    H = np.einsum("gik,gk,gjk->gij", axes, np.maximum(values, 0.0), axes)
    return Expansion(u, v, H, K, gradient, theta, J)


@lru_cache(maxsize=16)
def _derivatives(model: PooledModel):
    """(point, stacked tables) -> u, v, gradient in u, minus the second derivatives, minus the mixed, theta, J."""

    def one(sites: Mapping[str, Array], v: Array, noise: Sites, table: Mapping):
        theta = jnp.stack(
            [jnp.asarray(biject_to(model.law[n].prior.support).inv(sites[n])) for n in model.own]
        )
        u = own_from_theta(model, theta, shared_sites(model, v), table)

        def of(u: Array, v: Array) -> Array:
            shared = shared_sites(model, v)
            own, _, _ = own_sites(model, u, shared, table)
            surface = log_surface(model.law, {**shared, **own}, table)
            return group_log_likelihood(model, surface, noise, table).sum()

        slope = jax.grad(of)
        gradient = slope(u, v)
        H = -jax.jacfwd(slope)(u, v)
        K = -jax.jacfwd(slope, argnums=1)(u, v)
        J = jax.jacfwd(lambda u: own_sites(model, u, shared_sites(model, v), table)[1])(u)
        return u, gradient, H, K, theta, J

    @jax.jit
    def derivatives(point, stacked):
        v = jnp.array([biject_to(model.law[n].prior.support).inv(point[n][0]) for n in model.shared]).reshape(
            len(model.shared)
        )
        noise, axes = noise_of(model, {name: point[name] for name in noise_sites(model)})
        sites = {name: point[name] for name in model.own}
        u, gradient, H, K, theta, J = jax.vmap(one, in_axes=(0, None, axes, 0))(sites, v, noise, stacked)
        return u, v, gradient, H, K, theta, J

    return derivatives
