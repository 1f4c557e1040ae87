"""Data-constrained (Muennighoff et al. 2023): repeated tokens and excess parameters are worth ever less.

    L = E + A N_eff^-alpha + B D_eff^-beta
    N_eff = U_N R(N / U_N; 1 / R_N),   U_N = min(N, N_opt(U))
    D_eff = U R(D / U; 1 / R_D)
    N_opt(U) = (alpha A U^beta / (beta B))^(1 / alpha)

with R(k; lambda) of ``m3.worth_of_epochs``. N_opt is the authors' (U G)^(beta / alpha) G, written without G.

| symbol | meaning | unit |
|---|---|---|
| N | model parameters | parameters |
| D | tokens: target tokens seen T = k U by default, or all tokens T / r | tokens |
| U | the different ones among them: min(k, 1) U of the table, and all source tokens if D has them | tokens |
| N_opt(U) | the size for which U tokens, each seen once, are the best amount | parameters |
| R_D, R_N | repetitions after which more of them are worth e times less (the authors' R_D*, R_N*) | - |

It is no sum of scale times shape: N_opt reads A and B.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import jax.numpy as jnp
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
    Tokens,
    data_seen,
    law,
    source_tokens_seen,
    without,
)
from m3bayes.laws.m3 import REFERENCE_COEFFICIENTS, worth_of_epochs


def unique_tokens_seen(x: Columns, tokens: str = "target") -> Array:
    """How many different tokens the training sees: min(k, 1) U, plus for ``"all"`` the source tokens."""
    target = jnp.minimum(jnp.asarray(x["epochs"]), 1.0) * x["target_tokens"]
    return target + source_tokens_seen(x) if tokens == "all" else target


@lru_cache
def data_constrained(tokens: Tokens = "target", drop: tuple[str, ...] = ()) -> Law:
    """The data-constrained law, with D the target tokens (``tokens="target"``) or all tokens (``"all"``).

    Source text counts as never repeated. ``drop`` gives nested laws: R_D (repeated tokens are as good as
    new), R_N (excess parameters are as good as others); both leave Chinchilla.
    """
    seen, _ = data_seen(tokens)

    def effective_tokens(x: Columns, repetition: ArrayLike) -> Array:
        U = unique_tokens_seen(x, tokens)
        return U * worth_of_epochs(seen(x) / U, repetition)

    def loss(c: Coefficients, x: Columns) -> Array:
        log_N, log_U = jnp.log(x["params"]), jnp.log(unique_tokens_seen(x, tokens))
        log_scales = jnp.log(c["alpha"] * jnp.asarray(c["A"])) - jnp.log(c["beta"] * jnp.asarray(c["B"]))
        log_U_N = jnp.minimum(log_N, (log_scales + c["beta"] * log_U) / c["alpha"])
        N_eff = jnp.exp(log_U_N) * worth_of_epochs(jnp.exp(log_N - log_U_N), 1 / jnp.asarray(c["R_N"]))
        D_eff = effective_tokens(x, 1 / jnp.asarray(c["R_D"]))
        shapes = main_log_shapes(c, jnp.log(N_eff), jnp.log(D_eff))
        return sum((jnp.asarray(c[n]) * jnp.exp(shape) for n, shape in shapes.items()), start=jnp.zeros(()))

    full = law(
        "data_constrained",
        loss,
        (
            # neither A nor B can be switched off: N_opt would be 0 or infinite
            *(replace(c, off=None) for c in main_terms("D")),
            Coefficient("R_D", priors.log_normal(15.0, 1.0), off=math.inf,
                        meaning="epochs after the first until more are worth e times less", repeated=True),
            Coefficient("R_N", priors.log_normal(5.0, 1.0), off=math.inf,
                        meaning="multiples of N_opt after the first until more are worth e times less", repeated=True),
        ),
        references={
            "D": Reference(
                lambda x: jnp.log(effective_tokens(x, REFERENCE_COEFFICIENTS["lambda"])), tokens=1
            )
        },
        options={} if tokens == "target" else {"tokens": tokens},
        source="Muennighoff et al. 2023, arXiv 2305.16264",
        formula="L = E + A N_eff^-alpha + B D_eff^-beta",
    )  # fmt: skip
    return without(full, drop)
