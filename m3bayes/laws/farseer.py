"""Farseer (Li et al. 2025): a data exponent that depends on the model's size.

    L = exp(s N^q + S) + exp(B N^b + Q) D^-exp(A N^a + E)

| symbol | meaning | unit |
|---|---|---|
| N | model parameters | parameters, and no other unit |
| D | tokens: target tokens seen T = k U by default, or all tokens T / r | tokens, and no other unit |
| s, q, S | log loss at infinite D | -, -, log loss |
| B, b, Q | log of the data term's size | -, -, log loss |
| A, a, E | log of the data exponent | - |

The letters are the authors'. A change of the unit of D is no change of the coefficients, since the exponent
of D varies with N: priors lie around the published values (bits per character), those of s, B and A being
on s N0^q, B N0^b and A N0^a, their sizes at the reference run.
"""

from __future__ import annotations

from functools import lru_cache

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from m3bayes.laws import priors
from m3bayes.laws.law import Coefficient, Coefficients, Columns, Law, Tokens, data_seen, law, power, without


@lru_cache
def farseer(tokens: Tokens = "target", drop: tuple[str, ...] = ()) -> Law:
    """The Farseer law, with D the target tokens (``tokens="target"``) or all tokens (``"all"``).

    ``drop`` gives laws in which one part does not depend on N: any of s, B, A.
    """
    seen, _ = data_seen(tokens)

    def loss(c: Coefficients, x: Columns) -> Array:
        N = jnp.asarray(x["params"])
        exponent = jnp.exp(c["A"] * power(N, c["a"]) + c["E"])
        size = c["B"] * power(N, c["b"]) + c["Q"]
        return jnp.exp(c["s"] * power(N, c["q"]) + c["S"]) + jnp.exp(size - exponent * jnp.log(seen(x)))

    # medians: the published values at N0 = 1e9; the exponents' bounds keep N^b and N^a from running away
    full = law(
        "farseer",
        loss,
        (
            Coefficient("s", dist.Normal(-0.9, 0.5), at={"N": "q"}, off=0.0,
                        meaning="log loss at infinite D, its part that varies with N"),
            Coefficient("B", priors.log_normal(6.4, 0.15), at={"N": "b"}, off=0.0,
                        meaning="log size of the data term, its part that varies with N"),
            Coefficient("A", dist.Normal(-4.3, 0.3), at={"N": "a"}, off=0.0,
                        meaning="log data exponent, its part that varies with N"),
            Coefficient("S", dist.Normal(0.1, 0.7), "log loss", meaning="log loss at infinite D, the rest"),
            Coefficient("Q", dist.Normal(-1.5, 0.7), "log loss",
                        meaning="log size of the data term, the rest"),
            Coefficient("E", dist.Normal(3.1, 0.3), meaning="log data exponent, the rest"),
            Coefficient("q", priors.bounded_log_normal(0.13, 0.5, 0.01, 1.0), owner="s",
                        meaning="exponent of N"),
            Coefficient("b", dist.TruncatedNormal(-0.17, 0.05, low=-0.5, high=-0.01), owner="B",
                        meaning="exponent of N"),
            Coefficient("a", priors.bounded_log_normal(0.05, 0.5, 0.005, 0.3), owner="A",
                        meaning="exponent of N"),
        ),
        equivariant=False,
        options={} if tokens == "target" else {"tokens": tokens},
        source="Li et al. 2025, arXiv 2506.10972",
        formula="L = exp(s N^q + S) + exp(B N^b + Q) D^-exp(A N^a + E)",
    )  # fmt: skip
    return without(full, drop)
