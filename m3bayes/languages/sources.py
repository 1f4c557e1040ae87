"""recommend_sources(posterior, ...): which source languages to add, and how much of each.

For a posterior of :func:`m3bayes.laws.atlas` with named sources. The recipe has one stage: that law does not tell
stages apart. Source text is not repeated unless asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
import pandas as pd
from jax import Array
from jax.typing import ArrayLike

from m3bayes.decision.choice import Choice
from m3bayes.decision.constraints import Constraint
from m3bayes.decision.cost import Cost, as_cost, six_nd
from m3bayes.decision.recommendation import Loss, flagged, loss_of, numbers, plain, recipe_row, simulated
from m3bayes.decision.regret import Interval, interval
from m3bayes.decision.residuals import at_bounds, residuals, unused
from m3bayes.decision.risk import Risk, as_risk
from m3bayes.decision.space import check_numbers, space
from m3bayes.errors import InfeasibleError, Note, RecipeError, unique_notes
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import predict
from m3bayes.languages.draws import Number
from m3bayes.languages.mixing import best_mix, mixture
from m3bayes.laws.atlas import sources_of, tokens_of, unique_tokens_of
from m3bayes.recipe import Recipe

NOBODY = "none"
# where less than this share of what there is of a source is left over, all of it is used
USED_UP = 1e-6


@dataclass(frozen=True, eq=False)
class SourceRecommendation:
    """A recipe and a mix of sources for a budget. N and tokens are in the table's units.

    ``recipe``    its ``extra`` has ``<s>_tokens`` of every source, and ``<s>_unique_tokens``, those of them that differ
    ``mix``       {source: its share of the source tokens}, all 0 where there are none
    ``loss``      of the recipe
    ``sources``   table by source: ``tokens``, ``share``, ``epochs``, ``most`` (tokens there may be) and ``most_from``
                  (whose limit that is), ``used_up``, and ``tau`` with ``_lower`` and ``_upper``
    ``alone``     table by source, and "none": the best recipe with no other source, its loss and ``risk``, the ``gain``
                  of the mix over it with ``_lower`` and ``_upper``, and ``probability_better``, the share of draws in
                  which it has the lower loss; ``why_not`` where there is no such recipe
    ``gain``      what the mix saves against the best single source, ``best_alone``; None where none is feasible alone
    ``constraints``  bounds and budgets, as in :class:`m3bayes.decision.Recommendation`
    """

    recipe: Recipe
    mix: Mapping[str, float]
    loss: Loss
    sources: pd.DataFrame
    alone: pd.DataFrame
    best_alone: str | None
    gain: Interval | None
    constraints: pd.DataFrame
    compute: float
    compute_used: float
    unit: str
    risk: str
    ci: Number
    simulated: bool
    notes: tuple[Note, ...]

    def to_json(self) -> dict:
        """Numbers and texts alone, None for what is not a finite number; without the draws."""
        return plain(
            {
                "simulated_runs": self.simulated,
                "recipe": recipe_row(self.recipe),
                "mix": self.mix,
                "loss": vars(self.loss),
                "sources": self.sources.to_dict(orient="index"),
                "alone": self.alone.to_dict(orient="index"),
                "best_alone": self.best_alone,
                "gain": None if self.gain is None else numbers(self.gain),
                "constraints": self.constraints.to_dict(orient="index"),
                "compute": self.compute,
                "compute_used": self.compute_used,
                "unit": self.unit,
                "risk": self.risk,
                "ci": self.ci,
                "notes": [vars(note) for note in self.notes],
            }
        )


def recommend_sources(
    post: Posterior,
    *,
    compute: Number,
    target_tokens: Number,
    unique_tokens: Mapping[str, Number],
    source_epochs: Number = 1.0,
    risk: Risk | Callable[[Array], Array] | None = None,
    cost: Cost | Callable[[ArrayLike, ArrayLike], ArrayLike] | None = None,
    bounds: Mapping[str, Sequence[Number | None]] | None = None,
    freeze: Mapping[str, Number] | None = None,
    constraints: Sequence[Constraint] = (),
    ci: Number = 0.9,
) -> SourceRecommendation:
    """The recipe and the mix of sources of the smallest risk over the draws that spend at most ``compute``.

    ``post``           of law ``atlas`` with named sources
    ``compute``        FLOP, or the unit of ``cost``
    ``target_tokens``  U, in the table's unit of tokens
    ``unique_tokens``  {source: tokens there are of it}, of every source of the law, 0 for one that is out of question
    ``source_epochs``  how often source text may be seen: a source has at most so many times its unique tokens
    ``risk``           as for :func:`m3bayes.recommend`, not one of regrets
    ``bounds``         as there, and (0, high) of ``<s>_tokens``, by default up to the most of any run
    ``cost``, ``freeze``, ``constraints``  as there

    No worse in risk than the best recipe with any one source, or with none. Notes: POSTERIOR_FLAGGED, BOUNDS_WIDENED,
    EXTRAPOLATION, BEYOND_30X, AT_BOUND, USED_UP, COMPUTE_UNUSED, those of :func:`m3bayes.predict`, and what the fit
    says of the worths tau. Raises LawError for another law, RecipeError for what cannot be asked, InfeasibleError
    naming the constraints that exclude each other.
    """
    if not isinstance(unique_tokens, Mapping):
        raise RecipeError(f"unique_tokens is {unique_tokens!r}; expected {{source: tokens there are of it}}")
    check_numbers(
        ci=ci, source_epochs=source_epochs, **{f"unique_tokens {s}": n for s, n in unique_tokens.items()}
    )
    if not 0 < ci < 1:
        raise RecipeError(f"ci is {ci}; expected a probability between 0 and 1")
    if not 0 < source_epochs < math.inf:
        raise RecipeError(f"source_epochs is {source_epochs}; expected a number above 0, as 1")
    chosen_by = as_risk(risk)
    if chosen_by.of_regret:
        raise RecipeError(
            f"risk {chosen_by.name} counts from the best mix of each draw, which is not searched; expected one of "
            "losses, as mean, quantile or cvar"
        )
    sources = sources_of(post.law)
    unique = _unique(sources, unique_tokens)
    bounds, freeze = dict(bounds or {}), dict(freeze or {})
    columns = {f(s) for s in sources for f in (tokens_of, unique_tokens_of)}
    if taken := sorted(columns & freeze.keys()):
        raise RecipeError(f"{taken[0]} cannot be frozen: the tokens of each source are what is searched for")
    of_sources = {s: bounds.pop(tokens_of(s)) for s in sources if tokens_of(s) in bounds}
    most, most_from, widened = _most(post, unique, float(source_epochs), of_sources)
    with jax.enable_x64(True):
        asked = space(
            post.runs,
            post.law,
            compute=compute,
            target_tokens=target_tokens,
            cost=as_cost(six_nd() if cost is None else cost),
            bounds=bounds,
            freeze={**freeze, **dict.fromkeys(columns, 0.0)},
            constraints=constraints,
        )
        amounts = np.array([unique[s] for s in sources]), np.array([most[s] for s in sources])
        whole = mixture(asked, sources, *amounts)
        alone: dict[str, Choice | str] = {}
        for name in (*sources, NOBODY):
            kept = np.array([s == name for s in sources])
            try:
                alone[name] = best_mix(
                    post, mixture(asked, sources, amounts[0], amounts[1] * kept), chosen_by
                )
            except InfeasibleError as error:
                alone[name] = str(error)
        found = [best_mix(post, whole, chosen_by), *(c for c in alone.values() if isinstance(c, Choice))]
        best = min(found, key=lambda choice: choice.risk)
    single = {s: choice for s in sources if isinstance(choice := alone[s], Choice)}
    best_alone = min(single, key=lambda s: single[s].risk) if single else None
    prediction = predict(post, best.recipe, ci=ci)
    limits = residuals(whole.space, best.recipe)
    table = _source_rows(post, best.recipe, unique, most, most_from, ci)
    spent = min(asked.budgets[0].spent(best.recipe), asked.compute)
    return SourceRecommendation(
        recipe=best.recipe,
        mix=dict(zip(sources, table["share"].tolist(), strict=True)),
        loss=loss_of(prediction),
        sources=table,
        alone=_alone_rows(alone, best, ci),
        best_alone=best_alone,
        gain=None if best_alone is None else interval(single[best_alone].loss - best.loss, ci),
        constraints=limits,
        compute=asked.compute,
        compute_used=spent,
        unit=asked.budgets[0].cost.unit,
        risk=chosen_by.name,
        ci=ci,
        simulated=simulated(post.runs),
        notes=unique_notes(
            [
                *flagged(post),
                *asked.notes,
                *widened,
                *(note for note in post.notes if any(name.startswith("tau_") for name in note.about)),
                *at_bounds(limits, whole.space),
                *_used_up(table),
                *unused(limits, whole.space),
                *prediction.notes,
            ]
        ),
    )


def _unique(sources: Sequence[str], given: Mapping[str, Number]) -> dict[str, float]:
    """Unique tokens by source, in the order of the law."""
    for name, count in given.items():
        if name not in sources:
            raise RecipeError(
                f"unique_tokens has {name!r}, which is none of the law's sources {', '.join(sources)}"
            )
        if not 0 <= count < math.inf:
            raise RecipeError(f"unique_tokens of {name} is {count}; expected a finite number of 0 or more")
    if missing := [name for name in sources if name not in given]:
        raise RecipeError(
            f"unique_tokens lacks {missing[0]}; expected all of {', '.join(sources)}, 0 to leave one out"
        )
    return {name: float(given[name]) for name in sources}


def _most(
    post: Posterior, unique: Mapping[str, float], epochs: float, bounds: Mapping[str, Sequence[Number | None]]
) -> tuple[dict[str, float], dict[str, str], list[Note]]:
    """How many tokens of each source there may be, whose limit that is, and notes on bounds beyond the runs."""
    most, whose, notes = {}, {}, []
    for source, count in unique.items():
        column = tokens_of(source)
        runs = float(np.max(post.runs[column]))
        ends = tuple(bounds.get(source, (None, None)))
        if len(ends) != 2 or ends[0] not in (None, 0):
            raise RecipeError(
                f"bounds of {column} are {ends}; expected (0, high), with None for the most of any run"
            )
        high = runs if ends[1] is None else ends[1]
        check_numbers(**{f"bounds {column}": high})
        if not high >= 0:
            raise RecipeError(f"bounds of {column} end at {high}; expected a number of 0 or more")
        most[source] = min(count * epochs, float(high))
        whose[source] = (
            "unique_tokens" if count * epochs <= high else "runs" if ends[1] is None else "asked for"
        )
        if most[source] > runs * (1 + 1e-9):
            said = f"{column} up to {most[source]:.4g} goes beyond the runs: they had at most {runs:.4g}"
            notes.append(Note("BOUNDS_WIDENED", said, (column,)))
    return most, whose, notes


def _source_rows(
    post: Posterior,
    recipe: Recipe,
    unique: Mapping[str, float],
    most: Mapping[str, float],
    whose: Mapping[str, str],
    ci: Number,
) -> pd.DataFrame:
    S, rows = recipe.source_tokens, {}
    for source, U in unique.items():
        D = recipe.extra[tokens_of(source)]
        tau = post.coefficients.get(f"tau_{source}", np.zeros(1))  # a dropped one
        worth = interval(tau, ci)
        rows[source] = {
            "tokens": D,
            "share": D / S if S > 0 else 0.0,
            "epochs": D / U if U > 0 else 0.0,
            "most": most[source],
            "most_from": whose[source],
            "used_up": bool(0 < most[source] * (1 - USED_UP) <= D),
            "tau": worth.median,
            "tau_lower": worth.lower,
            "tau_upper": worth.upper,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("source")


def _alone_rows(alone: Mapping[str, Choice | str], best: Choice, ci: Number) -> pd.DataFrame:
    rows = {}
    for name, choice in alone.items():
        if isinstance(choice, str):
            rows[name] = {"why_not": choice}
            continue
        recipe, loss, gain = choice.recipe, interval(choice.loss, ci), interval(choice.loss - best.loss, ci)
        rows[name] = {
            "params": recipe.params,
            "epochs": recipe.epochs,
            "target_ratio": recipe.target_ratio,
            "source_tokens": recipe.source_tokens,
            **{f"loss_{part}": getattr(loss, part) for part in ("mean", "lower", "upper")},
            "risk": choice.risk,
            "gain": gain.mean,
            "gain_lower": gain.lower,
            "gain_upper": gain.upper,
            "probability_better": float(np.mean(choice.loss < best.loss)),
            "why_not": "",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("source")


def _used_up(table: pd.DataFrame) -> list[Note]:
    notes = []
    for source, row in table.to_dict(orient="index").items():
        if row["used_up"]:
            said = f"the recipe takes all {row['most']:.4g} tokens there are of {source} ({row['most_from']})"
            notes.append(Note("USED_UP", said, (str(source),)))
    return notes
