"""recommend(posterior, compute, target_tokens) -> Recommendation: what to train, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
import pandas as pd
from jax import Array
from jax.typing import ArrayLike

from m3bayes.decision.architectures import Architectures, Grain, buildable, grain
from m3bayes.decision.baselines import Baseline, baselines
from m3bayes.decision.choice import Choice, choices, search, simplest
from m3bayes.decision.constraints import Constraint
from m3bayes.decision.cost import Cost, as_cost, six_nd
from m3bayes.decision.faces import Regime
from m3bayes.decision.near_optimal import NearOptimal, near_optimal
from m3bayes.decision.optimize import Surface, optima_by_regime
from m3bayes.decision.recommendation import (
    Optimum,
    Recommendation,
    Snapped,
    flagged,
    loss_of,
    miscounted,
    numbers,
    recipe_row,
    simulated,
)
from m3bayes.decision.regret import (
    best_regime,
    interval,
    optimum_columns,
    regime_table,
)
from m3bayes.decision.residuals import at_bounds, residuals, unused
from m3bayes.decision.risk import Risk, as_risk
from m3bayes.decision.several_budgets import faces_within
from m3bayes.decision.space import Space, check_numbers, space
from m3bayes.errors import Note, RecipeError, unique_notes
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import predict
from m3bayes.recipe import Recipe, schedule

Number = float | int


def recommend(
    post: Posterior,
    *,
    compute: Number,
    target_tokens: Number,
    risk: Risk | Callable[[Array], Array] | None = None,
    cost: Cost | Callable[[ArrayLike, ArrayLike], ArrayLike] | None = None,
    bounds: Mapping[str, Sequence[Number | None]] | None = None,
    freeze: Mapping[str, Number] | None = None,
    constraints: Sequence[Constraint] = (),
    architectures: Architectures | None = None,
    multiples: Mapping[str, Number] | None = None,
    baselines: Mapping[str, Recipe] | None = None,
    tolerance: Number = 0.005,
    margin: Number = 0.005,
    ci: float = 0.9,
    seed: int = 0,
) -> Recommendation:
    """The recipe of the smallest risk over the draws that spends at most ``compute``, over N, k, r and r_f.

    ``compute``        FLOP, or the unit of ``cost``
    ``target_tokens``  U = D_T, in the table's unit of tokens
    ``risk``           of :mod:`m3bayes.decision.risk`, default the expected loss; or a function of losses (draw,)
    ``cost``           of :mod:`m3bayes.decision.cost`, default 6 N D; or a function of plain (params, tokens)
                       giving FLOP, written for jax and increasing in both
    ``bounds``         {variable: (low, high)}, in the table's units, of params, epochs, target_ratio,
                       final_ratio, tokens, source_tokens, last_stage_share (or N, k, r, r_f, D, S, share).
                       None as an end keeps the range of the runs, the default of all; 0 and inf lift a bound
    ``freeze``         {variable: value} of the same; of ``first_ratio``, the target ratio before the last of
                       two stages (0 where not given); and of further columns that the law reads
    ``constraints``    of :mod:`m3bayes.decision.constraints`: limits that only narrow the bounds, and further budgets
    ``architectures``  the only N that can be built, [N, ...] or {name: N} in the table's unit. Each within the
                       bounds is tried, with all else searched again for it
    ``multiples``      {epochs or tokens (k, D): step}: the recipe has whole multiples of the step, the better of the
                       two beside the best value, with all else searched again
    ``baselines``      {name: Recipe} to compare with, besides the three standing ones
    ``tolerance``      loss above the optimum that still is near-optimal, in the table's unit
    ``margin``         loss that a regime must save against the simpler ones to count in ``probability_gain``
    ``seed``           of the candidates for the near-optimal set; nothing else is random

    The three regimes are optimised face by face (:mod:`m3bayes.decision.faces`), for every draw by itself and
    for all together. The result is no worse in risk than any feasible baseline. What ``architectures`` and
    ``multiples`` cost is in ``snapped``; optima, regimes and the near-optimal set are those without them. Notes:
    POSTERIOR_FLAGGED, FLOPS_DIFFER, BOUNDS_WIDENED, EXTRAPOLATION, BEYOND_30X, REGIME_EXCLUDED, BASELINE_CLIPPED,
    BASELINE_BEST, SNAPPED, AT_BOUND, COMPUTE_UNUSED, NEAR_OPTIMAL_EMPTY, and those of :func:`m3bayes.predict`.

    Raises InfeasibleError naming the constraints that exclude each other, RecipeError for what cannot be
    asked, LawError where the law has no finite loss.
    """
    check_numbers(ci=ci, tolerance=tolerance, margin=margin)
    if not 0 < ci < 1:
        raise RecipeError(f"ci is {ci}; expected a probability between 0 and 1")
    if not (0 < tolerance < math.inf and 0 <= margin < math.inf):
        raise RecipeError(f"tolerance is {tolerance} and margin {margin}; expected positive losses")
    with jax.enable_x64(True):
        asked = space(
            post.runs,
            post.law,
            compute=compute,
            target_tokens=target_tokens,
            cost=as_cost(six_nd() if cost is None else cost),
            bounds=bounds or {},
            freeze=freeze or {},
            constraints=constraints,
        )
        steps = grain(architectures, multiples)
        return _recommend(post, asked, as_risk(risk), steps, baselines or {}, tolerance, margin, ci, seed)


def _recommend(
    post: Posterior,
    space: Space,
    risk: Risk,
    grain: Grain,
    given: Mapping[str, Recipe],
    tolerance: Number,
    margin: Number,
    ci: float,
    seed: int,
) -> Recommendation:
    surface = Surface(post.law, space.cost)
    c, extra = post.coefficients, space.further_columns(post.law)
    parts, excluded = faces_within(space)
    found = optima_by_regime(surface, c, extra, parts)
    least = np.min([optimum.loss for optimum in found.values()], axis=0)
    of_regime = search(post, space, parts, risk, least, found)
    free = simplest(of_regime.values())
    chosen, held, tried = free, space, None
    if grain:
        chosen, held, tried = buildable(post, space, risk, least, free, grain)
    compared, clipped = baselines(space.grained(grain.sizes.values(), grain.steps), surface, c, extra, given)
    of_baseline = choices(post, risk, [baseline.recipe for baseline in compared], least)
    chosen, better = _or_baseline(chosen, compared, of_baseline)
    recipe, loss = chosen.recipe, chosen.loss
    # the recommended recipe may be a baseline that the faces do not hold
    least = np.minimum(least, loss)
    regime = best_regime(found)
    near = near_optimal(post, space, parts, found, least, recipe, loss, tolerance, seed)
    used = min(space.budgets[0].spent(recipe), space.compute)
    prediction = predict(post, recipe, ci=ci)
    constraints = residuals(space if better else held, recipe)
    snapped = None if tried is None else _snapped(free, chosen, tried, ci)
    notes = [
        *flagged(post),
        *miscounted(post, space.budgets[0].cost),
        *space.notes,
        *(Note("REGIME_EXCLUDED", f"{name}: {why}", (name,)) for name, why in excluded.items()),
        *clipped,
        *better,
        *_snapped_to(snapped, recipe),
        *at_bounds(constraints, space),
        *unused(constraints, space),
        *_empty(near),
        *prediction.notes,
    ]
    return Recommendation(
        recipe=recipe,
        schedule=schedule(recipe),
        regime=_regime(recipe),
        loss=loss_of(prediction),
        optimum=_optimum(optimum_columns(found, regime), regime, ci),
        regret=interval(loss - least, ci),
        regimes=_regime_rows(regime_table(found, excluded, float(margin), ci), of_regime, ci),
        near_optimal=near,
        baselines=_baseline_rows(space, compared, of_baseline, loss, ci),
        snapped=snapped,
        constraints=constraints,
        bounds=space.bounds,
        compute=space.compute,
        target_tokens=space.target_tokens,
        compute_used=used,
        compute_unused=space.compute - used,
        risk=risk.name,
        cost=space.budgets[0].cost.name,
        unit=space.budgets[0].cost.unit,
        margin=float(margin),
        ci=ci,
        simulated=simulated(post.runs),
        notes=unique_notes(notes),
    )


def _or_baseline(
    chosen: Choice, compared: Sequence[Baseline], of_baseline: Sequence[Choice]
) -> tuple[Choice, list[Note]]:
    """The choice, or the feasible baseline that is better still, with a note."""
    notes = []
    for baseline, its in zip(compared, of_baseline, strict=True):
        if baseline.feasible and its.risk < chosen.risk - 1e-12 * abs(chosen.risk):
            chosen = its
            said = f"baseline {baseline.name} is better than every recipe of the three regimes"
            notes = [Note("BASELINE_BEST", f"{said}: it has stages of another kind", (baseline.name,))]
    return chosen, notes


def _snapped(free: Choice, chosen: Choice, tried: pd.DataFrame, ci: float) -> Snapped:
    """What the grain costs against the best recipe without it; nothing where the search with it found a better one."""
    if chosen.risk <= free.risk:
        free = chosen
    return Snapped(free.recipe, interval(chosen.loss - free.loss, ci), chosen.risk - free.risk, tried)


def _snapped_to(snapped: Snapped | None, recipe: Recipe) -> list[Note]:
    if snapped is None:
        return []
    held = list(dict.fromkeys(snapped.tried["variable"]))
    moved = ", ".join(f"{n} from {getattr(snapped.free, n):.4g} to {getattr(recipe, n):.4g}" for n in held)
    above = f"mean loss {snapped.excess.mean:.3g} above that of the best recipe of any size and number"
    return [Note("SNAPPED", f"snapped {moved}: {above}", tuple(held))]


def _regime(recipe: Recipe) -> str:
    if recipe.first_ratio is not None:
        return "two-stage"
    return "monolingual" if recipe.target_ratio == 1 else "single-stage"


def _optimum(columns: Mapping[str, np.ndarray], regime: np.ndarray, ci: float) -> Optimum:
    rows = {name: numbers(interval(values, ci)) for name, values in columns.items()}
    return Optimum(columns, regime, pd.DataFrame.from_dict(rows, orient="index").rename_axis("variable"))


def _regime_rows(table: pd.DataFrame, of_regime: Mapping[Regime, Choice], ci: float) -> pd.DataFrame:
    rows = {
        regime: {**recipe_row(choice.recipe), **_loss_row(choice.loss, "loss", ci)}
        for regime, choice in of_regime.items()
    }
    return table.join(pd.DataFrame.from_dict(rows, orient="index"))


def _baseline_rows(
    space: Space, compared: Sequence[Baseline], of_baseline: Sequence[Choice], loss: np.ndarray, ci: float
) -> pd.DataFrame:
    rows = {
        baseline.name: {
            "feasible": baseline.feasible,
            "why_not": baseline.why_not or "",
            **recipe_row(baseline.recipe),
            "compute": space.budgets[0].spent(baseline.recipe),
            **_loss_row(its.loss, "loss", ci),
            **_loss_row(its.loss - loss, "excess", ci),
        }
        for baseline, its in zip(compared, of_baseline, strict=True)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("baseline")


def _loss_row(losses: np.ndarray, name: str, ci: float) -> dict[str, float]:
    found = interval(losses, ci)
    return {f"{name}_{part}": getattr(found, part) for part in ("mean", "lower", "upper")}


def _empty(near: NearOptimal) -> list[Note]:
    if near.size:
        return []
    said = (
        f"no recipe is within {near.tolerance:g} of the optimum with probability {near.probability:g}: "
        "the draws disagree about what is best"
    )
    return [Note("NEAR_OPTIMAL_EMPTY", said)]
