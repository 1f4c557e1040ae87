"""Practical (Bryant and Liu 2026): between the loss of a perfect model and that of an uninformed one.

    L = E + (L0 - E) h / (1 + h),   h = a N^-alpha + b D^-beta + c N^gamma U^-delta

| symbol | meaning | unit |
|---|---|---|
| N | model parameters | parameters |
| D | tokens: target tokens seen T = k U by default, or all tokens T / r | tokens |
| U | unique target tokens seen, min(k, 1) U of the table | tokens |
| L0 | loss of an uninformed prediction, ln of the vocabulary where the loss is in nats per token | loss |
| h | how far from perfect, 0 to infinity | - |
| c, gamma, delta | overfitting of a model that is large for its data | -, -, - |

E < median loss < L0 holds in the prior, so that L is always between E and L0.
"""

from __future__ import annotations

from functools import lru_cache

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from m3bayes.laws import priors
from m3bayes.laws.data_constrained import unique_tokens_seen
from m3bayes.laws.law import (
    Coefficient,
    Coefficients,
    Columns,
    Law,
    Reference,
    Tokens,
    data_seen,
    law,
    power,
    without,
)


@lru_cache
def practical(tokens: Tokens = "target", drop: tuple[str, ...] = ()) -> Law:
    """The practical law, with D the target tokens (``tokens="target"``) or all tokens (``"all"``).

    ``drop`` gives nested laws: any of a, b, c.
    """
    seen, quantity = data_seen(tokens)

    def loss(c: Coefficients, x: Columns) -> Array:
        E, L0, a, b, size = (jnp.asarray(c[name]) for name in ("E", "L0", "a", "b", "c"))
        N, D, U = jnp.asarray(x["params"]), seen(x), unique_tokens_seen(x)
        h = (
            a * power(N, -jnp.asarray(c["alpha"]))
            + b * power(D, -jnp.asarray(c["beta"]))
            + size * power(N, c["gamma"]) * power(U, -jnp.asarray(c["delta"]))
        )
        return E + (L0 - E) * h / (1 + h)

    # at the reference run h = (L - E) / (L0 - L), about .5 / 2.5
    main, small = priors.log_normal(0.08, 1.0), priors.log_normal(0.01, 1.5)
    above_median = dist.TransformedDistribution(
        priors.log_normal(2.5, 0.5),
        dist.transforms.AffineTransform(1.0, 1.0, domain=dist.constraints.positive),
    )
    full = law(
        "practical",
        loss,
        (
            Coefficient("E", priors.floor(), "loss", of_loss=True, meaning="loss at infinite N, D and U"),
            Coefficient("L0", above_median, "loss", of_loss=True, meaning="loss of an uninformed prediction"),
            Coefficient("a", main, "params^alpha", at={"N": "-alpha"}, off=0.0,
                        meaning="size of the model term"),
            Coefficient("b", main, "tokens^beta", at={quantity: "-beta"}, off=0.0,
                        meaning="size of the data term"),
            Coefficient("c", small, "tokens^delta params^-gamma", at={"N": "gamma", "U": "-delta"}, off=0.0,
                        meaning="size of overfitting", repeated=True),
            Coefficient("alpha", priors.exponent(), owner="a", meaning="exponent of model size"),
            Coefficient("beta", priors.exponent(), owner="b", meaning="exponent of data"),
            Coefficient("gamma", priors.exponent(), owner="c",
                        meaning="exponent of model size in overfitting", repeated=True),
            Coefficient("delta", priors.exponent(), owner="c",
                        meaning="exponent of unique data in overfitting", repeated=True),
        ),
        references={"U": Reference(lambda x: jnp.log(unique_tokens_seen(x)), tokens=1)},
        options={} if tokens == "target" else {"tokens": tokens},
        source="Bryant and Liu 2026, arXiv 2605.09189",
        formula="L = E + (L0 - E) h / (1 + h), h = a N^-alpha + b D^-beta + c N^gamma U^-delta",
    )  # fmt: skip
    return without(full, drop)
