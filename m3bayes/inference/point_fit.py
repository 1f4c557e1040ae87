"""The field's point fit of a law: the coefficients that minimise a Huber loss of the log residuals.

    minimise over the coefficients   sum_i w_i huber(log L_i - log L(x_i)),   huber(e) = e^2 / 2 up to delta,
                                                                             delta (|e| - delta / 2) beyond

(Hoffmann et al. 2022, section 3.3, delta = 1e-3.) There are no priors and no bounds but those of the formulas:
scales and rates are positive, proportions lie in (0, 1), exponents may have either sign. The usual way is L-BFGS
from thousands of starts. Here the scales E, A, B, P of some hundred starts are found by linear algebra (variable
projection, reweighted to be robust), and the best few are polished together by Newton's method in the profile
coordinates of ``coordinates.py``: first for a wide delta, which is smooth, then for ever smaller ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

from m3bayes.errors import FitError
from m3bayes.inference.coordinates import (
    log_shapes,
    profile_from_scales,
    sample_prior,
    scale_names,
    scales_from_profile,
)
from m3bayes.inference.data import canonical, log_at_reference, to_table_units, unscale
from m3bayes.inference.mode import non_negative_least_squares
from m3bayes.inference.model import log_surface
from m3bayes.inference.noise import normal
from m3bayes.laws.law import Coefficient, Law
from m3bayes.laws.m3 import m3
from m3bayes.runs import Runs

STARTS = 256
POLISHED = 8
STEPS = 600
# a fit is finished when this many steps on end gained next to nothing, with damping changed in between
IDLE_STEPS = 3
REWEIGHTED = 2
# a projected term is at least this share of the surface, so that its log exists
SMALLEST_SHARE = 1e-3
LONGEST_STEP = 3.0
DIFFERENCE = 1e-4
# of a profile coordinate of the scales, and of all else. Beyond, a term is gone or is the same at all runs but
# one, and coefficients in the table's units would not fit into a float
FARTHEST_SCALE, FARTHEST = 100.0, 20.0
# tried at every step, times the damping that was best in the last one; 1 is about what surely descends
DAMPINGS = (1e-3, 0.1, 1.0, 10.0, 1e3)


@dataclass(frozen=True)
class PointFit:
    """``coefficients`` in the table's units, the ``objective`` at them for this ``huber`` (natural-log units), and
    ``residuals`` (run,), log of the measured loss minus log of the law's, in the table's order."""

    law: Law
    coefficients: Mapping[str, float]
    objective: float
    huber: float
    residuals: Float[np.ndarray, " run"]

    @property
    def typical_residual(self) -> float:
        """Median of the absolute residuals."""
        return float(np.median(np.abs(self.residuals)))


def point_fit(runs: Runs, law: Law | None = None, *, huber: float = 1e-3, seed: int = 0) -> PointFit:
    """The point fit of a law, default M3.

    ``huber`` is delta, in natural-log units; 1e-3 is next to least absolute deviations. Rows count by the
    table's ``weight``. Coefficients that the runs do not depend on stay at a draw from their prior, and where a
    term vanishes or an exponent runs away (it stops at 20) the last value met is given: compare objectives, not
    coefficients. Raises RunTableError (a column that the law reads is missing) and FitError (huber not
    positive, or no finite loss from any start).
    """
    law = m3() if law is None else law
    if not huber > 0:
        raise FitError(f"huber is {huber}; give a positive width in natural-log units, as 1e-3")
    with jax.enable_x64(True):
        table = canonical(runs, law, normal())
        found = _search(law)(dict(table.arrays), float(huber), jax.random.key(seed))
        c, objective, residuals = jax.tree.map(np.asarray, found)
    if not np.isfinite(objective):
        raise FitError(
            f"law {law.name} gives no finite loss for any of {STARTS} draws of its prior; "
            "check its formula and the priors of its coefficients"
        )
    values = to_table_units(law, c, table.scale)
    in_order = np.empty(len(runs))
    in_order[table.order] = residuals[: len(runs)]
    coefficients = {name: float(value) for name, value in values.items()}
    return PointFit(law, coefficients, float(objective), float(huber), in_order)


@lru_cache(maxsize=32)
def _search(law: Law):
    """(arrays, delta, key) -> canonical coefficients, objective and residuals of the best fit."""
    scales = scale_names(law)
    free = [c for c in law.coefficients if c.name not in scales]
    farthest = np.array([FARTHEST_SCALE] * len(scales) + [FARTHEST] * len(free))

    def at(q: Array, arrays: Mapping) -> tuple[dict[str, Array], Array]:
        """Sites and log surface."""
        sites = {
            c.name: jnp.asarray(_bijection(c)(value)) for c, value in zip(free, q[len(scales) :], strict=True)
        }
        if not scales:
            return sites, log_surface(law, sites, arrays)
        scaled, surface = scales_from_profile(law, q[: len(scales)], sites, arrays)
        return sites | scaled, surface

    def from_sites(sites: Mapping[str, ArrayLike], arrays: Mapping) -> Array:
        others = jnp.stack([_bijection(c).inv(sites[c.name]) for c in free])
        return jnp.concatenate([profile_from_scales(law, sites, arrays), others]) if scales else others

    def residuals(q: Array, arrays: Mapping) -> Array:
        return arrays["y"] - at(q, arrays)[1]

    def objective(q: Array, arrays: Mapping, delta: ArrayLike) -> Array:
        total = jnp.sum(arrays["weight"] * huber_loss(residuals(q, arrays), delta))
        return jnp.where(jnp.isfinite(total), total, jnp.inf)

    def start(key: Array, arrays: Mapping, delta: ArrayLike) -> Array:
        from_prior, wider = jax.random.split(key)
        sites = _widened(free, sample_prior({c.name: c.prior for c in law.coefficients}, from_prior), wider)
        if scales:
            sites |= _projected_scales(law, sites, arrays, delta)
        return jnp.clip(from_sites(sites, arrays), -farthest, farthest)

    def derivatives(q: Array, arrays: Mapping, delta: ArrayLike) -> tuple[Array, Array, Array]:
        """Gradient, Hessian, and the Hessian of the parabola that touches the Huber loss from above."""
        r = residuals(q, arrays)
        J = jax.jacfwd(residuals)(q, arrays)
        psi = arrays["weight"] * jnp.clip(r, -jnp.asarray(delta), delta)
        inside = arrays["weight"] * (jnp.abs(r) <= delta)
        touching = arrays["weight"] * delta / jnp.maximum(jnp.abs(r), delta)
        # the curvature of the residuals themselves, by central differences: they compile fast
        steps = DIFFERENCE * jnp.eye(q.size)
        slopes = jax.vmap(jax.grad(lambda q: psi @ residuals(q, arrays)))(
            jnp.concatenate([q + steps, q - steps])
        )
        bend = (slopes[: q.size] - slopes[q.size :]) / (2 * DIFFERENCE)
        derived = psi @ J, (J.T * inside) @ J + (bend + bend.T) / 2, (J.T * touching) @ J
        return jax.tree.map(lambda a: jnp.where(jnp.isfinite(a).all(), a, 0.0), derived)

    def polish(q: Array, arrays: Mapping, delta: ArrayLike) -> tuple[Array, Array]:
        """Newton's method with damping by the touching parabola; delta is halved at every step to begin with."""

        def body(state):
            q, wide, damping, step, idle = state
            g, H, M = derivatives(q, arrays, wide)
            # unseen coordinates have nothing in M: they get something small and stay where they are
            M = M + jnp.diag(1e-9 * jnp.diag(M) + 1e-12 * jnp.trace(M) + 1e-300)

            def tried(damping):
                move = -jnp.linalg.solve(H + damping * M, g)
                move = move * jnp.minimum(1.0, LONGEST_STEP / jnp.maximum(jnp.abs(move).max(), 1e-300))
                return jnp.clip(q + move, -farthest, farthest)

            dampings = damping * jnp.asarray(DAMPINGS)
            candidates = jnp.concatenate([jax.vmap(tried)(dampings), q[None]])
            values = jax.vmap(objective, in_axes=(0, None, None))(candidates, arrays, wide)
            best = jnp.argmin(values)
            idled = (wide == delta) & (values[-1] - values[best] <= 1e-11 * values[-1])
            # where no step descends, the next are shorter than all of these
            damping = jnp.append(dampings, damping * DAMPINGS[-1] ** 2)[best]
            return (
                candidates[best],
                jnp.maximum(delta, wide / 2),
                jnp.clip(damping, 1e-6, 1e8),
                step + 1,
                jnp.where(idled, idle + 1, 0),
            )

        def unfinished(state):
            return (state[3] < STEPS) & (state[4] < IDLE_STEPS)

        sizes = jnp.where(arrays["weight"] > 0, jnp.abs(residuals(q, arrays)), jnp.nan)
        wide = jnp.maximum(delta, 3 * jnp.nan_to_num(jnp.nanmedian(sizes)))
        q, *_ = jax.lax.while_loop(unfinished, body, (q, wide, jnp.asarray(1e-2), 0, 0))
        return q, objective(q, arrays, delta)

    @jax.jit
    def search(arrays, delta, key):
        keys = jax.random.split(key, STARTS)
        starts = jax.vmap(start, in_axes=(0, None, None))(keys, arrays, delta)
        values = jax.vmap(objective, in_axes=(0, None, None))(starts, arrays, delta)
        # the best of each of a few lots, rather than the best few, which are often alike
        lots = values.reshape(POLISHED, -1)
        best = starts.reshape(*lots.shape, -1)[jnp.arange(POLISHED), jnp.argmin(lots, axis=1)]
        qs, found = jax.vmap(polish, in_axes=(0, None, None))(best, arrays, delta)
        q = qs[jnp.argmin(found)]
        c = unscale(law, at(q, arrays)[0], arrays["reference"])
        return c, found.min(), residuals(q, arrays)

    return search


def huber_loss(residual: ArrayLike, delta: ArrayLike) -> Array:
    """e^2 / 2 up to delta, delta (|e| - delta / 2) beyond."""
    size = jnp.abs(residual)
    return jnp.where(size <= delta, size**2 / 2, delta * (size - delta / 2))


def _is_bounded(coefficient: Coefficient) -> bool:
    """Positive ones and proportions; the bounds that priors put on exponents are belief, not part of the law."""
    support = coefficient.prior.support
    return support is constraints.positive or support is constraints.unit_interval


def _bijection(coefficient: Coefficient) -> Transform:
    return biject_to(coefficient.prior.support if _is_bounded(coefficient) else constraints.real)


def _widened(free: list[Coefficient], sites: dict[str, Array], key: Array) -> dict[str, Array]:
    """One start in two has its exponents made larger or smaller by some e-folds, one exponent in five negative."""
    is_wide, by, negative = jax.random.split(key, 3)
    factors = jnp.exp(1.5 * jax.random.normal(by, (len(free),)))
    factors = jnp.where(jax.random.uniform(negative, factors.shape) < 0.2, -factors, factors)
    factors = jnp.where(jax.random.bernoulli(is_wide), factors, 1.0)
    exponents = {c.name: f for c, f in zip(free, factors, strict=True) if not _is_bounded(c)}
    return sites | {name: sites[name] * factor for name, factor in exponents.items()}


def _projected_scales(
    law: Law, sites: Mapping[str, Array], arrays: Mapping, delta: ArrayLike
) -> dict[str, Array]:
    """Reference-scaled scales with nearly the least absolute relative errors, each at least a small share."""
    logs = log_shapes(law, sites, arrays)
    relative = jnp.stack([jnp.exp(log - arrays["y"]) for log in logs.values()], axis=1)
    weight = arrays["weight"]
    scales = jnp.zeros(len(logs))
    for _ in range(REWEIGHTED):
        scales = non_negative_least_squares(relative, jnp.ones_like(arrays["y"]), weight)
        weight = arrays["weight"] / jnp.maximum(jnp.abs(1 - relative @ scales), delta)
    mean_shape = jnp.average(relative, axis=0, weights=arrays["weight"])
    scales = jnp.maximum(scales, SMALLEST_SHARE / jnp.maximum(mean_shape, SMALLEST_SHARE))
    return {
        name: scale * jnp.exp(log_at_reference(law, name, sites, arrays["reference"]))
        for name, scale in zip(logs, scales, strict=True)
    }
