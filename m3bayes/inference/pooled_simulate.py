"""Tables of several groups simulated from the prior of a pooled fit, with the truth they were made from."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import biject_to

from m3bayes.inference.model import log_surface, observation
from m3bayes.inference.noise import Noise, student_t
from m3bayes.inference.pooled import Pooled, in_table_units
from m3bayes.inference.pooled_model import PooledModel, Pooling, noise_of, noise_sites, spread_scales
from m3bayes.inference.pooling import groups_of, pooled_constants, pooling_of, tables_of
from m3bayes.inference.simulate import with_losses
from m3bayes.laws.law import Law
from m3bayes.runs import Runs


def simulate_pooled(
    law: Law,
    design: Runs,
    pool: str,
    key: Array,
    *,
    pooling: Mapping[str, Pooling] | None = None,
    noise: Noise | None = None,
) -> Pooled:
    """The truth as a :class:`Pooled` of one draw; its ``runs`` are the recipes of ``design`` with simulated losses.

    A fit has the same prior with the truth's ``constants``, which are those of ``design``.
    """
    noise = student_t() if noise is None else noise
    kinds = pooling_of(law, pooling)
    groups, rows = groups_of(design, pool)
    model = PooledModel(law, tuple(kinds.values()), noise, len(groups), noise.by is not None)
    with jax.enable_x64(True):
        constants = pooled_constants(design, law, rows)
        tables = tables_of(design, law, noise, rows, constants)
        keys = iter(jax.random.split(key, 4 * len(law.names) + len(groups) + 4))
        scaled: dict[str, np.ndarray] = {}
        means: dict[str, np.ndarray] = {}
        spreads: dict[str, np.ndarray] = {}
        for name, kind in kinds.items():
            prior = law[name].prior
            bijection = biject_to(prior.support)
            if kind == "free":
                scaled[name] = np.asarray(prior.sample(next(keys), (len(groups),)))
                continue
            one = prior.sample(next(keys))
            scaled[name] = np.full(len(groups), one)
            if kind == "partial":
                means[name] = np.asarray(bijection.inv(one))
                spreads[name] = np.abs(spread_scales(model)[name] * jax.random.normal(next(keys)))
                theta = means[name] + spreads[name] * jax.random.normal(next(keys), (len(groups),))
                scaled[name] = np.asarray(bijection(theta))
        scatter = {name: jnp.asarray(prior.sample(next(keys))) for name, prior in noise_sites(model).items()}
        _, axes = noise_of(model, scatter)
        loss = np.empty(len(design))
        for g, (table, index) in enumerate(zip(tables, rows, strict=True)):
            own = {name: value if axes[name] is None else value[g] for name, value in scatter.items()}
            sites = {name: values[g] for name, values in scaled.items()}
            surface = log_surface(law, sites, table.arrays)
            plain = Noise(noise.kind, None, noise.known)
            measured = observation(plain, surface, own, table.arrays).sample(next(keys))
            loss[index[table.order]] = constants["L"] * np.exp(np.asarray(measured)[: len(index)])
        draws = in_table_units(law, scaled, constants) | {n: np.asarray(v) for n, v in scatter.items()}
    return Pooled(
        law=law,
        noise=noise,
        runs=with_losses(design, loss),
        by=pool,
        groups=groups,
        pooling=kinds,
        draws={name: np.asarray(values)[None, None] for name, values in draws.items()},
        means={name: np.reshape(value, (1, 1)) for name, value in means.items()},
        spreads={name: np.reshape(value, (1, 1)) for name, value in spreads.items()},
        spread_priors=spread_scales(model),
        shared={n: np.reshape(scaled[n][0], (1, 1)) for n in model.shared},
        constants=constants,
    )
