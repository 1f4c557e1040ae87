"""What a cost is: a function of N and D, and its inverses.

| symbol | meaning | unit |
|---|---|---|
| N | model parameters | parameters |
| D | all tokens seen, of both languages | tokens |
| C | what training may cost | the cost's own, FLOP where nothing else is said |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

CostFunction = Callable[[ArrayLike, ArrayLike], ArrayLike]

# what is solved for lies between these, in plain parameters or tokens
LEAST, MOST = 1e-3, 1e30


@dataclass(frozen=True)
class Cost:
    """``function(N, D)``: what training N parameters on D tokens costs, increasing in both, written for jax.

    ``params_for(C, D)`` and ``tokens_for(C, N)`` are its inverses where there are closed forms; otherwise N and
    D are solved for.
    The function takes plain parameters and tokens; ``unit_params`` and ``unit_tokens`` say how many of
    them are one unit of what :meth:`flops` is given. ``unit`` is what the function counts in.
    """

    name: str
    function: CostFunction
    params_for: Callable[[ArrayLike, ArrayLike], ArrayLike] | None = None
    unit_params: float | int = 1.0
    unit_tokens: float | int = 1.0
    tokens_for: Callable[[ArrayLike, ArrayLike], ArrayLike] | None = None
    unit: str = "FLOP"

    def in_units(self, unit_params: float | int, unit_tokens: float | int) -> Cost:
        """The same cost for N and D counted in a table's units."""
        return replace(self, unit_params=unit_params, unit_tokens=unit_tokens)

    def flops(self, N: ArrayLike, D: ArrayLike) -> Array:
        """What N and D, in this cost's units, cost: FLOP, or the cost's own ``unit``."""
        N, D = jnp.asarray(N) * self.unit_params, jnp.asarray(D) * self.unit_tokens
        return jnp.asarray(self.function(N, D))

    def log_params(self, log_C: ArrayLike, log_D: ArrayLike, low: ArrayLike, high: ArrayLike) -> Array:
        """log N that spends C on D tokens, known to lie in [low, high]; twice differentiable in C and D."""
        if self.params_for is not None:
            N = self.params_for(jnp.exp(log_C), jnp.exp(log_D) * self.unit_tokens)
            return jnp.log(N) - math.log(self.unit_params)

        def excess(log_N: Array, log_C: ArrayLike, log_D: ArrayLike) -> Array:
            return jnp.log(self.flops(jnp.exp(log_N), jnp.exp(log_D))) - log_C

        log_N = _root(excess, *(lax.stop_gradient(jnp.asarray(v)) for v in (log_C, log_D, low, high)))
        # from the root, a Newton step differentiates exactly once, the second one twice
        for _ in range(2):
            value, slope = jax.value_and_grad(excess)(log_N, log_C, log_D)
            log_N = log_N - value / slope
        return log_N

    def tokens(self, C: float | int, N: float | int) -> float:
        """D that C pays for with N parameters; 0 where N alone costs more, inf where tokens are free."""
        plain = float(N) * self.unit_params
        if self.tokens_for is not None:
            return _within(self.tokens_for(C, plain)) / self.unit_tokens
        return float(_crossing(self.function, "tokens", C, plain)) / self.unit_tokens

    def params(self, C: float | int, D: float | int) -> float:
        """N that C pays for on D tokens; 0 where tokens alone cost more, inf where parameters are free."""
        plain = float(D) * self.unit_tokens
        if self.params_for is not None:
            return _within(self.params_for(C, plain)) / self.unit_params
        return float(_crossing(self.function, "params", C, plain)) / self.unit_params


def _within(count: ArrayLike) -> float:
    """Plain parameters or tokens; below LEAST is none at all, above MOST as many as one likes."""
    plain = np.asarray(count).item()
    return 0.0 if plain < LEAST else math.inf if plain > MOST else plain


@partial(jax.jit, static_argnums=(0, 1))
def _crossing(
    function: CostFunction, solved: Literal["params", "tokens"], C: ArrayLike, given: ArrayLike
) -> Array:
    """Where a cost that increases in plain parameters or tokens reaches C."""

    def above(log: Array) -> Array:
        N, D = (jnp.exp(log), given) if solved == "params" else (given, jnp.exp(log))
        return jnp.asarray(function(N, D)) > C

    def halve(_: ArrayLike, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        return jnp.where(above(middle), low, middle), jnp.where(above(middle), middle, high)

    ends = jnp.log(jnp.asarray(LEAST)), jnp.log(jnp.asarray(MOST))
    least, most = ends
    low, _ = lax.fori_loop(0, 100, halve, ends)
    reached = jnp.where(above(least), 0.0, jnp.exp(low))
    return jnp.where(above(most), reached, jnp.inf)


def _root(excess: Callable, log_C: Array, log_D: Array, low: Array, high: Array) -> Array:
    """Newton's method on log cost against log N, nearly a straight line, kept inside a shrinking bracket."""

    def step(_: ArrayLike, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        low, high, log_N = state
        value, slope = jax.value_and_grad(excess)(log_N, log_C, log_D)
        low, high = jnp.where(value < 0, log_N, low), jnp.where(value < 0, high, log_N)
        newton = log_N - value / slope
        inside = (newton > low) & (newton < high)
        return low, high, jnp.where(inside, newton, (low + high) / 2)

    return lax.fori_loop(0, 30, step, (low, high, (low + high) / 2))[2]
