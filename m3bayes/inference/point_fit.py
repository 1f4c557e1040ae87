"""The field's point fit of a law: the coefficients that minimise a Huber loss of the log residuals.

    minimise over the coefficients   sum_i w_i huber(log L_i - log L(x_i)),   huber(e) = e^2 / 2 up to delta,
                                                                             delta (|e| - delta / 2) beyond

(Hoffmann et al. 2022, section 3.3, delta = 1e-3.) There are no priors and no bounds but those of the formulas:
scales and rates are positive, proportions lie in (0, 1), exponents are free. The usual way is L-BFGS from
thousands of starts. Here the scales E, A, B, P of many starts are found by linear algebra (variable projection,
reweighted to be robust) and the best few are polished by Newton's method, all at once: first for a wide delta,
which is smooth, then for ever smaller ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from numpyro.distributions import biject_to, constraints

from m3bayes.errors import FitError
from m3bayes.inference.coordinates import (
    _profile_from_scales,
    _scales_from_profile,
    log_shapes,
    sample_prior,
    scale_names,
)
from m3bayes.inference.data import canonical, log_at_reference, to_table_units, unscale
from m3bayes.inference.mode import non_negative_least_squares
from m3bayes.inference.model import log_surface
from m3bayes.inference.noise import normal
from m3bayes.laws.law import Law
from m3bayes.laws.m3 import m3
from m3bayes.runs import Runs

STARTS = 256
POLISHED = 8
STEPS = 200
# a fit is finished when this many steps on end gained next to nothing, with damping changed in between
IDLE_STEPS = 3
REWEIGHTED = 2
# a projected term is at least this share of the surface, so that its log exists
SMALLEST_SHARE = 1e-3
LONGEST_STEP = 3.0
DIFFERENCE = 1e-4
# of the log of a scale, and of all else: beyond, a term is gone or the same at all runs but one
FARTHEST_SCALE, FARTHEST = 100.0, 20.0
# tried at every step, in units of the last one that was good. 1 is about what surely descends
DAMPINGS = (1e-3, 0.1, 1.0, 10.0, 1e3)


@dataclass(frozen=True)
class PointFit:
    """``coefficients`` in the table's units, the ``objective`` (natural-log units squared), and ``residuals``
    (run,): log of the measured loss minus log of the law's."""

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
    term vanishes or an exponent runs away the last value met is given: compare objectives, not coefficients.
    Raises RunTableError (a column that the law reads is missing) and FitError (huber not positive, or no
    finite loss from any start).
    """
    law = m3() if law is None else law
    if not huber > 0:
        raise FitError(f"huber is {huber}; give a positive width in natural-log units, as 1e-3")
    with jax.enable_x64(True):
        table = canonical(runs, law, normal())
        arrays = dict(table.arrays)
        q, objective, residuals, *_ = _search(law)(arrays, float(huber), jax.random.key(seed))
        if not np.isfinite(objective):
            raise FitError(
                f"law {law.name} gives no finite loss for any of {STARTS} draws of its prior; "
                "check its formula and the priors of its coefficients"
            )
        c = unscale(law, _sites(law, q, arrays), arrays["reference"])
    values = to_table_units(law, {name: np.asarray(value) for name, value in c.items()}, table.scale)
    in_order = np.empty(len(runs))
    in_order[table.order] = np.asarray(residuals)[: len(runs)]
    coefficients = {name: float(value) for name, value in values.items()}
    return PointFit(law, coefficients, float(objective), huber, in_order)


def _bijection(coefficient):
    """Positive coefficients by their log, proportions by their logit, all others as they are: the bounds that
    priors put on exponents are belief, not part of the law."""
    return biject_to(coefficient.prior.support if _is_bounded(coefficient) else constraints.real)


def _is_bounded(coefficient):
    support = coefficient.prior.support
    return support is constraints.positive or support is constraints.unit_interval


def _free(law: Law):
    scales = scale_names(law)
    return [c for c in law.coefficients if c.name not in scales]


def _sites(law: Law, q: Array, arrays: Mapping) -> dict[str, Array]:
    scales = scale_names(law)
    sites = {c.name: _bijection(c)(value) for c, value in zip(_free(law), q[len(scales) :], strict=True)}
    if scales:
        sites |= _scales_from_profile(law, scales, q[: len(scales)], sites, arrays)
    return sites


def _q(law: Law, sites: Mapping[str, Array], arrays: Mapping) -> Array:
    scales = scale_names(law)
    parts = [_profile_from_scales(law, scales, sites, arrays)] if scales else []
    parts += [jnp.asarray(_bijection(c).inv(sites[c.name]))[None] for c in _free(law)]
    return jnp.concatenate(parts)


@lru_cache(maxsize=32)
def _search(law: Law):
    """(arrays, delta, key) -> q, objective and residuals of the best fit."""
    scales = scale_names(law)
    farthest = np.array([FARTHEST_SCALE] * len(scales) + [FARTHEST] * (len(law.names) - len(scales)))

    def residuals(q: Array, arrays: Mapping) -> Array:
        return arrays["y"] - log_surface(law, _sites(law, q, arrays), arrays)

    def objective(q: Array, arrays: Mapping, delta: Array) -> Array:
        total = jnp.sum(arrays["weight"] * huber_loss(residuals(q, arrays), delta))
        return jnp.where(jnp.isfinite(total), total, jnp.inf)

    def start(key: Array, arrays: Mapping, delta: Array) -> Array:
        sites = sample_prior({c.name: c.prior for c in law.coefficients}, key)
        k1, k2 = jax.random.split(jax.random.fold_in(key, 1))
        farther = jnp.exp(1.5 * jax.random.normal(k1, (len(law.names),)))
        sign = jnp.where(jax.random.uniform(k2, (len(law.names),)) < 0.2, -1.0, 1.0)
        wide = jax.random.uniform(jax.random.fold_in(key, 2)) < 0.5
        for i, c in enumerate(law.coefficients):
            if c.name not in scales and not _is_bounded(c):
                sites[c.name] = jnp.where(wide, jnp.clip(sites[c.name] * farther[i] * sign[i], -15.0, 15.0), sites[c.name])
        if law.shapes is not None:
            sites |= _projected_scales(law, sites, arrays, delta)
        return _q(law, sites, arrays)

    def derivatives(q, arrays, delta):
        """Gradient, Hessian, and the Hessian of the parabola that touches the Huber loss from above."""
        r = residuals(q, arrays)
        J = -jax.jacfwd(residuals)(q, arrays)
        psi = arrays["weight"] * jnp.clip(r, -delta, delta)
        inside = arrays["weight"] * (jnp.abs(r) <= delta)
        touching = arrays["weight"] * delta / jnp.maximum(jnp.abs(r), delta)
        # of the curvature of the residuals, whose weights stay: by central differences, which compile fast
        moved = jnp.concatenate([q + DIFFERENCE * jnp.eye(q.size), q - DIFFERENCE * jnp.eye(q.size)])
        slope = jax.vmap(jax.grad(lambda q: psi @ residuals(q, arrays)))(moved)
        bend = (slope[: q.size] - slope[q.size :]) / (2 * DIFFERENCE)
        bend = (bend + bend.T) / 2
        return -J.T @ psi, (J.T * inside) @ J + bend, (J.T * touching) @ J

    def polish(q, arrays, delta):
        first = jnp.maximum(delta, 3 * _typical(jnp.abs(residuals(q, arrays)), arrays))

        def body(state):
            q, wide, damping, step, idle = state
            g, H, M = derivatives(q, arrays, wide)
            g, H, M = (jnp.where(jnp.isfinite(a).all(), a, 0.0) for a in (g, H, M))
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
            gained = values[-1] - values[best]
            small = (wide == delta) & (gained <= 1e-11 * values[-1])
            idle = jnp.where(small, idle + 1, 0)
            damping = jnp.clip(jnp.append(dampings, damping * DAMPINGS[-1] ** 2)[best], 1e-6, 1e8)
            return candidates[best], jnp.maximum(delta, wide / 2), damping, step + 1, idle

        def unfinished(state):
            return (state[3] < STEPS) & (state[4] < IDLE_STEPS)

        state = (q, first, jnp.asarray(1e-2), 0, 0)
        q, _, _, steps, _ = jax.lax.while_loop(unfinished, body, state)
        return q, objective(q, arrays, delta), steps

    @jax.jit
    def search(arrays, delta, key):
        starts = jax.vmap(start, in_axes=(0, None, None))(jax.random.split(key, STARTS), arrays, delta)
        values = jax.vmap(objective, in_axes=(0, None, None))(starts, arrays, delta)
        blocks = values.reshape(POLISHED, -1)
        best = starts.reshape(*blocks.shape, -1)[jnp.arange(POLISHED), jnp.argmin(blocks, axis=1)]
        qs, found, steps = jax.vmap(polish, in_axes=(0, None, None))(best, arrays, delta)
        q = qs[jnp.argmin(found)]
        return q, found.min(), residuals(q, arrays), found, steps

    return search


def huber_loss(residual: Array, delta: Array) -> Array:
    """e^2 / 2 up to delta, delta (|e| - delta / 2) beyond."""
    size = jnp.abs(residual)
    return jnp.where(size <= delta, residual**2 / 2, delta * (size - delta / 2))


def _typical(sizes: Array, arrays: Mapping) -> Array:
    return jnp.nanmedian(jnp.where(arrays["weight"] > 0, sizes, jnp.nan))


def _projected_scales(
    law: Law, sites: Mapping[str, Array], arrays: Mapping, delta: Array
) -> dict[str, Array]:
    """Reference-scaled scales that nearly minimise the sum of absolute relative errors, each at least a small share."""
    names = scale_names(law)
    logs, present = log_shapes(law, sites, arrays)
    relative = jnp.where(present, jnp.exp(logs - arrays["y"][:, None]), 0.0)
    weight = arrays["weight"]
    scales = jnp.zeros(len(names))
    for _ in range(REWEIGHTED):
        scales = non_negative_least_squares(relative, jnp.ones_like(arrays["y"]), weight)
        weight = arrays["weight"] / jnp.maximum(jnp.abs(1 - relative @ scales), delta)
    mean_shape = jnp.average(relative, axis=0, weights=arrays["weight"])
    scales = jnp.maximum(scales, SMALLEST_SHARE / jnp.maximum(mean_shape, SMALLEST_SHARE))
    return {
        name: scale * jnp.exp(log_at_reference(law, name, sites, arrays["reference"]))
        for name, scale in zip(names, scales, strict=True)
    }
