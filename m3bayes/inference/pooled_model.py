"""One law, many groups of runs: the density of a pooled posterior, and the coordinates it is sampled in.

Coefficients are reference-scaled and on the real line, as theta; each is one of

    shared    one value for all groups, with the law's prior
    partial   theta_g ~ Normal(m, s),  m with the law's prior,  s ~ HalfNormal(half the law's prior sd of theta)
    free      theta_g with the law's prior, each by itself

A pooled posterior is a funnel where a group has few runs and a ridge where it has many. So a group is sampled in z:

    u_g = c_g + L_g'^-1 z_g,   L_g L_g' = P_g = H_g + J_g' W J_g
    c_g = u_0 + P_g^-1 (g_g - K_g (v - v_0) + J_g' W (m - theta(u_0)))

u_g are coordinates in which the group's likelihood is nearly Gaussian (coordinates.py: profile coordinates of the
scales, the others as they are), and -H, -K, g its second and first derivatives at a point u_0 found beforehand (see
pooled_mode.py). z_g is then nearly standard normal whatever m and s are, and the joint density nearly that of
(m, s) alone: the centred form where the runs say more than the other groups, the non-centred one where they say
less, and anything between along every direction. For given m, s, v the map is affine, with 1 / |L_g| its Jacobian:
the density is exact wherever u_0 lies.

The level of the losses, a profile coordinate, can go where the floor E, at most 1, would come out above it. There the
level is bent so that E comes near 1 and no further: chains that run into a wall diverge.

| symbol | meaning | shape |
|---|---|---|
| theta_g | coefficients of a group that are not shared | (own,) |
| u_g, z_g | the same, in other coordinates | (own,) |
| m, s | mean and spread between groups of partial coefficients | (partial,) |
| v | shared coefficients on the real line | (shared,) |
| W | 1 / s^2 of partial, 1 / prior variance of free coefficients, diagonal | (own,) |
| J_g | d theta_g / d u_g | (own, own) |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.typing import ArrayLike
from jaxtyping import Float
from numpyro.distributions import Distribution, HalfNormal, Normal, biject_to, constraints

from m3bayes.inference.coordinates import (
    Coordinates,
    Sites,
    prior_on_real_line,
    profile_from_scales,
    scale_names,
    scales_from_profile,
)
from m3bayes.inference.model import log_surface, noise_priors, observation
from m3bayes.inference.noise import Noise
from m3bayes.laws.law import Law

Pooling = Literal["shared", "partial", "free"]
KINDS: tuple[Pooling, ...] = ("shared", "partial", "free")
TINY = 1e-9
# of log loss, near the scatter of runs: so far below its end at 1 a floor's coordinates begin to stretch
EDGE = 0.01
SPREAD = 0.5  # of the law's prior sd of theta: the scale of the prior of s


@dataclass(frozen=True)
class PooledModel:
    """A law whose coefficients are pooled over ``groups`` groups; ``kinds`` are in the order of the law's.

    ``by_group``  there is a sigma a group
    """

    law: Law
    kinds: tuple[Pooling, ...]
    noise: Noise
    groups: int
    by_group: bool

    def _of(self, *kinds: Pooling) -> tuple[str, ...]:
        return tuple(n for n, kind in zip(self.law.names, self.kinds, strict=True) if kind in kinds)

    @property
    def shared(self) -> tuple[str, ...]:
        return self._of("shared")

    @property
    def partial(self) -> tuple[str, ...]:
        return self._of("partial")

    @property
    def own(self) -> tuple[str, ...]:
        """Partial and free coefficients, in the order of theta_g."""
        return self._of("partial", "free")

    @property
    def scales(self) -> tuple[str, ...]:
        """Scales of the law that profile coordinates stand for: all its own ones, where at least two are."""
        found = tuple(name for name in scale_names(self.law) if name in self.own)
        return found if len(found) > 1 else ()


class Hyper(NamedTuple):
    """What groups have in common: ``v`` (shared,), ``m`` and ``log_s`` (partial,), and the ``noise`` sites."""

    v: Array
    m: Array
    log_s: Array
    noise: Sites


class Expansion(NamedTuple):
    """Of all groups' log likelihoods in (u, v) about ``u`` (group, own) and ``v`` (shared,).

    ``H`` (group, own, own) minus the second derivatives, no eigenvalue below 0; ``K`` (group, own, shared) the mixed
    ones; ``g`` (group, own) the first; ``theta`` (group, own) at u and ``J`` (group, own, own) its derivatives
    """

    u: ArrayLike
    v: ArrayLike
    H: ArrayLike
    K: ArrayLike
    g: ArrayLike
    theta: ArrayLike
    J: ArrayLike


class State(NamedTuple):
    """What q stands for: ``hyper``, each group's ``theta`` (group, own) and all ``sites`` {coefficient: (group,)}
    reference-scaled, and the log Jacobian of theta and the noise from q."""

    hyper: Hyper
    theta: Array
    sites: Sites
    surface: Array
    log_jacobian: Array


# --- one group ------------------------------------------------------------------------------------------


def own_sites(
    model: PooledModel, u: Array, shared: Mapping[str, Array], arrays: Mapping
) -> tuple[Sites, Array, Array]:
    """A group's own coefficients at u (own,), reference-scaled and as theta (own,), and log |d theta / d u|."""
    law, scales = model.law, model.scales
    rest = [name for name in model.own if name not in scales]
    theta = dict(zip(rest, u[len(scales) :], strict=True))
    sites = {name: jnp.asarray(biject_to(law[name].prior.support)(theta[name])) for name in rest}
    log_jacobian = jnp.zeros(())
    if scales:
        scaled, _ = scales_from_profile(law, u[: len(scales)], {**shared, **sites}, arrays, scales)
        floor = floor_of(model)
        if floor:
            shift, log_det = down_to_floor(jnp.log(scaled[floor]))
            scaled = {name: value * jnp.exp(shift) for name, value in scaled.items()}
            scaled[floor] = jnp.clip(scaled[floor], TINY, 1 - TINY)  # where it is rounded to an end
            log_jacobian += log_det
        for name, value in scaled.items():
            bijection = biject_to(law[name].prior.support)
            theta[name] = jnp.asarray(bijection.inv(value))
            # the profile has Jacobian 1 against the logs of the scales
            log_jacobian += jnp.log(value) - bijection.log_abs_det_jacobian(theta[name], value)
        sites |= scaled
    return sites, jnp.stack([theta[name] for name in model.own]), log_jacobian


def own_from_theta(model: PooledModel, theta: Array, shared: Mapping[str, Array], arrays: Mapping) -> Array:
    """u (own,) of theta (own,): the inverse of :func:`own_sites`."""
    law, scales = model.law, model.scales
    by_name = dict(zip(model.own, theta, strict=True))
    sites = {n: jnp.asarray(biject_to(law[n].prior.support)(value)) for n, value in by_name.items()}
    parts = [by_name[name] for name in model.own if name not in scales]
    rest = jnp.stack(parts) if parts else jnp.zeros(0)
    if not scales:
        return rest
    profile = profile_from_scales(law, {**shared, **sites}, arrays, scales)
    if floor := floor_of(model):
        profile = profile.at[0].add(up_from_floor(jnp.log(sites[floor])))
    return jnp.concatenate([profile, rest])


def floor_of(model: PooledModel) -> str | None:
    """The scale whose prior ends at 1, where profile coordinates stand for it."""
    found = [n for n in model.scales if model.law[n].prior.support is constraints.unit_interval]
    return found[0] if found else None


def down_to_floor(log_floor: Array) -> tuple[Array, Array]:
    """What to add to the logs of all scales so that the floor's log is below 0, next to nothing where it is below by
    more than EDGE; and the log of how fast it then still rises with the level."""
    away = -log_floor / EDGE
    return -EDGE * jax.nn.softplus(away) - log_floor, jax.nn.log_sigmoid(away)


def up_from_floor(log_floor: Array) -> Array:
    """What takes a level back to before :func:`down_to_floor`, from the floor after it."""
    return -EDGE * jnp.log(-jnp.expm1(log_floor / EDGE))


def group_log_likelihood(
    model: PooledModel, surface: Array, noise: Mapping[str, Array], arrays: Mapping
) -> Array:
    """(padded,) of one group's runs; rows that do not count have 0."""
    plain = Noise(model.noise.kind, None, model.noise.known)
    weight = arrays["weight"]
    found = observation(plain, surface, noise, arrays).log_prob(arrays["y"])
    return jnp.where(weight > 0, weight * found, 0.0)


def shared_sites(model: PooledModel, v: Array) -> Sites:
    return {
        name: jnp.asarray(biject_to(model.law[name].prior.support)(value))
        for name, value in zip(model.shared, v, strict=True)
    }


def noise_of(model: PooledModel, noise: Mapping[str, Array]) -> tuple[Sites, dict[str, int | None]]:
    """The noise sites, and their axes over the groups, for vmap."""
    return dict(noise), {name: 0 if name == "sigma" and model.by_group else None for name in noise}


# --- all groups -----------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def own_prior(model: PooledModel) -> tuple[Float[np.ndarray, " own"], Float[np.ndarray, " own"]]:
    """Mean and standard deviation of theta under the law's prior."""
    drawn = prior_on_real_line(model.law)
    return (
        np.array([drawn[name].mean() for name in model.own]),
        np.array([drawn[name].std() for name in model.own]),
    )


def noise_sites(model: PooledModel) -> dict[str, Distribution]:
    by = Noise(model.noise.kind, "group" if model.by_group else None, model.noise.known)
    return noise_priors(by, model.groups)


def split_hyper(model: PooledModel, q: Array) -> tuple[Hyper, Array, Array]:
    """The first coordinates as :class:`Hyper`, the log Jacobian of the noise, and the rest of q."""
    sizes = [len(model.shared), len(model.partial), len(model.partial)]
    v, m, log_s, rest = jnp.split(q, np.cumsum(sizes))
    noise, log_jacobian = {}, jnp.zeros(())
    for name, prior in noise_sites(model).items():
        size = int(np.prod(prior.shape(), dtype=int))
        bijection = biject_to(prior.support)
        value = rest[:size].reshape(prior.shape())
        noise[name] = jnp.asarray(bijection(value))
        log_jacobian += jnp.sum(bijection.log_abs_det_jacobian(value, noise[name]))
        rest = rest[size:]
    return Hyper(v, m, log_s, noise), log_jacobian, rest


def join_hyper(model: PooledModel, hyper: Hyper) -> Array:
    """The first coordinates of q of ``hyper``."""
    noise = [
        jnp.ravel(biject_to(prior.support).inv(hyper.noise[name]))
        for name, prior in noise_sites(model).items()
    ]
    return jnp.concatenate([hyper.v, hyper.m, hyper.log_s, *noise])


def centre_and_factor(model: PooledModel, hyper: Hyper, expansion: Expansion) -> tuple[Array, Array]:
    """c (group, own) and L (group, own, own) lower with P = L L': what u_g is about and how precisely, given what
    groups have in common."""
    mean, sd = own_prior(model)
    of_partial = np.array([model.partial.index(n) if n in model.partial else -1 for n in model.own])
    pooled = of_partial >= 0
    m = jnp.where(pooled, hyper.m[of_partial], mean) if model.partial else jnp.asarray(mean)
    W = jnp.where(pooled, jnp.exp(-2 * hyper.log_s[of_partial]), sd**-2) if model.partial else sd**-2.0
    u, v, H, K, g, theta, J = map(jnp.asarray, expansion)
    L = jnp.linalg.cholesky(H + jnp.einsum("gki,k,gkj->gij", J, W, J))
    slope = g - K @ (hyper.v - v) + jnp.einsum("gki,k,gk->gi", J, W, m - theta)
    return u + cho_solve((L, True), slope[..., None])[..., 0], L


def state_at(model: PooledModel, q: Array, arrays: Mapping) -> State:
    """What q (dim,) stands for; ``arrays`` has the groups' ``table`` and the :class:`Expansion`."""
    hyper, log_jacobian, z = split_hyper(model, q)
    centre, L = centre_and_factor(model, hyper, arrays["expansion"])
    z = z.reshape(model.groups, len(model.own))
    u = centre + solve_triangular(L, z[..., None], lower=True, trans=1)[..., 0]
    log_jacobian -= jnp.log(jnp.diagonal(L, axis1=-2, axis2=-1)).sum()
    shared = shared_sites(model, hyper.v)

    def one(u_g: Array, table: Mapping) -> tuple[Sites, Array, Array, Array]:
        sites, theta, log_det = own_sites(model, u_g, shared, table)
        sites = {name: {**shared, **sites}[name] for name in model.law.names}
        return sites, theta, log_det, log_surface(model.law, sites, table)

    sites, theta, log_dets, surface = jax.vmap(one)(u, arrays["table"])
    return State(hyper, theta, sites, surface, log_jacobian + log_dets.sum())


def log_prior(model: PooledModel, hyper: Hyper, theta: Array) -> Array:
    """Of shared coefficients, means and log spreads on the real line, of theta (group, own) and of the noise."""
    law = model.law
    total = jnp.zeros(())

    def on_real_line(name: str, value: Array) -> Array:
        bijection = biject_to(law[name].prior.support)
        at = bijection(value)
        return law[name].prior.log_prob(at) + bijection.log_abs_det_jacobian(value, at)

    for name, value in zip(model.shared, hyper.v, strict=True):
        total += on_real_line(name, value)
    spreads = spread_scales(model)
    for i, name in enumerate(model.partial):
        s = jnp.exp(hyper.log_s[i])
        total += on_real_line(name, hyper.m[i])
        total += jnp.asarray(HalfNormal(spreads[name]).log_prob(s)) + hyper.log_s[i]
        total += jnp.asarray(Normal(hyper.m[i], s).log_prob(theta[:, model.own.index(name)])).sum()
    for i, name in enumerate(model.own):
        if name not in model.partial:
            total += on_real_line(name, theta[:, i]).sum()
    for name, prior in noise_sites(model).items():
        total += jnp.asarray(prior.log_prob(hyper.noise[name])).sum()
    return total


@lru_cache(maxsize=32)
def spread_scales(model: PooledModel) -> Mapping[str, float]:
    """{partial coefficient: scale of the half-normal prior of its spread between groups}."""
    _, sd = own_prior(model)
    return {name: SPREAD * float(sd[model.own.index(name)]) for name in model.partial}


@lru_cache(maxsize=16)
def pooled_coordinates(model: PooledModel) -> Coordinates:
    """The coordinates of a pooled posterior: shared, means, log spreads, noise, then z group by group."""
    sizes = [int(np.prod(prior.shape(), dtype=int)) for prior in noise_sites(model).values()]
    dim = len(model.shared) + 2 * len(model.partial) + sum(sizes) + model.groups * len(model.own)

    def potential(q: Array, arrays: Mapping) -> Array:
        state = state_at(model, q, arrays)
        noise, axes = noise_of(model, state.hyper.noise)
        of_runs = jax.vmap(
            lambda surface, sites, table: group_log_likelihood(model, surface, sites, table),
            in_axes=(0, axes, 0),
        )(state.surface, noise, arrays["table"])
        energy = -(log_prior(model, state.hyper, state.theta) + state.log_jacobian + of_runs.sum())
        return jnp.where(jnp.isfinite(energy), energy, jnp.inf)

    def surface(q: Array, arrays: Mapping) -> tuple[Sites, Array]:
        state = state_at(model, q, arrays)
        return {**state.sites, **state.hyper.noise}, state.surface

    def from_sites(sites: Mapping[str, ArrayLike], arrays: Mapping) -> Array:
        """``sites``: {coefficient: (group,)}, the noise, and ``m`` and ``log_s`` (partial,)."""
        v = jnp.array(
            [biject_to(model.law[n].prior.support).inv(jnp.asarray(sites[n])[0]) for n in model.shared]
        )
        noise = {name: jnp.asarray(sites[name]) for name in noise_sites(model)}
        hyper = Hyper(v, jnp.asarray(sites["m"]), jnp.asarray(sites["log_s"]), noise)
        theta = jnp.stack(
            [jnp.asarray(biject_to(model.law[n].prior.support).inv(sites[n])) for n in model.own], axis=1
        )
        shared = shared_sites(model, v)
        u = jax.vmap(lambda t, table: own_from_theta(model, t, shared, table))(theta, arrays["table"])
        centre, L = centre_and_factor(model, hyper, arrays["expansion"])
        z = jnp.einsum("gki,gk->gi", L, u - centre)
        return jnp.concatenate([join_hyper(model, hyper), z.ravel()])

    return Coordinates(
        dim,
        surface=jax.jit(surface),
        to_sites=jax.jit(lambda q, arrays: surface(q, arrays)[0]),
        from_sites=jax.jit(from_sites),
        potential=jax.jit(potential),
    )
