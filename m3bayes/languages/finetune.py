"""From scratch, or on from a multilingual checkpoint? The tokens, and the compute, where the two cross.

    D*(N) = D_0(N) / (1 - rho),   C*(N) = 6 N D*(N),   a power of N with exponent 1 + zeta / beta

Below D* the checkpoint is ahead, above it training from scratch is; where rho >= 1 it never is. C* is the compute
of the training on the target language alone: the checkpoint's own is spent already.

| symbol | meaning | unit |
|---|---|---|
| N | model parameters | table's |
| D | target tokens seen, T = k U | table's |
| D_0, rho, zeta, beta | head start and worth of a token after it, as in :mod:`m3bayes.laws.continued` | |
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import numpy as np
import pandas as pd
from jaxtyping import Float

from m3bayes.decision.regret import Interval, interval
from m3bayes.errors import Note, RunTableError
from m3bayes.inference.posterior import Posterior
from m3bayes.languages.draws import (
    Number,
    Numbers,
    banded,
    check_share,
    coefficients_of,
    positive_values,
    span,
)
from m3bayes.laws.continued import continued, log_head_start
from m3bayes.laws.published import published
from m3bayes.runs import Runs

STARTS = {"scratch": 0.0, "checkpoint": 1.0}
# shares of the draws from which on a note is worth reading
WORTH_SAYING = 0.05


@dataclass(frozen=True, eq=False)
class Crossover:
    """Where training from scratch overtakes a checkpoint.

    ``table``     one row a model size: ``params``, ``tokens`` (D*, table's unit) and ``compute`` (C*, FLOP), medians
                  with ``_lower`` and ``_upper``, infinite where that many draws never cross; ``head_start`` (D_0,
                  median); ``never``, the share of draws that never cross; ``outside``, of those, these included,
                  that do not within ``tokens_range``
    ``exponent``  of C* in N
    ``tokens_range``  target tokens that were seen both by runs from scratch and by continued ones, table's unit
    ``tokens``    (draw, size) D*
    """

    table: pd.DataFrame
    exponent: Interval
    tokens_range: tuple[float, float]
    tokens: Float[np.ndarray, "draw size"]
    ci: Number
    notes: tuple[Note, ...]


def with_starts(runs: Runs, column: str = "start") -> Runs:
    """The runs with the column ``continued`` that the law reads, from one that says "scratch" or "checkpoint".

    Raises RunTableError naming the row where it says something else.
    """
    said = [str(value) for value in runs[column]]
    for row, value in enumerate(said):
        if value not in STARTS:
            raise RunTableError(
                f"{runs.name}: {runs.names[row]}, column {column}: {value!r}, expected scratch or checkpoint"
            )
    return replace(runs, columns={**runs.columns, "continued": np.array([STARTS[value] for value in said])})


def crossover(post: Posterior, params: Numbers, *, ci: Number = 0.9) -> Crossover:
    """Tokens and compute from which on training from scratch is better, for models of ``params``.

    ``params`` is in the table's unit; ``post`` is of the law ``continued``. Notes: EXTRAPOLATION for sizes beyond
    the runs', CROSSOVER_OUTSIDE and NEVER_CROSSES with the share of the draws, and those of the fit about the
    coefficients. Raises LawError for another law, M3BayesError for sizes that are not above 0.
    """
    check_share(ci)
    N = positive_values("params", params)
    c = coefficients_of(post, continued())
    with jax.enable_x64(True):
        head_start = np.exp(log_head_start({name: values[:, None] for name, values in c.items()}, N))
    left = 1 - c["rho"][:, None]
    tokens = np.where(left > 0, head_start / np.where(left > 0, left, 1.0), np.inf)
    runs = post.runs
    compute = 6 * (N * runs.unit_params) * (tokens * runs.unit_tokens)
    least, most = _both_ways(runs)
    outside = (tokens < least) | (tokens > most)
    table = pd.DataFrame(
        {
            "params": N,
            **banded("tokens", tokens, ci),
            **banded("compute", compute, ci),
            "head_start": np.median(head_start, axis=0),
            "never": np.isinf(tokens).mean(axis=0),
            "outside": outside.mean(axis=0),
        }
    )
    kept = [note for note in post.notes if {"beta", "G", "zeta", "rho"} & set(note.about)]
    return Crossover(
        table=table,
        exponent=interval(1 + c["zeta"] / c["beta"], ci),
        tokens_range=(least, most),
        tokens=tokens,
        ci=ci,
        notes=(*_notes(table, runs, (least, most)), *kept),
    )


def published_crossover(params: Numbers) -> pd.DataFrame:
    """The crossover as published, C = 1113708 N^1.65 FLOP: params, tokens and compute, for N in parameters."""
    N = positive_values("params", params)
    c = published("atlas_finetuning").coefficients
    compute = c["scale"] * N ** c["exponent"]
    return pd.DataFrame({"params": N, "tokens": compute / (6 * N), "compute": compute})


def _both_ways(runs: Runs) -> tuple[float, float]:
    """The range of target tokens that both kinds of runs cover; (inf, 0) where there is none."""
    from_scratch = runs["continued"] == 0
    kinds = [runs.target_tokens_seen[rows] for rows in (from_scratch, ~from_scratch) if rows.any()]
    least, most = max(float(tokens.min()) for tokens in kinds), min(float(tokens.max()) for tokens in kinds)
    return (least, most) if len(kinds) == 2 and least <= most else (np.inf, 0.0)


def _notes(table: pd.DataFrame, runs: Runs, tokens_range: tuple[float, float]) -> list[Note]:
    notes = []
    N = table["params"].to_numpy()
    low, high = span(runs["params"])
    far = (low > N) | (high < N)
    if far.any():
        verb = "lies" if far.sum() == 1 else "lie"
        message = f"params {_listed(N[far])} {verb} outside the runs' {low:.4g} to {high:.4g}"
        notes.append(Note("EXTRAPOLATION", message, ("params",)))
    never, outside = float(table["never"].to_numpy().max()), table["outside"].to_numpy()
    if never > WORTH_SAYING:
        message = (
            f"in {never:.0%} of the draws a token after the checkpoint is worth no less than one from scratch: "
            "training from scratch never overtakes"
        )
        notes.append(Note("NEVER_CROSSES", message, ("rho",)))
    elsewhere = outside - table["never"].to_numpy() > WORTH_SAYING
    if elsewhere.any():
        least, most = tokens_range
        measured = f"the {least:.4g} to {most:.4g} tokens" if least <= most else "what little"
        message = (
            f"the crossover is not within {measured} that both kinds of runs were trained on in up to "
            f"{outside[elsewhere].max():.0%} of the draws, at params {_listed(N[elsewhere])}"
        )
        notes.append(Note("CROSSOVER_OUTSIDE", message, ("target_tokens",)))
    return notes


def _listed(values: np.ndarray) -> str:
    """At most four of them."""
    return ", ".join(f"{value:.4g}" for value in values[:4]) + (", ..." if len(values) > 4 else "")
