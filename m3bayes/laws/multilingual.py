"""Multilingual (Longpre et al. 2026): K languages sampled alike, L = E + A K^phi N^-alpha + B K^psi D^-beta.

| symbol | meaning | unit |
|---|---|---|
| K | languages trained on, each with the same share of the text (column ``languages``) | languages |
| N | model parameters | parameters |
| D | tokens of the target language, T = k U; all languages together K T, so that the table's r is 1 / K | tokens |
| phi | what another language takes of the model: the model term grows as K^phi | - |
| psi | what it takes (above 0) or gives (below) in data | - |

The loss is that of one language, or their mean. At phi = psi = 0 it is Chinchilla on target tokens.
"""

from __future__ import annotations

from functools import lru_cache

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from m3bayes.laws.chinchilla import main_log_shapes, main_terms
from m3bayes.laws.law import (
    RECIPE_COLUMNS,
    Coefficient,
    Coefficients,
    Columns,
    Law,
    Reference,
    additive_law,
    target_tokens_seen,
    without,
)

LOG_LANGUAGES = Reference(lambda x: jnp.log(x["languages"]))


@lru_cache
def multilingual(drop: tuple[str, ...] = ()) -> Law:
    """The multilingual law; ``drop`` gives nested laws: any of A, B, phi, psi. It reads a column ``languages``."""

    def log_shapes(c: Coefficients, x: Columns) -> dict[str, Array]:
        log_K = jnp.log(x["languages"])
        main = main_log_shapes(c, jnp.log(x["params"]), jnp.log(target_tokens_seen(x)))
        return {**main, "A": main["A"] + c["phi"] * log_K, "B": main["B"] + c["psi"] * log_K}

    full = additive_law(
        "multilingual",
        log_shapes,
        (
            *main_terms("T", A={"K": "phi"}, B={"K": "psi"}),
            Coefficient("phi", dist.Normal(0.1, 0.2), off=0.0, owner="A",
                        meaning="what another language takes of the model"),
            Coefficient("psi", dist.Normal(0.0, 0.2), off=0.0, owner="B",
                        meaning="what another language takes or, below 0, gives in data"),
        ),
        logs=True,
        columns=(*RECIPE_COLUMNS, "languages"),
        references={"K": LOG_LANGUAGES},
        source="Longpre et al. 2026, arXiv 2510.22037, languages sampled alike",
        formula="L = E + A K^phi N^-alpha + B K^psi D^-beta",
    )  # fmt: skip
    return without(full, drop)
