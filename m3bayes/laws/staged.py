"""Staged: M3 with what measured two-stage runs ask for, the length of the last stage and a share of the whole loss.

    L = (E + A N^-alpha + B D_eff^-beta) r_f^-xi + P (k-1)_+^delta (N/U)^kappa r_f^omega
    D_eff = e^chi r_f^gamma Q (1 + tau S / (eta Q))^eta,   Q = U R(k)
    e = s + (1 - s) r_1 / r,   s = (r - r_1) / (r_f - r_1);   e = 1 at one stage

e is how early the target text comes: twice the mean share of the training that is still ahead when a target
token is read. It is r / r_f where no target text comes before the last stage, and it is what distinguishes two
schedules of the same r and r_f.

| symbol | meaning | unit |
|---|---|---|
| N, U, k, r, r_f, S, Q, R | as in :mod:`m3bayes.laws.m3` | |
| r_1 | target ratio before the last stage, 0 where the table does not say | - |
| s | share of the last stage in all tokens | - |
| e | how early the target text comes, 1 = spread evenly | - |
| xi | what ending on the target language is worth for the whole loss (gamma of He et al. 2024, but of r_f) | - |
| chi | what it costs that target text comes late | - |

Identities (tests hold it to them): at xi = chi = 0 it is M3; at one stage, k <= 1, gamma = -1, tau = P = 0 it is the
target-ratio law with gamma = xi. gamma's prior is wider than M3's, so that it can be both.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from m3bayes.laws.chinchilla import main_log_shapes
from m3bayes.laws.law import (
    RECIPE_COLUMNS,
    Coefficient,
    Coefficients,
    Columns,
    Law,
    Reference,
    additive_law,
    without,
)
from m3bayes.laws.m3 import log_effective_tokens, log_overfitting, m3

LAST = Reference(lambda x: jnp.log(x["final_ratio"]))


def earliness(x: Columns) -> Array:
    """e, above 0; above 1 where the last stage holds less target text than those before."""
    r, r_f = jnp.asarray(x["target_ratio"]), jnp.asarray(x["final_ratio"])
    r_1 = jnp.nan_to_num(jnp.asarray(x.get("first_ratio", 0.0)))
    two_stages = r_f != r_1
    s = jnp.where(two_stages, (r - r_1) / jnp.where(two_stages, r_f - r_1, 1.0), 1.0)
    return s + (1 - s) * r_1 / r


@lru_cache
def staged(drop: tuple[str, ...] = ()) -> Law:
    """The staged law. ``drop`` gives nested laws: what M3 can drop, and xi, chi.

    It reads ``first_ratio`` where the table has it.
    """

    def log_shapes(c: Coefficients, x: Columns) -> dict[str, Array]:
        log_share = -jnp.asarray(c["xi"]) * jnp.log(x["final_ratio"])
        log_D = log_effective_tokens(c, x) + jnp.asarray(c["chi"]) * jnp.log(earliness(x))
        main = main_log_shapes(c, jnp.log(x["params"]), log_D)
        return {**{name: shape + log_share for name, shape in main.items()}, "P": log_overfitting(c, x)}

    base = m3()
    changed = {name: replace(base[name], at={**base[name].at, "f": "-xi"}) for name in ("E", "A", "B")}
    changed["gamma"] = replace(base["gamma"], prior=dist.Normal(0.0, 0.7))
    coefficients = (
        *(changed.get(c.name, c) for c in base.coefficients),
        Coefficient("xi", dist.Normal(0.1, 0.2), off=0.0,
                    meaning="worth of ending on the target language for the whole loss"),
        Coefficient("chi", dist.Normal(0.0, 0.5), off=0.0, owner="B",
                    meaning="cost of target text that comes late"),
    )  # fmt: skip
    full = additive_law(
        "staged",
        log_shapes,
        coefficients,
        logs=True,
        columns=(*RECIPE_COLUMNS, "first_ratio"),
        references={"D": base.references["D"], "f": LAST},
        source="m3bayes, from its measured pilot runs",
        formula="L = (E + A N^-alpha + B D_eff^-beta) r_f^-xi + P (k-1)_+^delta (N/U)^kappa r_f^omega",
    )
    return without(full, drop)
