"""ATLAS (Longpre et al. 2026): L = E + A N^-alpha + B D_eff^-beta, with one source language or several.

    D_eff = Q g(1 + tau S / Q),   Q = U R(k)
    D_eff = Q g(1 + (sum_i tau_i U_i R(D_i / U_i) + tau_other S_other) / Q),   S_other = (S - sum_i D_i)_+
    g(z) = z for z >= 1/2,  1 / (4 (1 - z)) below

| symbol | meaning | unit |
|---|---|---|
| N | model parameters | parameters |
| Q | target tokens seen, repeated ones at what they are still worth (S_lam(D_t; U_t) of the paper) | tokens |
| S | source tokens seen; as one source they are taken as never repeated | tokens |
| D_i, U_i | tokens seen of source i (column ``i_tokens``), and unique ones (``i_unique_tokens``) | tokens |
| S_other | source tokens of no named source, taken as never repeated | tokens |
| tau, tau_i | worth of a source token in target tokens; below 0 it harms | - |
| lambda | what a repeated token loses, in R(k) of M3; the same for all languages | - |

The paper's D_eff is Q + tau S, which a harmful source can drive below 0. The floor g leaves it as it is
where source text takes away at most half of what the target text is worth, and beyond that goes to
0 as Q^2 / (4 |tau| S): value and slope are continuous, D_eff is always positive, and units do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, wraps

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from m3bayes.errors import LawError
from m3bayes.laws import priors
from m3bayes.laws.chinchilla import main_log_shapes, main_terms
from m3bayes.laws.family import similarity_of
from m3bayes.laws.law import (
    RECIPE_COLUMNS,
    Coefficient,
    Coefficients,
    Columns,
    Law,
    Reference,
    additive_law,
    source_tokens_seen,
    without,
)
from m3bayes.laws.m3 import REFERENCE_COEFFICIENTS, worth_of_epochs

Number = float | int
Similarity = Mapping[str, Number] | Sequence[tuple[str, Number]]

# the prior of tau: its mean where nothing is said of a source, the mean at similarity 0 and what 1 adds, its sd
MEAN, LEAST, RISE, SD = 0.2, -0.2, 0.8, 0.3
# columns of a table or variables of a recipe that a source's would be mistaken for
TAKEN = (*RECIPE_COLUMNS, "tokens", "source_tokens", "other_tokens")


def floored(z: ArrayLike) -> Array:
    """g(z): z itself from 1/2 up, 1 / (4 (1 - z)) below."""
    z = jnp.asarray(z)
    # the branch not taken must stay finite for gradients
    return jnp.where(z >= 0.5, z, 0.25 / (1 - jnp.minimum(z, 0.5)))


def tokens_of(source: str) -> str:
    """The column of D_i."""
    return f"{source}_tokens"


def unique_tokens_of(source: str) -> str:
    """The column of U_i."""
    return f"{source}_unique_tokens"


def sources_of(law: Law) -> tuple[str, ...]:
    """The named sources of an ATLAS law. Raises LawError for a law without any."""
    sources = law.options.get("sources", ())
    if law.name != "atlas" or not isinstance(sources, tuple) or not sources:
        raise LawError(
            f"law {law.name} has no named sources; expected one like laws.atlas(sources=('en', 'fr'))"
        )
    return sources


def worth_of_source(tokens: ArrayLike, unique_tokens: ArrayLike, repetition: ArrayLike) -> Array:
    """U_i R(D_i / U_i), source tokens counted at what they are still worth; 0 where there are none."""
    U = jnp.asarray(unique_tokens)
    some = jnp.where(U > 0, U, 1.0)
    return U * worth_of_epochs(tokens / some, repetition)


def _once[**P](constructor: Callable[P, Law]) -> Callable[P, Law]:
    """One law for the same options, mappings and lists among them: compiled code is kept by law."""
    cached = lru_cache(constructor)

    @wraps(constructor)
    def made(*args: P.args, **options: P.kwargs) -> Law:
        return cached(*map(_frozen, args), **{name: _frozen(value) for name, value in options.items()})

    return made


def _frozen(value: object) -> object:
    if isinstance(value, Mapping):
        value = tuple(value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


@_once
def atlas(
    drop: tuple[str, ...] = (),
    sources: tuple[str, ...] = (),
    similarity: Similarity = (),
    target: str | None = None,
    other: bool = False,
) -> Law:
    """The ATLAS law; ``drop`` gives nested laws: any of A, B, lambda and the worths tau of source text.

    ``sources``     named sources, as ("en", "fr"): each has a coefficient ``tau_en`` in place of ``tau`` and two
                    columns, ``en_tokens`` and ``en_unique_tokens``, both 0 where there is none of it
    ``similarity``  {source: 0 to 1} to the target language: the prior of its tau is
                    Normal(-.2 + .8 similarity, .3) within (-1, 1), a choice, where it is Normal(.2, .3) without
    ``target``      ISO 639 code of the target language: sources without a similarity, which must then be such codes
                    too, have that of :func:`m3bayes.laws.family.similarity_of`
    ``other``       with a ``tau_other`` for source tokens of no named source; without it they are worth nothing

    Raises LawError for sources that cannot be told apart, similarities beyond 0 to 1 and codes not known.
    """
    given, alike = _similarities(sources, similarity, target, other)

    def worth(c: Coefficients, x: Columns) -> Array:
        """Source text, in target tokens."""
        S = source_tokens_seen(x)
        if not sources:
            return jnp.asarray(c["tau"] * S)
        seen = [jnp.asarray(x[tokens_of(s)]) for s in sources]
        total: Array = sum(
            (
                jnp.asarray(c[f"tau_{s}"]) * worth_of_source(D, x[unique_tokens_of(s)], c["lambda"])
                for s, D in zip(sources, seen, strict=True)
            ),
            start=jnp.zeros(()),
        )
        if other:
            total = total + jnp.asarray(c["tau_other"]) * jnp.maximum(S - sum(seen[1:], start=seen[0]), 0.0)
        return total

    def effective_tokens(c: Coefficients, x: Columns) -> Array:
        Q = jnp.asarray(x["target_tokens"]) * worth_of_epochs(x["epochs"], c["lambda"])
        return Q * floored(1 + worth(c, x) / Q)

    def log_shapes(c: Coefficients, x: Columns) -> dict[str, Array]:
        return main_log_shapes(c, jnp.log(x["params"]), jnp.log(effective_tokens(c, x)))

    taus = [f"tau_{s}" for s in (*sources, *(("other",) if other else ()))]
    reference = {**REFERENCE_COEFFICIENTS, **dict.fromkeys(taus, REFERENCE_COEFFICIENTS["tau"])}
    options = {"sources": sources, "similarity": given, "target": target, "other": other}
    columns = [name for s in sources for name in (tokens_of(s), unique_tokens_of(s))]
    full = additive_law(
        "atlas",
        log_shapes,
        (
            *main_terms("D"),
            Coefficient("lambda", priors.log_normal(0.07, 1.0), off=0.0, owner="B",
                        meaning="what a repeated token loses", repeated=True),
            *(
                (_worth(f"tau_{s}", _mean(alike.get(s)), f"a token of {s}") for s in sources)
                if sources
                else (_worth("tau", MEAN, "a source token"),)
            ),
            *((_worth("tau_other", MEAN, "a token of other sources"),) if other else ()),
        ),
        logs=True,
        columns=(*RECIPE_COLUMNS, *columns),
        references={
            "D": Reference(lambda x: jnp.log(effective_tokens(reference, x)), tokens=1)
        },
        options={name: value for name, value in options.items() if value},
        source=f"Longpre et al. 2026, arXiv 2510.22037, {_counted(sources)}",
        formula="L = E + A N^-alpha + B D_eff^-beta",
    )  # fmt: skip
    return without(full, drop)


def _worth(name: str, mean: float, what: str) -> Coefficient:
    return Coefficient(
        name,
        dist.TruncatedNormal(mean, SD, low=-1.0, high=1.0),
        off=0.0,
        owner="B",
        meaning=f"worth of {what} in target tokens",
    )


def _mean(similarity: Number | None) -> float:
    return MEAN if similarity is None else LEAST + RISE * similarity


def _counted(sources: Sequence[str]) -> str:
    return f"source languages {', '.join(sources)}" if sources else "one source language"


def _similarities(
    sources: tuple[str, ...], similarity: Similarity, target: str | None, other: bool
) -> tuple[dict[str, Number], dict[str, Number]]:
    """{source: similarity} as given, and with those by family; LawError for options that mean nothing."""
    if not isinstance(sources, tuple) or not all(
        isinstance(s, str) and re.fullmatch(r"\w[\w-]*", s) for s in sources
    ):
        raise LawError(
            f"law atlas: option sources is {sources!r}; expected names of languages, as ('en', 'fr')"
        )
    columns = [*TAKEN, *(name for s in sources for name in (tokens_of(s), unique_tokens_of(s)))]
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise LawError(
            f"law atlas: with sources {', '.join(sources)} two columns are called {twice[0]}; give other names"
        )
    if not sources and (similarity or target is not None or other):
        raise LawError("law atlas: options similarity, target and other are about sources; give sources too")
    try:
        given: dict[str, Number] = dict(similarity)
    except (TypeError, ValueError):
        raise LawError(
            f"law atlas: option similarity is {similarity!r}; expected {{source: number from 0 to 1}}"
        ) from None
    for name, value in given.items():
        if name not in sources:
            raise LawError(f"law atlas: similarity is of {name!r}, which is none of the sources {sources}")
        if not isinstance(value, float | int) or not 0 <= value <= 1:
            raise LawError(f"law atlas: the similarity of {name} is {value!r}; expected a number from 0 to 1")
    by_family = {} if target is None else {s: similarity_of(s, target) for s in sources if s not in given}
    return given, by_family | given
