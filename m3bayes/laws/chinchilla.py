"""Chinchilla (Hoffmann et al. 2022): L = E + A N^-alpha + B D^-beta.

| symbol | meaning | unit |
|---|---|---|
| N | model parameters | parameters |
| D | tokens: target tokens seen T = k U by default, or all tokens T / r | tokens |
| C | training compute, 6 N D | FLOP |

Most other laws have these three terms too, with another D: they take them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from m3bayes.laws import priors
from m3bayes.laws.law import (
    Coefficient,
    Coefficients,
    Columns,
    Law,
    Tokens,
    additive_law,
    data_seen,
    without,
)


@lru_cache
def chinchilla(tokens: Tokens = "target", drop: tuple[str, ...] = ()) -> Law:
    """Chinchilla's law, with D the target tokens (``tokens="target"``) or all tokens (``"all"``).

    ``drop`` gives nested laws: A, B or both.
    """
    seen, quantity = data_seen(tokens)

    def log_shapes(c: Coefficients, x: Columns) -> dict[str, Array]:
        return main_log_shapes(c, jnp.log(x["params"]), jnp.log(seen(x)))

    full = additive_law(
        "chinchilla",
        log_shapes,
        main_terms(quantity),
        logs=True,
        options={} if tokens == "target" else {"tokens": tokens},
        source="Hoffmann et al. 2022, arXiv 2203.15556, eq. 2",
        formula="L = E + A N^-alpha + B D^-beta",
    )
    return without(full, drop)


def main_terms(data: str, **scaled: Mapping[str, str]) -> tuple[Coefficient, ...]:
    """Coefficients E, A, B, alpha, beta; ``data`` names the reference quantity of D.

    ``scaled`` adds reference quantities that E, A or B is scaled at, as in ``B={"r": "eta"}``.
    """
    return (
        Coefficient("E", priors.floor(), "loss", of_loss=True, at=scaled.get("E", {}),
                    meaning="loss at infinite N and D"),
        Coefficient("A", priors.term(), "loss params^alpha", of_loss=True,
                    at={"N": "-alpha", **scaled.get("A", {})}, off=0.0, meaning="size of the model term"),
        Coefficient("B", priors.term(), "loss tokens^beta", of_loss=True,
                    at={data: "-beta", **scaled.get("B", {})}, off=0.0, meaning="size of the data term"),
        Coefficient("alpha", priors.exponent(), owner="A", meaning="exponent of model size"),
        Coefficient("beta", priors.exponent(), owner="B", meaning="exponent of data"),
    )  # fmt: skip


def main_log_shapes(c: Coefficients, log_N: ArrayLike, log_D: ArrayLike) -> dict[str, Array]:
    """The logs of the shapes of E, A and B, which are 1, N^-alpha and D^-beta."""
    return {
        "E": jnp.zeros(()),
        "A": -jnp.asarray(c["alpha"]) * log_N,
        "B": -jnp.asarray(c["beta"]) * log_D,
    }


def chinchilla_optimum(c: Coefficients, compute: ArrayLike) -> tuple[ArrayLike, ArrayLike]:
    """N*(C) and D*(C), the best size and the best number of tokens at C = 6 N D.

        G = (alpha A / (beta B))^(1 / (alpha + beta))
        N* = G (C / 6)^(beta / (alpha + beta)),   D* = (C / 6)^(alpha / (alpha + beta)) / G

    ``compute`` in FLOP, for coefficients in parameters and tokens; with other units, in 6 x units of N x
    units of D. Coefficients and compute may be arrays that broadcast. Hoffmann et al. 2022, eq. 4.
    """
    A, B, alpha, beta = c["A"], c["B"], c["alpha"], c["beta"]
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    return (
        G * (compute / 6) ** (beta / (alpha + beta)),
        (compute / 6) ** (alpha / (alpha + beta)) / G,
    )
