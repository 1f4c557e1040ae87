"""Risks: the one number that a recipe's losses come to over the draws, and that is minimised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True)
class Risk:
    """``function`` takes the losses (draw,) of one recipe to a scalar in their unit: differentiable by jax,
    and never lower for a recipe whose loss is higher in every draw. ``name`` is for reports."""

    name: str
    function: Callable[[Array], Array]

    def __call__(self, losses: Array) -> Array:
        return self.function(losses)


def mean() -> Risk:
    """The expected loss."""
    return Risk("mean", jnp.mean)
