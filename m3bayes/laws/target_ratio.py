"""Target ratio (He et al. 2024): L = (E + A N^-alpha + B D^-beta) r^-gamma.

| symbol | meaning | unit |
|---|---|---|
| N | model parameters | parameters |
| D | all tokens seen, T / r = T + S; with ``repetition`` U R(k) + S | tokens |
| r | target ratio, on average over the training | - |
| gamma | what the target's share is worth, whatever N and D | - |
| lambda | with ``repetition``: what a repeated token loses, in R(k) of M3 | - |
"""

from __future__ import annotations

from functools import lru_cache

import jax.numpy as jnp
from jax import Array

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
    tokens_seen,
    without,
)
from m3bayes.laws.m3 import REFERENCE_COEFFICIENTS, worth_of_epochs

LOG_RATIO = Reference(lambda x: jnp.log(x["target_ratio"]))


@lru_cache
def target_ratio(repetition: bool = False, drop: tuple[str, ...] = ()) -> Law:
    """The target-ratio law; ``repetition=True`` counts repeated target tokens at what they are still worth.

    ``drop`` gives nested laws: any of A, B, gamma and, with repetition, lambda.
    """

    def worth(c: Coefficients, x: Columns) -> Array:
        if not repetition:
            return tokens_seen(x)
        return jnp.asarray(x["target_tokens"]) * worth_of_epochs(
            x["epochs"], c["lambda"]
        ) + source_tokens_seen(x)

    def log_shapes(c: Coefficients, x: Columns) -> dict[str, Array]:
        log_share = -jnp.asarray(c["gamma"]) * jnp.log(x["target_ratio"])
        main = main_log_shapes(c, jnp.log(x["params"]), jnp.log(worth(c, x)))
        return {name: shape + log_share for name, shape in main.items()}

    scaled = {"r": "-gamma"}
    coefficients = (
        *main_terms("D", E=scaled, A=scaled, B=scaled),
        Coefficient("gamma", priors.bounded_log_normal(0.1, 1.0, 0.002, 2.0), off=0.0,
                    meaning="exponent of the target ratio"),
    )  # fmt: skip
    if repetition:
        coefficients += (
            Coefficient("lambda", priors.log_normal(0.07, 1.0), off=0.0, owner="B",
                        meaning="what a repeated token loses", repeated=True),
        )  # fmt: skip
    full = additive_law(
        "target_ratio",
        log_shapes,
        coefficients,
        logs=True,
        references={
            "D": Reference(lambda x: jnp.log(worth(REFERENCE_COEFFICIENTS, x)), tokens=1),
            "r": LOG_RATIO,
        },
        options={"repetition": True} if repetition else {},
        source="He et al. 2024, arXiv 2410.12883",
        formula="L = (E + A N^-alpha + B D^-beta) r^-gamma",
    )
    return without(full, drop)
