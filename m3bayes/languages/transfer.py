"""Bilingual transfer scores: how many tokens a second language saves or costs.

    BTS = -(sigma(L(d)) - 2 d) / d

0 where the source language is neither help nor harm, above 0 where it helps, at most 2. In closed form, for fresh
text: 2 - 2 / (1 + tau) in ATLAS while tau is above -1/2, 2 - 2^(1 + gamma) / (1 + tau / eta)^eta in M3: the same for
every d and N. Longpre et al. 2026, arXiv 2510.22037.

| symbol | meaning | unit |
|---|---|---|
| d | tokens of the target language that the monolingual model reads | table's |
| L(d) | its loss | table's |
| sigma(L) | tokens, half of them target, with which the bilingual model comes to that loss | table's |

Both models have the same N, read no text twice, and the bilingual one reads both languages in one stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import pandas as pd
from jaxtyping import Float

from m3bayes.errors import LawError, M3BayesError, Note, unique_notes
from m3bayes.inference import extrapolation as outside
from m3bayes.inference.fit import fit
from m3bayes.inference.posterior import Posterior, thinned
from m3bayes.languages.draws import Number, Numbers, banded, check_share, evenly, positive_values
from m3bayes.laws.atlas import sources_of, tokens_of, unique_tokens_of
from m3bayes.laws.law import RECIPE_COLUMNS, Law
from m3bayes.runs import Runs

# sigma is sought between d over this and d times this: first on a grid, then by halving its steps
SPAN, STEPS, HALVINGS = 1e6, 56, 40
# of log loss: where twice the tokens save less, rounding would say how many are needed
LEAST_GAIN = 1e-12
# values that other columns of a law have in the monolingual and the bilingual model
OTHERS = {"first_ratio": (np.nan, np.nan), "languages": (1.0, 2.0), "continued": (0.0, 0.0)}

Pair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class TransferScore:
    """Bilingual transfer scores at one model size.

    ``table``   one row each of d: ``tokens`` (d), ``score``, ``bilingual_tokens`` (sigma), medians with ``_lower`` and
                ``_upper``; ``never``, the share of draws in which the bilingual model does not come to the loss
                with a million times d: their score is -inf, and counts
    ``scores``  (draw, d)
    ``params``  N, in the table's unit
    """

    table: pd.DataFrame
    scores: Float[np.ndarray, "draw tokens"]
    params: float
    ci: Number
    notes: tuple[Note, ...]


@dataclass(frozen=True, eq=False)
class PairScores:
    """Scores of several pairs of languages.

    ``table``   one row a pair and d: ``source``, ``target``, then as in :class:`TransferScore`, then ``asymmetry``, the
                score less that of the other direction, with ``_lower`` and ``_upper``; NaN where that was not measured
    """

    table: pd.DataFrame
    ci: Number
    notes: tuple[Note, ...]


def transfer_score(
    post: Posterior,
    tokens: Numbers,
    *,
    bilingual: Posterior | None = None,
    params: Number | None = None,
    source: str | None = None,
    ci: Number = 0.9,
) -> TransferScore:
    """The transfer score of a source language, at ``tokens`` d of target text (table's unit).

    ``post``       of a law that reads the target ratio, from runs with and without the source language; or, with
                   ``bilingual``, of the monolingual runs, ``bilingual`` being of those with half of each
    ``params``     N (table's unit), by default the geometric mean of the runs'
    ``source``     the source language, for a law with several (:func:`m3bayes.laws.atlas`)

    Draws of two posteriors are paired as they come, as many as the smaller one has. Notes: NEVER_REACHED,
    SCORE_FIXED (the law alone says it), EXTRAPOLATION, BEYOND_30X. Raises LawError for a law that reads columns of
    its own or has no such source, M3BayesError for tokens or params that are not above 0, for so many tokens that the
    loss no longer changes, and posteriors in unlike units.
    """
    check_share(ci)
    d = positive_values("tokens", tokens)
    other = post if bilingual is None else bilingual
    if params is None:
        params = float(np.exp(np.mean(np.log(post.runs["params"]))))
    N = float(positive_values("params", params)[0])
    if source is not None:
        sources_of(other.law)
    c_1, c_2 = _paired(post, other)
    wanted = _losses(post.law, c_1, N, source, bilingual=False)
    needed = _losses(other.law, c_2, N, source, bilingual=True)
    draws = len(next(iter(c_1.values())))
    for value in d:
        now, later = (wanted(np.full(draws, times * value)) for times in (1.0, 2.0))
        if (abs(now - later) < LEAST_GAIN).mean() > 0.05:
            raise M3BayesError(
                f"tokens is {value:g}: with so many the loss no longer changes; give fewer, the runs have up to "
                f"{post.runs.target_tokens_seen.max():.4g}"
            )
    sigma = np.stack([_first_reached(needed, wanted(np.full(draws, value)), value) for value in d], axis=1)
    scores = 2 - sigma / d
    table = pd.DataFrame(
        {
            "tokens": d,
            **banded("score", scores, ci),
            **banded("bilingual_tokens", sigma, ci),
            "never": np.isinf(sigma).mean(axis=0),
        }
    )
    notes = (*_never(table), *_fixed(post, scores), *_outside(post, other, N, source, table))
    return TransferScore(table, scores, N, ci, notes)


def pair_scores(
    posts: Mapping[Pair, Posterior], tokens: Numbers, *, params: Number | None = None, ci: Number = 0.9
) -> PairScores:
    """Scores of every (source, target), and the asymmetry of pairs that were measured in both directions.

    Other arguments as in :func:`transfer_score`. The note ONE_DIRECTION names the pairs without the other one.
    """
    found = {pair: transfer_score(post, tokens, params=params, ci=ci) for pair, post in posts.items()}
    parts, notes = [], []
    for (source, target), score in found.items():
        part = score.table.assign(params=score.params)
        part.insert(0, "target", target)
        part.insert(0, "source", source)
        back = found.get((target, source))
        if back is None:
            difference = np.full((1, len(part)), np.nan)
        else:
            size = min(len(score.scores), len(back.scores))
            # where neither direction gets there, there is nothing to compare
            with np.errstate(invalid="ignore"):
                difference = evenly(score.scores, size) - evenly(back.scores, size)
        parts.append(part.assign(**banded("asymmetry", difference, ci)))
        named = (Note(n.code, f"{source} to {target}: {n.message}", n.about) for n in score.notes)
        notes.extend(named)
    if alone := [f"{s} to {t}" for s, t in found if (t, s) not in found]:
        message = f"{', '.join(alone)}: the other direction was not measured, so nothing is said of asymmetry"
        notes.append(Note("ONE_DIRECTION", message, ("source", "language")))
    return PairScores(pd.concat(parts, ignore_index=True), ci, unique_notes(notes))


def fit_pairs(runs: Runs, law: Law | None = None, **options) -> dict[Pair, Posterior]:
    """A posterior for each (source, target) of the columns ``source`` and ``language``, in the order of the runs.

    ``options`` go to :func:`m3bayes.fit`, the law's default with it. Raises as that does, RunTableError where a
    column is missing.
    """
    pairs = list(zip(map(str, runs["source"]), map(str, runs["language"]), strict=True))
    rows = {pair: np.array([other == pair for other in pairs]) for pair in dict.fromkeys(pairs)}
    return {pair: fit(runs.select(mask), law, **options) for pair, mask in rows.items()}


# --- the search -----------------------------------------------------------------------------------------

Losses = Callable[[Float[np.ndarray, " draw"]], Float[np.ndarray, " draw"]]


@partial(jax.jit, static_argnames="law")
def _log_losses(law: Law, c, x):
    return jax.vmap(law.log_loss)(c, x)


def _losses(
    law: Law, c: Mapping[str, np.ndarray], N: float, source: str | None, *, bilingual: bool
) -> Losses:
    """(draw,) log loss after so many tokens of all text, a number of them for each draw."""
    _check_columns(law, source)

    def log_losses(tokens: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            return np.asarray(
                _log_losses(law, dict(c), _recipes(law, N, source, tokens, bilingual=bilingual))
            )

    return log_losses


def _check_columns(law: Law, source: str | None) -> None:
    """LawError where the law reads columns that a score knows nothing of, or has sources and not this one."""
    sources = sources_of(law) if law.options.get("sources") else ()
    if sources and source not in sources:
        raise LawError(
            f"law {law.name} has sources {', '.join(sources)} and source is {source!r}; give one of them as source"
        )
    known = (*RECIPE_COLUMNS, *OTHERS, *(f(s) for s in sources for f in (tokens_of, unique_tokens_of)))
    if strange := [name for name in law.columns if name not in known]:
        raise LawError(
            f"law {law.name} reads column {strange[0]}, of which a transfer score knows nothing; expected a law of "
            f"{', '.join((*RECIPE_COLUMNS, *OTHERS))}"
        )


def _recipes(
    law: Law, N: float, source: str | None, tokens: np.ndarray, *, bilingual: bool
) -> dict[str, np.ndarray]:
    """Columns, the law's among them, of models of N that read so many tokens of all text, none of it twice."""
    r = 0.5 if bilingual else 1.0
    values = {"params": N, "epochs": 1.0, "target_ratio": r, "final_ratio": r, "target_tokens": r * tokens}
    values |= {name: both[bilingual] for name, both in OTHERS.items()}
    if source is not None:
        values |= dict.fromkeys((tokens_of(source), unique_tokens_of(source)), (1 - r) * tokens)
    names = dict.fromkeys((*RECIPE_COLUMNS, "first_ratio", *law.columns))
    # other sources are not read
    return {name: np.broadcast_to(np.asarray(values.get(name, 0.0), float), tokens.shape) for name in names}


def _first_reached(
    losses: Losses, wanted: Float[np.ndarray, " draw"], d: float
) -> Float[np.ndarray, " draw"]:
    """The fewest tokens with which the losses come to what is wanted; inf where they do not."""
    grid = np.linspace(np.log(d / SPAN), np.log(d * SPAN), STEPS + 1)
    high, reached = np.full(len(wanted), grid[0]), np.zeros(len(wanted), bool)
    for u in grid:
        high = np.where(reached, high, u)
        reached |= losses(np.full(len(wanted), np.exp(u))) <= wanted
    low = np.maximum(high - (grid[1] - grid[0]), grid[0])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        there = losses(np.exp(middle)) <= wanted
        low, high = np.where(there, low, middle), np.where(there, middle, high)
    return np.where(reached, np.exp(high), np.inf)


def _paired(one: Posterior, other: Posterior) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """As many draws of both; of one posterior, its own."""
    if one is other:
        return one.coefficients, one.coefficients
    units = [(post.runs.unit_params, post.runs.unit_tokens) for post in (one, other)]
    if units[0] != units[1]:
        raise M3BayesError(
            f"the posteriors are in unlike units of params and tokens, {units[0]} and {units[1]}; expected the same"
        )
    fewest = min(len(next(iter(post.coefficients.values()))) for post in (one, other))
    return thinned(one, fewest).coefficients, thinned(other, fewest).coefficients


def _never(table: pd.DataFrame) -> list[Note]:
    worst = table.loc[table["never"].idxmax()]
    if not worst["never"]:
        return []
    message = (
        f"at {worst['tokens']:.4g} tokens {worst['never']:.2g} of the draws have a bilingual model that does not come "
        f"to the monolingual loss with {SPAN:.0e} times as many; their score is -inf"
    )
    return [Note("NEVER_REACHED", message, ("target_tokens",))]


def _fixed(post: Posterior, scores: np.ndarray) -> list[Note]:
    if len(scores) == 1 or np.isinf(scores).any() or np.ptp(scores, axis=0).max() > 1e-9:
        return []
    score = round(float(scores[0, 0]), 6) + 0.0
    message = (
        f"every draw has score {score:g}: law {post.law.name} fixes what source text is worth, and the runs say "
        "nothing of it"
    )
    return [Note("SCORE_FIXED", message, ("target_ratio",))]


def _outside(
    one: Posterior, other: Posterior, N: float, source: str | None, table: pd.DataFrame
) -> list[Note]:
    """How far both models lie from the runs, the bilingual one at its median tokens where those are finite."""
    notes = []
    sigma = table["bilingual_tokens"].to_numpy()
    cases = ((one, False, table["tokens"].to_numpy()), (other, True, sigma[np.isfinite(sigma)]))
    for post, bilingual, tokens in cases:
        if not len(tokens):
            continue
        recipes = _recipes(post.law, N, source, tokens, bilingual=bilingual)
        found = outside.extrapolation(post.runs, recipes, post.law.columns)
        kind = "bilingual" if bilingual else "monolingual"
        notes += [Note(n.code, f"{kind}: {n.message}", n.about) for n in outside.notes(found)]
    return notes
