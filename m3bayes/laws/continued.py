"""Continued: runs from scratch beside runs that go on from a checkpoint of the same size.

    L = E + A N^-alpha + B D_eff^-beta
    D_eff = D from scratch;  rho D + D_0 from the checkpoint,  D_0^-beta = G N^-zeta

A checkpoint saves D_0 tokens of the target language, and from there on a token is worth rho of one read from
scratch: below 1 where what was learned stands in the way. So the two curves cross, where rho < 1, at
D = D_0 / (1 - rho), a power of N. That is the fewest coefficients with which they can.

| symbol | meaning | unit |
|---|---|---|
| N | model parameters | parameters |
| D | target tokens seen T = k U; those of the checkpoint's own training do not count | tokens |
| c | 1 where the run goes on from a checkpoint, 0 from scratch (column ``continued``) | - |
| D_0 | head start, in target tokens from scratch | tokens |
| G, zeta | D_0^-beta and how it falls with model size; D_0 grows as N^(zeta / beta) | tokens^-beta params^zeta, - |
| rho | worth of a token after the checkpoint | - |

G is what the checkpoint's data term is at its first target token, over B: it is of this form that its unit is one
of powers of the other coefficients, so that its prior can be stated at the runs' own N and D.
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
    RECIPE_COLUMNS,
    Coefficient,
    Coefficients,
    Columns,
    Law,
    additive_law,
    target_tokens_seen,
    without,
)


def log_head_start(c: Coefficients, params: ArrayLike) -> Array:
    """log D_0 of models of ``params``; all may be arrays that broadcast."""
    return (jnp.asarray(c["zeta"]) * jnp.log(params) - jnp.log(c["G"])) / c["beta"]


@lru_cache
def continued(drop: tuple[str, ...] = ()) -> Law:
    """The law of runs from scratch and from a checkpoint; ``drop`` gives nested laws: any of A, B, zeta, rho.

    Without rho a token is worth the same after the checkpoint, and the curves never cross. It reads a column
    ``continued``; :func:`m3bayes.languages.with_starts` makes it of one that says scratch or checkpoint.
    """

    def log_shapes(c: Coefficients, x: Columns) -> dict[str, Array]:
        log_D = jnp.log(target_tokens_seen(x))
        log_D_0 = log_head_start(c, x["params"])
        # 0 from scratch; D_eff / D otherwise
        log_gain = jnp.asarray(x["continued"]) * jnp.logaddexp(jnp.log(c["rho"]), log_D_0 - log_D)
        return main_log_shapes(c, jnp.log(x["params"]), log_D + log_gain)

    full = additive_law(
        "continued",
        log_shapes,
        (
            *main_terms("T"),
            Coefficient("G", priors.log_normal(1.0, 1.0), "params^zeta tokens^-beta",
                        at={"T": "beta", "N": "-zeta"}, owner="B",
                        meaning="data term of the checkpoint at its first target token, over B"),
            Coefficient("zeta", dist.Normal(0.2, 0.2), off=0.0, owner="B",
                        meaning="exponent of model size in the checkpoint's head start"),
            Coefficient("rho", priors.log_normal(0.7, 0.5), off=1.0, owner="B",
                        meaning="worth of a target token after the checkpoint, in tokens from scratch"),
        ),
        logs=True,
        columns=(*RECIPE_COLUMNS, "continued"),
        source="m3bayes; effective tokens as in Hernandez et al. 2021, arXiv 2102.01293",
        formula="L = E + A N^-alpha + B D_eff^-beta, D_eff = D or rho D + (G N^-zeta)^(-1/beta)",
    )  # fmt: skip
    return without(full, drop)
