"""Prescriptive (Lovelace et al. 2026): Chinchilla and overfitting by repetition.

    L = E + A N^-alpha + B D^-beta + P (k-1)_+^delta (N/U)^kappa

| symbol | meaning | unit |
|---|---|---|
| N | model parameters | parameters |
| D | tokens, repeated ones in full: target tokens seen T = k U by default, or all tokens T / r | tokens |
| k, U | epochs over the target corpus and its unique tokens | -, tokens |
| P, delta, kappa | overfitting by repetition | loss (tokens/params)^kappa, -, - |
"""

from __future__ import annotations

from functools import lru_cache

import jax.numpy as jnp
from jax import Array

from m3bayes.laws import priors
from m3bayes.laws.chinchilla import main_log_shapes, main_terms
from m3bayes.laws.law import Coefficient, Coefficients, Columns, Law, Tokens, additive_law, data_seen, without
from m3bayes.laws.m3 import log_overfitting


@lru_cache
def prescriptive(tokens: Tokens = "target", drop: tuple[str, ...] = ()) -> Law:
    """The prescriptive law, with D the target tokens (``tokens="target"``) or all tokens (``"all"``).

    ``drop`` gives nested laws: any of A, B, P, kappa.
    """
    seen, quantity = data_seen(tokens)

    def log_shapes(c: Coefficients, x: Columns) -> dict[str, Array]:
        main = main_log_shapes(c, jnp.log(x["params"]), jnp.log(seen(x)))
        # M3's penalty, blind to the last stage
        return {**main, "P": log_overfitting({**c, "omega": 0.0}, x)}

    full = additive_law(
        "prescriptive",
        log_shapes,
        (
            *main_terms(quantity),
            Coefficient("P", priors.overfitting(), "loss (tokens/params)^kappa", of_loss=True,
                        at={"k": "delta", "v": "kappa"}, off=0.0,
                        meaning="size of overfitting by repetition", repeated=True),
            Coefficient("delta", priors.bounded_log_normal(0.9, 0.4, 0.2, 3.0), owner="P",
                        meaning="exponent of extra epochs in overfitting", repeated=True),
            Coefficient("kappa", priors.bounded_log_normal(0.7, 0.5, 0.05, 2.0), off=0.0, owner="P",
                        meaning="exponent of N/U in overfitting", repeated=True),
        ),
        logs=True,
        options={} if tokens == "target" else {"tokens": tokens},
        source="Lovelace et al. 2026, arXiv 2605.01640",
        formula="L = E + A N^-alpha + B D^-beta + P (k-1)_+^delta (N/U)^kappa",
    )  # fmt: skip
    return without(full, drop)
