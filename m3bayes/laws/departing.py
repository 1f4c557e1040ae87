"""A law that may be left beyond the runs: the same surface times a departure that grows with distance from them.

    log L(x) = log L_law(x) + b tanh(sum_v w_v g(t_v(x)) / b),   g(t) = (1 + h)^(5/2) t^3 / (t + h)^(5/2), t > 0, else 0

| symbol | meaning | unit |
|---|---|---|
| v | a variable and a side: N, U, k, D = k U / r, N D, r, r_f above their range or below it | - |
| t_v | log of how many times x is beyond that end of the range | e-folds |
| w_v | departure of the log loss where x is e times beyond, for g(1) = 1 | log loss |
| h | where g turns from 0 to its growth as the square root of t; with it g has two continuous derivatives | e-folds |
| b | what no departure exceeds; small ones are as they are | log loss |

Inside the range of the runs the law is what it was. The square root is a choice between growth in proportion, which
is too little soon beyond the runs where it is right far out, and a departure that is as large at once. Without the
limit the few draws whose w_v are large would have absurd losses far out, and carry the mean loss with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from m3bayes.errors import LawError
from m3bayes.laws.law import Coefficient, Coefficients, Columns, Law, tokens_seen

SCALE = 0.04  # sd of w_v where nothing is known but that laws are laws
TURN = 0.1  # h
LIMIT = 1.0  # b: a loss between 1 / e of the law's and e times it
Edges = Mapping[str, Sequence[float]]

# what is looked at, as the logs of a recipe's columns
VARIABLES: Mapping[str, Callable[[Columns], Array]] = MappingProxyType(
    {
        "params": lambda x: jnp.log(x["params"]),
        "target_tokens": lambda x: jnp.log(x["target_tokens"]),
        "epochs": lambda x: jnp.log(x["epochs"]),
        "tokens": lambda x: jnp.log(tokens_seen(x)),
        "compute": lambda x: jnp.log(x["params"]) + jnp.log(tokens_seen(x)),
        "target_ratio": lambda x: jnp.log(x["target_ratio"]),
        "final_ratio": lambda x: jnp.log(x["final_ratio"]),
    }
)
_RATIOS = ("target_ratio", "final_ratio")


def departing(law: Law, edges: Edges) -> Law:
    """``law`` with the departure, whose w_v are further coefficients, ``departure_above_params`` and so on.

    ``edges`` are {variable: (log of the lowest, log of the highest)} over the runs, in the units of their table, of
    all of :data:`VARIABLES`. A ratio of 1 has nothing above it. Further columns that a law reads have no departure.
    Raises LawError where an edge is missing or the law departs already.
    """
    if departs(law):
        raise LawError(f"law {law.name} has a departure already; give the law without it")
    if missing := [name for name in VARIABLES if name not in edges]:
        raise LawError(
            f"the departure of law {law.name} has no edges of {missing[0]}; give (lowest, highest)"
        )
    edges = {name: [float(end) for end in edges[name]] for name in VARIABLES}

    def loss(c: Coefficients, x: Columns) -> Array:
        departure = sum((c[name] * g for name, g in reach(edges, x).items()), start=jnp.zeros(()))
        return law.loss(c, x) * jnp.exp(limited(departure))

    added = (
        Coefficient(
            _coefficient(side, name),
            dist.Normal(0.0, SCALE),
            "log loss",
            off=0.0,
            meaning=f"departure from the law at e times {side} the runs' {name}",
        )
        for side, name in _sides(edges)
    )
    return replace(
        law,
        coefficients=(*law.coefficients, *added),
        loss=loss,
        log_shapes=None,
        options={**law.options, "departure": edges},
    )


def departs(law: Law) -> bool:
    """Whether a law is one of :func:`departing`."""
    return "departure" in law.options


def edges_of(x: Columns) -> Edges:
    """The edges that runs with these columns, each (run,), have."""
    logs = {name: log_value(x) for name, log_value in VARIABLES.items()}
    return {name: (float(values.min()), float(values.max())) for name, values in logs.items()}


def reach(edges: Edges, x: Columns) -> dict[str, Array]:
    """{coefficient w_v: g(t_v)} of a recipe: how far it is beyond each edge."""
    return {
        _coefficient(side, name): growth(
            VARIABLES[name](x) - edges[name][1] if side == "above" else edges[name][0] - VARIABLES[name](x)
        )
        for side, name in _sides(edges)
    }


def limited(departure: ArrayLike) -> Array:
    """The departure of log loss, of the sum over the edges."""
    return LIMIT * jnp.tanh(jnp.asarray(departure) / LIMIT)


def growth(t: ArrayLike) -> Array:
    """g(t): 0 inside the range, 1 at one e-fold beyond, then as the square root of t."""
    beyond = jnp.maximum(jnp.asarray(t), 0.0)
    return (1 + TURN) ** 2.5 * beyond**3 / (beyond + TURN) ** 2.5


def _sides(edges: Edges) -> list[tuple[str, str]]:
    return [
        (side, name)
        for name in VARIABLES
        for side in ("above", "below")
        if not (name in _RATIOS and side == "above" and edges[name][1] >= 0)
    ]


def _coefficient(side: str, name: str) -> str:
    return f"departure_{side}_{name}"
