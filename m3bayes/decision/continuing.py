"""continue_from(posterior, checkpoint, compute, target_tokens) -> Continuation: how to go on with a given model.

N and the first stage are settled and paid for; what remains is one stage more, of D_2 tokens, a share r_f of them
target text. What may be is in :mod:`m3bayes.decision.stages`.

| symbol | meaning | unit |
|---|---|---|
| D_1, r_1 | tokens the checkpoint has seen, and their target ratio | table's, - |
| D_2, r_f | tokens of the new stage, and their target ratio | table's, - |
| N, U, k, r, D | as in :mod:`m3bayes.recipe`, of both stages together | |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from m3bayes.decision.choice import Choice, choices, simplest
from m3bayes.decision.constraints import Constraint
from m3bayes.decision.cost import Cost, as_cost, six_nd
from m3bayes.decision.recommendation import (
    UNITS,
    Loss,
    flagged,
    loss_of,
    miscounted,
    numbers,
    plain,
    recipe_row,
    simulated,
)
from m3bayes.decision.regret import Interval, interval
from m3bayes.decision.residuals import at_bounds, residuals, unused
from m3bayes.decision.risk import Risk, as_risk
from m3bayes.decision.space import Budget, Space, space
from m3bayes.decision.stages import Run, cells, least_risk, most_tokens, stage_optima
from m3bayes.errors import LawError, Note, RecipeError, unique_notes
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import predict
from m3bayes.recipe import Recipe, Schedule, Stage
from m3bayes.table_checks import same_ratio

Number = float | int
STOP, SAME, TARGET = "stop here", "same mixture", "target text alone"
DRAWN = ("stage_tokens", "epochs", "target_ratio", "final_ratio")


@dataclass(frozen=True)
class Checkpoint:
    """A model of ``params`` N that has seen ``tokens`` D_1 > 0, in the table's units, a share ``target_ratio`` r_1
    in [0, 1] of them target text. Of several stages, the average."""

    params: Number
    tokens: Number
    target_ratio: Number = 0.0

    def __post_init__(self) -> None:
        for name in ("params", "tokens"):
            if not 0 < getattr(self, name) < math.inf:
                raise RecipeError(f"checkpoint: {name} is {getattr(self, name)}; expected a number above 0")
        if not 0 <= self.target_ratio <= 1:
            raise RecipeError(
                f"checkpoint: target_ratio is {self.target_ratio}; expected a ratio from 0 to 1"
            )


@dataclass(frozen=True, eq=False)
class Continuation:
    """How to go on with a checkpoint; N and tokens in the table's units, losses in its unit of loss.

    ``stage``        what is left to train: tokens and target ratio
    ``recipe``, ``schedule``  of the whole run, the first stage included
    ``loss``         its loss
    ``optimum``      table: mean, median, lower and upper of the draws' own optima, of stage_tokens, epochs,
                     target_ratio, final_ratio and loss; ``draws`` {the same: (draw,)}
    ``regret``       loss of the recipe above each draw's own optimum, >= 0
    ``baselines``    table: to stop here, the same mixture, target text alone (as much as may be): feasible, why_not,
                     recipe, loss, and excess over the recommended
    ``constraints``  table of bounds and budgets, as of a :class:`Recommendation`; budgets are of new tokens alone
    ``compute_used``, ``compute_unused``  of the new stage, in ``unit``
    """

    checkpoint: Checkpoint
    stage: Stage
    recipe: Recipe
    schedule: Schedule
    loss: Loss
    optimum: pd.DataFrame
    draws: Mapping[str, Float[np.ndarray, " draw"]] = field(repr=False)
    regret: Interval
    baselines: pd.DataFrame
    constraints: pd.DataFrame
    compute: float
    target_tokens: float
    compute_used: float
    compute_unused: float
    risk: str
    cost: str
    unit: str
    ci: float
    simulated: bool
    notes: tuple[Note, ...]

    def to_json(self) -> dict[str, Any]:
        """Numbers and texts alone, None for what is not a finite number; without the draws."""
        notes = [{"code": n.code, "message": n.message, "about": list(n.about)} for n in self.notes]
        names = ("compute", "target_tokens", "compute_used", "compute_unused", "risk", "cost", "ci")
        return plain(
            {
                "units": UNITS | {"compute": self.unit},
                "simulated_runs": self.simulated,
                "checkpoint": vars(self.checkpoint),
                "stage": {"tokens": self.stage.tokens, "target_ratio": self.stage.target_ratio},
                "recipe": recipe_row(self.recipe),
                "loss": vars(self.loss),
                "optimum": self.optimum.to_dict(orient="index"),
                "regret": numbers(self.regret),
                "baselines": self.baselines.to_dict(orient="index"),
                "constraints": self.constraints.to_dict(orient="index"),
                **{name: getattr(self, name) for name in names},
                "notes": notes,
            }
        )


def continue_from(
    post: Posterior,
    checkpoint: Checkpoint,
    *,
    compute: Number,
    target_tokens: Number,
    risk: Risk | Callable[[Array], Array] | None = None,
    cost: Cost | Callable[[ArrayLike, ArrayLike], ArrayLike] | None = None,
    bounds: Mapping[str, Sequence[Number | None]] | None = None,
    freeze: Mapping[str, Number] | None = None,
    constraints: Sequence[Constraint] = (),
    ci: float = 0.9,
) -> Continuation:
    """The new stage of the smallest risk that costs at most ``compute``; the first one is paid for.

    ``compute``        FLOP, or the unit of ``cost``: cost(N, D_1 + D_2) - cost(N, D_1), of any further budget too
    ``target_tokens``  U, the unique target text of the whole run, in the table's unit. Where the corpus has grown
                       since the first stage, U is its size now, and what was seen counts as text of it, as the law
                       has one U; :func:`m3bayes.value_of_text` says what more text is worth

    The rest is as for :func:`m3bayes.recommend`; bounds are those of the whole run, N is the checkpoint's. To go on
    at the checkpoint's own mixture is one stage, of which bounds on the last stage's share say nothing. Notes:
    POSTERIOR_FLAGGED, FLOPS_DIFFER, BOUNDS_WIDENED, EXTRAPOLATION, BEYOND_30X, AT_BOUND, COMPUTE_UNUSED, and those of
    :func:`m3bayes.predict`. Raises InfeasibleError naming the constraints that exclude each other, RecipeError for
    what cannot be asked, LawError where the law has no finite loss.
    """
    if not 0 < ci < 1:
        raise RecipeError(f"ci is {ci}; expected a probability between 0 and 1")
    freeze = dict(freeze or {})
    for name in ("params", "N", "first_ratio"):
        if name in freeze or name in (bounds or {}):
            raise RecipeError(f"{name} is the checkpoint's; leave it out")
    with jax.enable_x64(True):
        asked = space(
            post.runs,
            post.law,
            compute=compute,
            target_tokens=target_tokens,
            cost=as_cost(six_nd() if cost is None else cost),
            bounds=bounds or {},
            freeze={**freeze, "params": checkpoint.params},
            constraints=constraints,
        )
        asked = replace(
            asked,
            first_ratio=float(checkpoint.target_ratio),
            budgets=tuple(_of_new_tokens(budget, checkpoint) for budget in asked.budgets),
        )
        return _continue(post, checkpoint, asked, as_risk(risk), ci)


def _continue(post: Posterior, checkpoint: Checkpoint, space: Space, risk: Risk, ci: float) -> Continuation:
    run = Run(float(checkpoint.params), space.target_tokens, float(checkpoint.tokens), space.first_ratio)
    parts = cells(space, run)
    c, extra = dict(post.coefficients), space.further_columns(post.law)
    losses, recipes = zip(*(stage_optima(post.law, c, extra, run, cell) for cell in parts), strict=True)
    losses = np.stack(losses)
    best, each = np.argmin(losses, axis=0), np.arange(losses.shape[1])
    least = losses[best, each]
    if not np.all(np.isfinite(least)):
        raise LawError(f"law {post.law.name} has no finite loss at any feasible stage in some draws")
    draws = {name: np.stack([np.asarray(some[name]) for some in recipes])[best, each] for name in recipes[0]}
    base = least if risk.of_regret else np.zeros_like(least)
    points = [least_risk(post.law, risk.function, risk.at, c, extra, run, cell, base) for cell in parts]
    compared = _baselines(space, run)
    several = [*(_recipe(space, run, point) for point in points), *(recipe for _, recipe in compared)]
    of_all = choices(post, risk, several, least)
    of_cells, of_baselines = of_all[: len(parts)], of_all[len(parts) :]
    # the cells of the same mixture come first, and win a tie
    chosen = simplest(of_cells)
    recipe, loss = chosen.recipe, chosen.loss
    least = np.minimum(least, loss)
    prediction = predict(post, recipe, ci=ci)
    constraints = residuals(space, recipe)
    used = min(space.budgets[0].spent(recipe), space.compute)
    notes = [
        *flagged(post),
        *miscounted(post, space.budgets[0].cost),
        *space.notes,
        *at_bounds(constraints, space),
        *unused(constraints, space),
        *prediction.notes,
    ]
    draws = {name: draws[name] for name in DRAWN} | {"loss": least}
    rows = {name: numbers(interval(values, ci)) for name, values in draws.items()}
    return Continuation(
        checkpoint=checkpoint,
        stage=Stage(recipe.tokens - run.D_1, recipe.final_ratio),
        recipe=recipe,
        schedule=_schedule(run, recipe),
        loss=loss_of(prediction),
        optimum=pd.DataFrame.from_dict(rows, orient="index").rename_axis("variable"),
        draws=draws,
        regret=interval(loss - least, ci),
        baselines=_baseline_rows(space, compared, of_baselines, loss, ci),
        constraints=constraints,
        compute=space.compute,
        target_tokens=space.target_tokens,
        compute_used=used,
        compute_unused=space.compute - used,
        risk=risk.name,
        cost=space.budgets[0].cost.name,
        unit=space.budgets[0].cost.unit,
        ci=ci,
        simulated=simulated(post.runs),
        notes=unique_notes(notes),
    )


def _recipe(space: Space, run: Run, columns: Mapping[str, ArrayLike]) -> Recipe:
    k, r, r_f = (float(np.asarray(columns[name])) for name in ("epochs", "target_ratio", "final_ratio"))
    return Recipe(run.N, run.U, k, r, r_f, None if same_ratio(r, r_f) else run.r_1, space.extra)


def _schedule(run: Run, recipe: Recipe) -> Schedule:
    """Both stages, though they may have one ratio."""
    stages = (Stage(run.D_1, run.r_1), Stage(recipe.tokens - run.D_1, recipe.final_ratio))
    return Schedule(recipe.params, recipe.target_tokens, stages, recipe.extra)


def _baselines(space: Space, run: Run) -> list[tuple[str, Recipe]]:
    """The checkpoint as it is, and as much as may be of its own mixture and of target text alone."""

    def further(D_2: float, r_f: float) -> Recipe:
        D, T = run.D_1 + D_2, run.r_1 * run.D_1 + r_f * D_2
        return _recipe(space, run, {"epochs": T / run.U, "target_ratio": T / D, "final_ratio": r_f})

    compared = {TARGET: further(most_tokens(space, run, 1.0), 1.0)}
    if run.r_1 > 0:
        compared[STOP] = further(0.0, run.r_1)
        compared[SAME] = further(most_tokens(space, run, run.r_1), run.r_1)
    return list(compared.items())


def _baseline_rows(
    space: Space,
    compared: Sequence[tuple[str, Recipe]],
    of_baselines: Sequence[Choice],
    loss: Float[np.ndarray, " draw"],
    ci: float,
) -> pd.DataFrame:
    rows = {}
    for (name, recipe), its in zip(compared, of_baselines, strict=True):
        why_not = space.why_not(recipe)
        excess = interval(its.loss - loss, ci)
        rows[name] = {
            "feasible": why_not is None,
            "why_not": why_not or "",
            **recipe_row(recipe),
            "compute": space.budgets[0].spent(recipe),
            "loss_mean": float(its.loss.mean()),
            **{f"excess_{part}": getattr(excess, part) for part in ("mean", "lower", "upper")},
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("baseline")


def _of_new_tokens(budget: Budget, checkpoint: Checkpoint) -> Budget:
    """The same budget with what the first stage has cost taken off the cost of a run."""
    function = _Further(budget.cost.function, float(checkpoint.tokens) * budget.cost.unit_tokens)
    return Budget(replace(budget.cost, function=function, params_for=None, tokens_for=None), budget.most)


@dataclass(frozen=True)
class _Further:
    function: Callable[[ArrayLike, ArrayLike], ArrayLike]
    tokens: float

    def __call__(self, N: ArrayLike, D: ArrayLike) -> Array:
        return jnp.asarray(self.function(N, D)) - jnp.asarray(self.function(N, self.tokens))
