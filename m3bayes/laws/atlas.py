"""ATLAS (Longpre et al. 2026) for one source language: L = E + A N^-alpha + B D_eff^-beta.

    D_eff = Q g(1 + tau S / Q),   Q = U R(k)
    g(z) = z for z >= 1/2,  1 / (4 (1 - z)) below

| symbol | meaning | unit |
|---|---|---|
| N | model parameters | parameters |
| Q | target tokens seen, repeated ones at what they are still worth (S_lam(D_t; U_t) of the paper) | tokens |
| S | source tokens seen, taken as never repeated | tokens |
| tau | worth of a source token in target tokens; below 0 it harms | - |
| lambda | what a repeated token loses, in R(k) of M3 | - |

The paper's D_eff is Q + tau S, which a harmful source can drive below 0. The floor g leaves it as it is
where source text takes away at most half of what the target text is worth, and beyond that goes to
0 as Q^2 / (4 |tau| S): value and slope are continuous, D_eff is always positive, and units do not matter.
"""

from __future__ import annotations

from functools import lru_cache

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from m3bayes.laws import priors
from m3bayes.laws.chinchilla import main_log_shapes, main_terms
from m3bayes.laws.law import (
    Coefficient,
    Coefficients,
    Columns,
    Law,
    Reference,
    additive_law,
    source_tokens_seen,
    without,
)
from m3bayes.laws.m3 import REFERENCE_COEFFICIENTS, worth_of_epochs


def floored(z: ArrayLike) -> Array:
    """g(z): z itself from 1/2 up, 1 / (4 (1 - z)) below."""
    z = jnp.asarray(z)
    # the branch not taken must stay finite for gradients
    return jnp.where(z >= 0.5, z, 0.25 / (1 - jnp.minimum(z, 0.5)))


@lru_cache
def atlas(drop: tuple[str, ...] = ()) -> Law:
    """The ATLAS law; ``drop`` gives nested laws: any of A, B, lambda, tau."""

    def effective_tokens(c: Coefficients, x: Columns) -> Array:
        Q = jnp.asarray(x["target_tokens"]) * worth_of_epochs(x["epochs"], c["lambda"])
        return Q * floored(1 + c["tau"] * source_tokens_seen(x) / Q)

    def log_shapes(c: Coefficients, x: Columns) -> dict[str, Array]:
        return main_log_shapes(c, jnp.log(x["params"]), jnp.log(effective_tokens(c, x)))

    full = additive_law(
        "atlas",
        log_shapes,
        (
            *main_terms("D"),
            Coefficient("lambda", priors.log_normal(0.07, 1.0), off=0.0, owner="B",
                        meaning="what a repeated token loses"),
            Coefficient("tau", dist.TruncatedNormal(0.2, 0.3, low=-1.0, high=1.0), off=0.0, owner="B",
                        meaning="worth of a source token in target tokens"),
        ),
        logs=True,
        references={
            "D": Reference(lambda x: jnp.log(effective_tokens(REFERENCE_COEFFICIENTS, x)), tokens=1)
        },
        source="Longpre et al. 2026, arXiv 2510.22037, one source language",
        formula="L = E + A N^-alpha + B D_eff^-beta",
    )  # fmt: skip
    return without(full, drop)
