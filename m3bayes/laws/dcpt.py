"""D-CPT (Que et al. 2024): continued pre-training on a mixture with a share r of the domain.

    L = E + A N^-alpha + B r^eta D^-beta + C (r + eps)^-gamma

| symbol | meaning | unit |
|---|---|---|
| N | model parameters | parameters |
| D | all tokens of the continued pre-training, T / r | tokens |
| r | domain ratio, the table's target ratio | - |
| B, eta | size of the data term, and how it grows with the domain's share | loss tokens^beta, - |
| C, gamma, eps | what a small domain share costs, with eps bounding it as r -> 0 | loss, -, - |
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
    tokens_seen,
    without,
)
from m3bayes.laws.target_ratio import LOG_RATIO

# eps at which the reference size of the share r + eps is taken (a convention, not a fit)
REFERENCE_EPS = 0.1


@lru_cache
def dcpt(drop: tuple[str, ...] = ()) -> Law:
    """The D-CPT law; ``drop`` gives nested laws: any of A, B, C, eta, eps."""

    def log_shapes(c: Coefficients, x: Columns) -> dict[str, Array]:
        r = jnp.asarray(x["target_ratio"])
        main = main_log_shapes(c, jnp.log(x["params"]), jnp.log(tokens_seen(x)))
        return {
            **main,
            "B": main["B"] + c["eta"] * jnp.log(r),
            "C": -jnp.asarray(c["gamma"]) * jnp.log(r + c["eps"]),
        }

    full = additive_law(
        "dcpt",
        log_shapes,
        (
            *main_terms("D", B={"r": "eta"}),
            Coefficient("C", priors.term(), "loss", of_loss=True, at={"share": "-gamma"}, off=0.0,
                        meaning="size of the share term"),
            Coefficient("eta", priors.exponent(), off=0.0, owner="B",
                        meaning="exponent of r in the data term"),
            Coefficient("gamma", priors.exponent(), owner="C", meaning="exponent of the domain's share"),
            Coefficient("eps", priors.log_normal(0.1, 1.0), off=0.0, owner="C",
                        meaning="share below which the share no longer matters"),
        ),
        logs=True,
        references={
            "r": LOG_RATIO,
            "share": Reference(lambda x: jnp.log(jnp.asarray(x["target_ratio"]) + REFERENCE_EPS)),
        },
        source="Que et al. 2024, arXiv 2406.01375",
        formula="L = E + A N^-alpha + B r^eta D^-beta + C (r + eps)^-gamma",
    )  # fmt: skip
    return without(full, drop)
