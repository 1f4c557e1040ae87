"""Laws for fits that take a tenth of a second, and one that cannot be fitted."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist

from m3bayes.laws import Coefficient, Law, additive_law, law


def data_only() -> Law:
    """L = E + B T^-beta: a law that does not know of model sizes."""
    return additive_law(
        "data_only",
        lambda c, x: {"E": jnp.ones(()), "B": (x["epochs"] * x["target_tokens"]) ** -c["beta"]},
        [
            Coefficient("E", dist.Beta(2, 2), of_loss=True),
            Coefficient("B", dist.LogNormal(-1.9, 1), of_loss=True, at={"T": "-beta"}),
            Coefficient("beta", dist.LogNormal(-1, 0.5)),
        ],
    )


def constant() -> Law:
    """L = E."""
    return law("constant", lambda c, x: c["E"], [Coefficient("E", dist.LogNormal(0, 1), of_loss=True)])


def broken() -> Law:
    """No loss anywhere."""
    return law(
        "broken", lambda c, x: c["E"] * jnp.nan, [Coefficient("E", dist.LogNormal(0, 1), of_loss=True)]
    )
