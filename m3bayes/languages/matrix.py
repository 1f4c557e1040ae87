"""The transfer matrix: what a token of each source language is worth in each target language.

tau is that of :func:`m3bayes.laws.atlas`, in target tokens: above 0 the source language helps, below it harms, 1 is a
token of the target language itself. It need not be symmetric: asymmetry is tau of one direction less that of the
other. Longpre et al. 2026, arXiv 2510.22037.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from m3bayes.decision.recommendation import flagged
from m3bayes.errors import LawError, M3BayesError, Note, unique_notes
from m3bayes.inference.fit import fit
from m3bayes.inference.posterior import Posterior
from m3bayes.languages.draws import Number, banded, check_share, evenly
from m3bayes.laws.atlas import atlas, sources_of
from m3bayes.runs import Runs

Pair = tuple[str, str]
Posteriors = Mapping[str, Posterior] | Mapping[Pair, Posterior] | Mapping[str | Pair, Posterior]


@dataclass(frozen=True, eq=False)
class TransferMatrix:
    """Worth of source tokens in target tokens, for pairs of languages.

    ``table``    one row a measured pair: ``target``, ``source``; ``tau``, the median, with ``_lower`` and ``_upper``;
                 ``probability_helps``, P(tau > 0); ``asymmetry``, tau less that of the other direction, with ``_lower``
                 and ``_upper``, and ``probability_more``, that it is above 0: NaN where that was not measured
    ``draws``    {(source, target): (draw,)} of tau
    """

    table: pd.DataFrame
    draws: Mapping[Pair, Float[np.ndarray, " draw"]] = field(repr=False)
    ci: Number
    notes: tuple[Note, ...]

    def matrix(self, column: str = "tau") -> pd.DataFrame:
        """A column of the table as target x source, NaN where a pair was not measured."""
        order = {name: list(dict.fromkeys(self.table[name])) for name in ("target", "source")}
        wide = self.table.pivot(index="target", columns="source", values=column)
        return wide.reindex(index=order["target"], columns=order["source"])


def transfer_matrix(posts: Posteriors, *, ci: Number = 0.9) -> TransferMatrix:
    """The transfer matrix of {target: posterior of ``atlas`` with sources}, or {(source, target): of a law with tau}.

    :func:`fit_targets` and :func:`m3bayes.languages.fit_pairs` make such posteriors. Draws of two directions are
    paired as they come, as many as the fewer. Notes: ONE_DIRECTION names the pairs without the other one,
    POSTERIOR_FLAGGED, and what the fits say of a tau (UNIDENTIFIED: it keeps its prior). Raises LawError for a law
    without the coefficient, M3BayesError for a pair that is given twice.
    """
    check_share(ci)
    if not isinstance(posts, Mapping):
        raise M3BayesError(f"posteriors are {type(posts).__name__}; expected {{target: posterior}}")
    draws: dict[Pair, np.ndarray] = {}
    notes: list[Note] = []
    for key, post in posts.items():
        for pair, name in _coefficients(key, post).items():
            if pair in draws:
                raise M3BayesError(f"{_named(pair)} is given by two posteriors; give one")
            draws[pair] = post.coefficients[name]
            of_fit = [*flagged(post), *(note for note in post.notes if name in note.about)]
            notes += (Note(note.code, f"{_named(pair)}: {note.message}", note.about) for note in of_fit)
    if not draws:
        raise M3BayesError("there is no posterior; expected {target: posterior} with at least one")
    parts = []
    for (source, target), tau in draws.items():
        back = draws.get((target, source))
        size = 1 if back is None else min(len(tau), len(back))
        difference = np.full(1, np.nan) if back is None else evenly(tau, size) - evenly(back, size)
        parts.append(
            {
                "target": target,
                "source": source,
                **_one(banded("tau", tau[:, None], ci)),
                "probability_helps": float(np.mean(tau > 0)),
                **_one(banded("asymmetry", difference[:, None], ci)),
                "probability_more": np.nan if back is None else float(np.mean(difference > 0)),
            }
        )
    if alone := [_named((source, target)) for source, target in draws if (target, source) not in draws]:
        message = f"{', '.join(alone)}: the other direction was not measured, so nothing is said of asymmetry"
        notes.append(Note("ONE_DIRECTION", message, ("source", "language")))
    return TransferMatrix(pd.DataFrame(parts), draws, ci, unique_notes(notes))


def fit_targets(
    runs: Runs,
    sources: Sequence[str],
    *,
    similarity: Mapping[Pair, Number] | Literal["family"] | None = None,
    **options,
) -> dict[str, Posterior]:
    """A posterior of law ``atlas`` with named sources for each target, a value of the column ``language``.

    A target is no source of itself: its runs need the columns ``<s>_tokens`` and ``<s>_unique_tokens`` of the others.

    ``similarity``  {(source, target): 0 to 1} for the priors of tau, or "family" for those by language family, where
                    languages go by their ISO 639 codes
    ``options``     go to :func:`m3bayes.fit`

    Raises as that does, RunTableError where a column is missing, LawError for a similarity or a code that is not one.
    """
    language = np.array([str(name) for name in runs["language"]])
    result = {}
    for target in dict.fromkeys(language.tolist()):
        others = tuple(source for source in sources if source != target)
        if similarity == "family":
            law = atlas(sources=others, target=target)
        else:
            given = similarity or {}
            law = atlas(
                sources=others, similarity={s: given[s, target] for s in others if (s, target) in given}
            )
        result[target] = fit(runs.select(language == target), law, **options)
    return result


def _coefficients(key: str | Pair, post: Posterior) -> dict[Pair, str]:
    """{(source, target): its coefficient}; dropped sources are left out."""
    if isinstance(key, str):
        return {(s, key): f"tau_{s}" for s in sources_of(post.law) if f"tau_{s}" in post.law.names}
    if "tau" not in post.law.names:
        raise LawError(
            f"{_named(key)}: law {post.law.name} has no coefficient tau, the worth of a source token; expected one "
            "that has, as atlas, or {target: posterior of laws.atlas(sources=...)}"
        )
    return {key: "tau"}


def _named(pair: Pair) -> str:
    return f"{pair[0]} to {pair[1]}"


def _one(columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(values[0]) for name, values in columns.items()}
