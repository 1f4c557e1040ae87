"""Several laws' posteriors of one table as one: every draw has a law and that law's coefficients.

    p(loss of x) = sum_i w_i p_i(loss of x)

What takes a posterior takes the mixture, and is then averaged over the laws as well as over their coefficients.

| symbol | meaning |
|---|---|
| w_i | weight of law i: its share of the draws |
| p_i | its posterior |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax
from jaxtyping import Int

from m3bayes.errors import M3BayesError
from m3bayes.inference.posterior import Posterior
from m3bayes.laws.departing import departs
from m3bayes.laws.law import RECIPE_COLUMNS, Coefficient, Coefficients, Columns, Law

Number = float | int
# the coefficient that says which law a draw has; those of the laws are named "m3.alpha"
WHICH = "law"


def mixture(posts: Mapping[str, Posterior], weights: Mapping[str, Number]) -> Posterior:
    """The posterior over laws and coefficients, with as many draws as the largest of those that have a weight.

    ``posts`` are {name: posterior}, all of the same runs and noise; ``weights`` {name: w}, of any sum above 0. A law
    gets its share of the draws, evenly spaced among its own; one whose share is below half a draw is left out, and one
    that has them all is the mixture. That of several laws cannot be fitted. Raises M3BayesError for posteriors that
    do not go together and for weights that are none.
    """
    shares = normalised(posts, weights)
    _check_together(posts)
    total = max(_count(posts[name]) for name, share in shares.items() if share > 0)
    numbers = dict(zip(shares, _apportioned(list(shares.values()), total), strict=True))
    used = {name: posts[name] for name, number in numbers.items() if number}
    if len(used) == 1:
        return next(iter(used.values()))
    law = _law(tuple(used), tuple(post.law for post in used.values()))
    rows = {name: np.arange(numbers[name]) * _count(post) // numbers[name] for name, post in used.items()}
    # where a draw has another law, a law's coefficients are some of its own: all of them are numbers
    filled = {name: np.arange(total) % _count(post) for name, post in used.items()}
    start = 0
    for name, own in rows.items():
        filled[name][start : start + len(own)] = own
        start += len(own)
    draws = {WHICH: np.repeat(np.arange(float(len(rows))), [len(own) for own in rows.values()])}
    for name, post in used.items():
        draws |= {
            f"{name}.{coefficient}": values[filled[name]] for coefficient, values in post.coefficients.items()
        }
    for site in ("sigma", "nu"):
        if all(site in post.draws for post in used.values()):
            draws[site] = np.concatenate([_flat(post.draws[site])[rows[name]] for name, post in used.items()])
    first = next(iter(used.values()))
    return Posterior(
        law=law,
        noise=first.noise,
        runs=first.runs,
        draws={name: values[None] for name, values in draws.items()},
        groups=first.groups,
        verdict="flagged" if any(post.verdict == "flagged" for post in used.values()) else "passed",
        notes=tuple(
            replace(note, message=f"{name}: {note.message}")
            for name, post in used.items()
            for note in post.notes
        ),
    )


def normalised(posts: Mapping[str, Posterior], weights: Mapping[str, Number]) -> dict[str, float]:
    """{name: share}, adding to 1, in the order of the posteriors. Raises M3BayesError for what are no weights."""
    for name, given in (("posteriors", posts), ("weights", weights)):
        if not isinstance(given, Mapping):
            raise M3BayesError(
                f"{name} are a {type(given).__name__}; expected a dict by the names of the laws"
            )
    if not posts:
        raise M3BayesError("no posterior given, expected {name: posterior} of at least one law")
    if weights.keys() != posts.keys():
        raise M3BayesError(
            f"weights are of {', '.join(weights) or 'nothing'} and posteriors of {', '.join(posts)}; "
            "expected the same names"
        )
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise M3BayesError(f"the weight of {name} is {weight}; expected a number from 0 on")
    total = sum(weights.values())
    if not total > 0:
        raise M3BayesError("all weights are 0; expected at least one above it")
    return {name: float(weights[name]) / total for name in posts}


def _check_together(posts: Mapping[str, Posterior]) -> None:
    (name, first), *others = posts.items()
    for other, post in others:
        for what, one, two in (
            ("runs", first.runs.fingerprint(), post.runs.fingerprint()),
            ("noise", (first.noise, first.groups), (post.noise, post.groups)),
        ):
            if one != two:
                raise M3BayesError(f"{other} was fitted to other {what} than {name}; fit both to the same")
        if departs(first.law) != departs(post.law):
            has, lacks = (name, other) if departs(first.law) else (other, name)
            raise M3BayesError(
                f"{has} has a discrepancy and {lacks} has none; give all with it or all without"
            )


@lru_cache(maxsize=8)  # one law, compiled once, for the same laws
def _law(names: tuple[str, ...], laws: tuple[Law, ...]) -> Law:
    def loss(c: Coefficients, x: Columns) -> Array:
        losses = []
        for i, (name, law) in enumerate(zip(names, laws, strict=True)):
            chosen = jnp.asarray(c[WHICH]) == i
            # a derivative that is infinite in a law that the draw does not have must not meet the zero it is times
            own = {column: jnp.where(chosen, value, lax.stop_gradient(value)) for column, value in x.items()}
            of_law = {coefficient: c[f"{name}.{coefficient}"] for coefficient in law.names}
            losses.append(jnp.where(chosen, law.loss(of_law, own), 0.0))
        return sum(losses, start=jnp.zeros(()))

    coefficients = (
        Coefficient(
            WHICH,
            dist.CategoricalProbs(jnp.full(len(laws), 1 / len(laws))),
            meaning="which of the laws holds",
        ),
        *(
            replace(coefficient, name=f"{name}.{coefficient.name}", at={}, owner=None)
            for name, law in zip(names, laws, strict=True)
            for coefficient in law.coefficients
        ),
    )
    return Law(
        name=f"mixture of {', '.join(names)}",
        coefficients=coefficients,
        loss=loss,
        columns=tuple(dict.fromkeys([*RECIPE_COLUMNS, *(column for law in laws for column in law.columns)])),
        equivariant=False,
        options={"departure": True} if all(departs(law) for law in laws) else {},
    )


def _apportioned(shares: Sequence[float], total: int) -> Int[np.ndarray, " law"]:
    """Whole numbers that add to the total, each within one of its share of it: the largest remainders go up."""
    exact = np.array(shares) * total
    numbers = np.floor(exact + 1e-9).astype(int)
    up = np.argsort(-(exact - numbers), kind="stable")[: total - numbers.sum()]
    numbers[up] += 1
    return numbers


def _count(post: Posterior) -> int:
    return len(next(iter(post.coefficients.values())))


def _flat(values: np.ndarray) -> np.ndarray:
    """(draw,) or (draw, group), all chains one after the other."""
    return values.reshape(-1, *values.shape[2:])
