"""M3: monolingual, multilingual and multi-stage recipes on one loss surface.

    L = E + A N^-alpha + B D_eff^-beta + P (k-1)_+^delta (N/U)^kappa r_f^omega
    D_eff = r_f^gamma Q (1 + tau S / (eta Q))^eta,   Q = U R(k)
    R(k) = k for k <= 1;  1 + (1 - exp(-lambda (k-1))) / lambda  for k > 1

This project's own form, from what is public of arXiv 2410.12325v2: the four variables, one surface, a
monolingual limit that is Chinchilla's.

| symbol | meaning | unit |
|---|---|---|
| N | model parameters | parameters |
| U | unique target tokens, D_T | tokens |
| k | epochs over U in the whole training, below 1 = part of it | - |
| r, r_f | target ratio, on average and in the last stage | - |
| S | source tokens seen, k U (1 - r) / r | tokens |
| Q | target tokens seen, repeated ones counted at what they are still worth | tokens |
| lambda | what a repeated token loses (R_D* = 1 / lambda of Muennighoff et al.) | - |
| tau | what the first source token is worth in target tokens | - |
| eta | how far source text can stand in for target text, 1 = additively | - |
| gamma | what ending on the target language is worth | - |
| P, delta, kappa, omega | overfitting by repetition | loss, -, -, - |

Identities (tests hold it to them): at k = r = r_f = 1 it is Chinchilla; at r = r_f = 1 and P = 0 its data
term is Muennighoff's; below k = 1 only k U matters; continuous at k = 1.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import Literal

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from m3bayes.laws import priors
from m3bayes.laws.chinchilla import main_log_shapes
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

# Coefficients at which D0, the reference size of the data, is taken (a convention, not a fit).
REFERENCE_COEFFICIENTS = MappingProxyType({"lambda": 0.07, "tau": 0.23, "gamma": 0.0, "eta": 1.0})


def worth_of_epochs(k: ArrayLike, repetition: ArrayLike) -> Array:
    """R(k): how many epochs of fresh text k epochs over the same text are worth; ``repetition`` is lambda."""
    k = jnp.asarray(k)
    repetition = jnp.asarray(repetition)
    extra = jnp.maximum(k - 1, 0)
    # lambda = 0 is the limit in which repeated text is as good as new
    some = jnp.where(repetition > 0, repetition, 1.0)
    decayed = jnp.where(repetition > 0, -jnp.expm1(-some * extra) / some, extra)
    return jnp.where(k <= 1, k, 1 + decayed)


def log_effective_tokens(c: Coefficients, x: Columns, last_stage: ArrayLike | None = None) -> Array:
    """log D_eff, D_eff in tokens of target text; ``last_stage`` stands in for r_f in the factor r_f^gamma."""
    # in logs throughout: one exponential a term is what makes predictions of a million recipes fast
    r_f = jnp.asarray(x["final_ratio"] if last_stage is None else last_stage)
    Q = jnp.asarray(x["target_tokens"]) * worth_of_epochs(x["epochs"], c["lambda"])
    tau, eta = jnp.asarray(c["tau"]), jnp.asarray(c["eta"])
    S = source_tokens_seen(x)
    return jnp.asarray(c["gamma"]) * jnp.log(r_f) + jnp.log(Q) + eta * jnp.log1p(tau * S / (eta * Q))


def log_overfitting(c: Coefficients, x: Columns, unique_tokens: ArrayLike | None = None) -> Array:
    """log of (k-1)_+^delta (N/U)^kappa r_f^omega: -inf up to one epoch, with finite gradients there."""
    k = jnp.asarray(x["epochs"])
    U = x["target_tokens"] if unique_tokens is None else unique_tokens
    repeats = k > 1
    log_extra = jnp.log(jnp.where(repeats, k - 1, 1.0))
    log_ratio = jnp.log(jnp.asarray(x["params"]) / U)
    log_last = jnp.log(jnp.asarray(x["final_ratio"]))
    log_size = c["delta"] * log_extra + c["kappa"] * log_ratio + c["omega"] * log_last
    return jnp.where(repeats, log_size, -jnp.inf)


@lru_cache
def m3(
    penalty_tokens: Literal["target", "target+source"] = "target",
    floor: bool = False,
    drop: tuple[str, ...] = (),
) -> Law:
    """The M3 law.

    ``penalty_tokens="target+source"`` puts N / (U + tau S) in the penalty instead of N / U;
    ``floor=True`` puts (eps + r_f)^gamma instead of r_f^gamma, with eps a coefficient;
    ``drop`` gives nested laws: any of A, B, lambda, tau, eta, gamma, P, kappa, omega.
    """

    def log_shapes(c: Coefficients, x: Columns) -> dict[str, Array]:
        U = x["target_tokens"]
        unique = U + jnp.asarray(c["tau"]) * source_tokens_seen(x) if penalty_tokens != "target" else U
        last_stage = x["final_ratio"] + c["eps"] if floor else None
        log_D = log_effective_tokens(c, x, last_stage)
        return {
            **main_log_shapes(c, jnp.log(x["params"]), log_D),
            "P": log_overfitting(c, x, unique),
        }

    coefficients = (
        Coefficient("E", priors.floor(), "loss", of_loss=True, meaning="loss at infinite N and D"),
        Coefficient("A", priors.term(), "loss params^alpha", of_loss=True, at={"N": "-alpha"},
                    off=0.0, meaning="size of the model term"),
        Coefficient("B", priors.term(), "loss tokens^beta", of_loss=True, at={"D": "-beta"},
                    off=0.0, meaning="size of the data term"),
        Coefficient("P", priors.overfitting(), "loss (tokens/params)^kappa", of_loss=True,
                    at={"k": "delta", "v": "kappa"}, off=0.0,
                    meaning="size of overfitting by repetition", repeated=True),
        Coefficient("alpha", priors.exponent(), owner="A", meaning="exponent of model size"),
        Coefficient("beta", priors.exponent(), owner="B", meaning="exponent of data"),
        Coefficient("lambda", priors.log_normal(0.07, 1.0), off=0.0, owner="B",
                    meaning="what a repeated token loses", repeated=True),
        Coefficient("tau", priors.logit_normal(-1.2, 1.2), off=0.0,
                    owner="B" if penalty_tokens == "target" else None,
                    meaning="worth of the first source token in target tokens"),
        Coefficient("eta", priors.beta(3.0, 1.0), off=1.0, owner="tau",
                    meaning="how far source text stands in for target text"),
        Coefficient("gamma", dist.Normal(0.1, 0.2), off=0.0, owner="B",
                    meaning="worth of ending on the target language"),
        Coefficient("delta", priors.bounded_log_normal(0.9, 0.4, 0.2, 3.0), owner="P",
                    meaning="exponent of extra epochs in overfitting", repeated=True),
        Coefficient("kappa", priors.bounded_log_normal(0.7, 0.5, 0.05, 2.0), off=0.0, owner="P",
                    meaning="exponent of N/U in overfitting", repeated=True),
        Coefficient("omega", dist.Normal(1.0, 1.0), off=0.0, owner="P",
                    meaning="overfitting in a pure last stage", repeated=True),
    )  # fmt: skip
    if floor:
        coefficients += (
            Coefficient("eps", priors.log_normal(0.03, 1.0), off=0.0, owner="gamma",
                        meaning="target ratio below which the last stage no longer matters"),
        )  # fmt: skip
    options = {"penalty_tokens": penalty_tokens, "floor": floor}
    defaults = {"penalty_tokens": "target", "floor": False}
    full = additive_law(
        "m3",
        log_shapes,
        coefficients,
        logs=True,
        references={"D": Reference(lambda x: log_effective_tokens(REFERENCE_COEFFICIENTS, x), tokens=1)},
        options={key: value for key, value in options.items() if value != defaults[key]},
        source="m3bayes, from what is public of arXiv 2410.12325v2",
        formula="L = E + A N^-alpha + B D_eff^-beta + P (k-1)_+^delta (N/U)^kappa r_f^omega",
    )
    return without(full, drop)
