"""recommend(posterior, compute, target_tokens) -> Recommendation: what to train, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from jax.typing import ArrayLike

from m3bayes.decision.baselines import Baseline, baselines
from m3bayes.decision.cost import Cost, as_cost, six_nd
from m3bayes.decision.faces import REGIMES, Regime, faces
from m3bayes.decision.near_optimal import NearOptimal, near_optimal
from m3bayes.decision.optimize import Surface, best, optima_by_regime
from m3bayes.decision.recommendation import (
    Loss,
    Optimum,
    Recommendation,
    flagged,
    recipe_row,
    simulated,
)
from m3bayes.decision.regret import (
    Interval,
    best_regime,
    interval,
    optimum_columns,
    regime_table,
)
from m3bayes.decision.risk import Risk, as_risk
from m3bayes.decision.space import RECIPE, Space, space
from m3bayes.errors import Note, RecipeError, unique_notes
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import loss_draws, predict
from m3bayes.recipe import Recipe, schedule

Number = float | int
# risks that agree to this share are a tie, which the simpler regime wins
TIE = 1e-9


def recommend(
    post: Posterior,
    *,
    compute: Number,
    target_tokens: Number,
    risk: Risk | Callable[[Array], Array] | None = None,
    cost: Cost | Callable[[ArrayLike, ArrayLike], ArrayLike] | None = None,
    bounds: Mapping[str, Sequence[Number | None]] | None = None,
    freeze: Mapping[str, Number] | None = None,
    baselines: Mapping[str, Recipe] | None = None,
    tolerance: Number = 0.005,
    margin: Number = 0.005,
    ci: float = 0.9,
    seed: int = 0,
) -> Recommendation:
    """The recipe of the smallest risk over the draws that spends at most ``compute``, over N, k, r and r_f.

    ``compute``        FLOP
    ``target_tokens``  U = D_T, in the table's unit of tokens
    ``risk``           of :mod:`m3bayes.decision.risk`, default the expected loss; or a function of losses (draw,)
    ``cost``           default 6 N D; or a function of plain (params, tokens) giving FLOP, written for jax and
                       increasing in both
    ``bounds``         {variable: (low, high)}, in the table's units, of params, epochs, target_ratio,
                       final_ratio, tokens, source_tokens, last_stage_share (or N, k, r, r_f, D, S, share).
                       None as an end keeps the range of the runs, the default of all; 0 and inf lift a bound
    ``freeze``         {variable: value} of the same; of ``first_ratio``, the target ratio before the last of
                       two stages (0 where not given); and of further columns that the law reads
    ``baselines``      {name: Recipe} to compare with, besides the three standing ones
    ``tolerance``      loss above the optimum that still is near-optimal, in the table's unit
    ``margin``         loss that a regime must save against the simpler ones to count in ``probability_gain``
    ``seed``           of the candidates for the near-optimal set; nothing else is random

    The three regimes are optimised face by face (:mod:`m3bayes.decision.faces`), for every draw by itself and
    for all together. The result is no worse in risk than any feasible baseline. Notes: POSTERIOR_FLAGGED,
    BOUNDS_WIDENED, EXTRAPOLATION, BEYOND_30X, REGIME_EXCLUDED, BASELINE_CLIPPED, BASELINE_BEST, AT_BOUND,
    COMPUTE_UNUSED, NEAR_OPTIMAL_EMPTY, and those of :func:`m3bayes.predict`.

    Raises InfeasibleError naming the constraints that exclude each other, RecipeError for what cannot be
    asked, LawError where the law has no finite loss.
    """
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
        )
        return _recommend(post, asked, as_risk(risk), baselines or {}, tolerance, margin, ci, seed)


def _recommend(
    post: Posterior,
    space: Space,
    risk: Risk,
    given: Mapping[str, Recipe],
    tolerance: Number,
    margin: Number,
    ci: float,
    seed: int,
) -> Recommendation:
    surface = Surface(post.law, space.cost)
    c, extra = post.coefficients, space.further_columns(post.law)
    parts, excluded = faces(space)
    found = optima_by_regime(surface, c, extra, parts)
    least = np.min([optimum.loss for optimum in found.values()], axis=0)
    recipes: dict[Regime, Recipe] = {}
    for regime, optimum in found.items():
        starts = [np.median(points, axis=0) for points in optimum.points]
        columns = best(surface, risk, c, extra, regime, parts[regime], starts, least).columns
        recipes[regime] = space.recipe(**{name: columns[name] for name in RECIPE})
    compared, clipped = baselines(space, surface, c, extra, given)
    losses = _losses(post, [*recipes.values(), *(b.recipe for b in compared)])
    of_regime = dict(zip(recipes, losses[: len(recipes)], strict=True))
    of_baseline = losses[len(recipes) :]

    chosen, loss, better = _choose(risk, least, recipes, of_regime, compared, of_baseline)
    # the recommended recipe may be a baseline that the faces do not hold
    least = np.minimum(least, loss)
    regime = best_regime(found)
    near = near_optimal(post, space, parts, found, least, chosen, loss, tolerance, seed)
    used = min(float(space.cost.flops(chosen.params, chosen.tokens)), space.compute)
    prediction = predict(post, chosen, ci=ci)
    assert prediction.new_run_lower is not None and prediction.new_run_upper is not None
    notes = [
        *flagged(post),
        *space.notes,
        *(Note("REGIME_EXCLUDED", f"{name}: {why}", (name,)) for name, why in excluded.items()),
        *clipped,
        *better,
        *_at_bounds(space, chosen),
        *_unused(space, used),
        *_empty(near),
        *prediction.notes,
    ]
    return Recommendation(
        recipe=chosen,
        schedule=schedule(chosen),
        regime=_regime(chosen),
        loss=Loss(
            *(
                float(values[0])
                for values in (
                    prediction.loss_mean,
                    prediction.loss_sd,
                    prediction.loss_lower,
                    prediction.loss_upper,
                    prediction.new_run_lower,
                    prediction.new_run_upper,
                )
            )
        ),
        optimum=_optimum(optimum_columns(found, regime), regime, ci),
        regret=interval(loss - least, ci),
        regimes=_regime_rows(regime_table(found, excluded, float(margin), ci), recipes, of_regime, ci),
        near_optimal=near,
        baselines=_baseline_rows(space, compared, of_baseline, loss, ci),
        bounds=space.bounds,
        compute=space.compute,
        target_tokens=space.target_tokens,
        compute_used=used,
        compute_unused=space.compute - used,
        risk=risk.name,
        cost=space.cost.name,
        margin=float(margin),
        ci=ci,
        simulated=simulated(post.runs),
        notes=unique_notes(notes),
    )


def _losses(post: Posterior, recipes: Sequence[Recipe]) -> list[np.ndarray]:
    """Losses (draw,) of each recipe."""
    return list(loss_draws(post, list(recipes)).T)


def _choose(
    risk: Risk,
    least: np.ndarray,
    recipes: Mapping[Regime, Recipe],
    of_regime: Mapping[Regime, np.ndarray],
    compared: Sequence[Baseline],
    of_baseline: Sequence[np.ndarray],
) -> tuple[Recipe, np.ndarray, list[Note]]:
    """The recipe of the smallest risk, of the simplest regime among equals; a note if a baseline wins."""
    base = least if risk.of_regret else np.zeros_like(least)
    risks = {regime: float(risk(jnp.asarray(loss - base))) for regime, loss in of_regime.items()}
    smallest = min(risks.values())
    simplest: Regime = next(
        regime for regime in REGIMES if risks.get(regime, math.inf) <= smallest + TIE * abs(smallest)
    )
    chosen, loss, smallest, notes = recipes[simplest], of_regime[simplest], risks[simplest], []
    for baseline, its_loss in zip(compared, of_baseline, strict=True):
        its_risk = float(risk(jnp.asarray(its_loss - base)))
        if baseline.feasible and its_risk < smallest - 1e-12 * abs(smallest):
            chosen, loss, smallest = baseline.recipe, its_loss, its_risk
            said = f"baseline {baseline.name} is better than every recipe of the three regimes"
            notes = [Note("BASELINE_BEST", f"{said}: it has stages of another kind", (baseline.name,))]
    return chosen, loss, notes


def _regime(recipe: Recipe) -> str:
    if recipe.first_ratio is not None:
        return "two-stage"
    return "monolingual" if recipe.target_ratio == 1 else "single-stage"


def _optimum(columns: Mapping[str, np.ndarray], regime: np.ndarray, ci: float) -> Optimum:
    rows = {name: _numbers(interval(values, ci)) for name, values in columns.items()}
    return Optimum(columns, regime, pd.DataFrame.from_dict(rows, orient="index").rename_axis("variable"))


def _regime_rows(
    table: pd.DataFrame, recipes: Mapping[Regime, Recipe], losses: Mapping[Regime, np.ndarray], ci: float
) -> pd.DataFrame:
    rows = {
        regime: {**recipe_row(recipe), **_loss_row(losses[regime], "loss", ci)}
        for regime, recipe in recipes.items()
    }
    return table.join(pd.DataFrame.from_dict(rows, orient="index"))


def _baseline_rows(
    space: Space, compared: Sequence[Baseline], losses: Sequence[np.ndarray], loss: np.ndarray, ci: float
) -> pd.DataFrame:
    rows = {
        baseline.name: {
            "feasible": baseline.feasible,
            "why_not": baseline.why_not or "",
            **recipe_row(baseline.recipe),
            "compute": float(space.cost.flops(baseline.recipe.params, baseline.recipe.tokens)),
            **_loss_row(its_loss, "loss", ci),
            **_loss_row(its_loss - loss, "excess", ci),
        }
        for baseline, its_loss in zip(compared, losses, strict=True)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("baseline")


def _loss_row(losses: np.ndarray, name: str, ci: float) -> dict[str, float]:
    found = interval(losses, ci)
    return {f"{name}_{part}": getattr(found, part) for part in ("mean", "lower", "upper")}


def _numbers(found: Interval) -> dict[str, float]:
    return {part: getattr(found, part) for part in ("mean", "median", "lower", "upper")}


def _at_bounds(space: Space, recipe: Recipe) -> list[Note]:
    """Bounds that the recipe has run into; those that no recipe could pass are left out."""
    notes = []
    for name, bound in space.bounds.items():
        value = getattr(recipe, name)
        if bound.low == bound.high or (name == "last_stage_share" and recipe.first_ratio is None):
            continue
        natural = 1.0 if name in ("target_ratio", "final_ratio", "last_stage_share") else math.inf
        for end, text, passable in (
            (bound.low, bound.low_text, bound.low > 0),
            (bound.high, bound.high_text, bound.high < natural),
        ):
            if passable and math.isclose(value, end, rel_tol=1e-6):
                notes.append(Note("AT_BOUND", f"the recipe runs into {text}", (name,)))
    return notes


def _unused(space: Space, used: float) -> list[Note]:
    share = 1 - used / space.compute
    if share <= 1e-6:
        return []
    why = "spending more would need a wider bound, or would overfit"
    return [Note("COMPUTE_UNUSED", f"{share:.3g} of the compute is left unused: {why}", ("compute",))]


def _empty(near: NearOptimal) -> list[Note]:
    if near.size:
        return []
    said = (
        f"no recipe is within {near.tolerance:g} of the optimum with probability {near.probability:g}: "
        "the draws disagree about what is best"
    )
    return [Note("NEAR_OPTIMAL_EMPTY", said)]
