"""evaluate_plans(posterior, plans) -> Plans: any recipes, compared on the same draws.

| symbol | meaning | unit |
|---|---|---|
| L_d(x) | loss of plan x in draw d | table's |
| L*_d | the draw's own optimum, over all that a budget allows | table's |
| N, k, U = D_T, r, r_f | as in :mod:`m3bayes.recipe` | |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from jaxtyping import Float

from m3bayes.decision.cost import six_nd
from m3bayes.decision.faces import faces
from m3bayes.decision.optimize import Surface, optima_by_regime
from m3bayes.decision.recommendation import UNITS, flagged, plain, simulated
from m3bayes.decision.space import Space, space
from m3bayes.errors import Note, RecipeError, unique_notes
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import ADDED, loss_draws, predict
from m3bayes.laws.law import RECIPE_COLUMNS, Law
from m3bayes.recipe import Recipe, Schedule, recipe, recipe_columns

Given = pd.DataFrame | Sequence[Recipe | Schedule] | Mapping[str, Recipe | Schedule]
RECIPE = (*RECIPE_COLUMNS, "first_ratio")
SLOPES = {
    "params": "slope_log_params",
    "epochs": "slope_log_epochs",
    "target_tokens": "slope_log_target_tokens",
    "target_ratio": "slope_logit_target_ratio",
    "final_ratio": "slope_final_ratio",
}


@dataclass(frozen=True, eq=False)
class Plans:
    """Plans on the same draws; losses in the table's unit, N and tokens in its units, compute in FLOP.

    ``table``   one row a plan: the recipe, ``tokens`` and ``compute`` (6 N D); its losses, ``extrapolation`` and
                ``notes`` as of :func:`m3bayes.predict`; ``probability_best`` among the plans, ties split;
                ``regret_mean``, ``regret_lower`` and ``regret_upper``, the loss above each draw's best plan; the
                slopes of the mean loss, ``slope_log_params``, ``slope_log_epochs``, ``slope_log_target_tokens``,
                ``slope_logit_target_ratio`` and ``slope_final_ratio``, each with the other variables held. With
                a budget also ``excess_mean`` (lower, upper), the loss above each draw's own optimum (below 0
                at best where a plan is not feasible), ``feasible`` and ``why_not``
    ``better``  plans by plans: probability that the row's loss is below the column's, ties split
    ``losses``  (draw, plan)
    """

    table: pd.DataFrame
    better: pd.DataFrame
    losses: Float[np.ndarray, "draw plan"] = field(repr=False)
    compute: float | None
    target_tokens: float | None
    ci: float
    simulated: bool
    notes: tuple[Note, ...]

    def to_json(self) -> dict[str, Any]:
        """Numbers and texts alone, None for what is not a finite number; without the draws."""
        return plain(
            {
                "units": UNITS,
                "simulated_runs": self.simulated,
                "plans": self.table.to_dict(orient="index"),
                "better": self.better.to_dict(orient="index"),
                "compute": self.compute,
                "target_tokens": self.target_tokens,
                "ci": self.ci,
                "notes": [
                    {"code": note.code, "message": note.message, "about": list(note.about)}
                    for note in self.notes
                ],
            }
        )


def evaluate_plans(
    post: Posterior,
    plans: Given,
    *,
    compute: float | int | None = None,
    target_tokens: float | int | None = None,
    ci: float = 0.9,
) -> Plans:
    """Compare recipes on the draws of a posterior: losses, which is better, what a wrong choice costs.

    ``plans``          a table of recipes (named by a column ``run`` where there is one), Recipes or Schedules, or
                       {name: Recipe}, in the table's units
    ``compute``        FLOP; then plans are also held against each draw's own optimum within the range of the
                       runs, the default bounds of :func:`m3bayes.recommend`
    ``target_tokens``  U of that optimum, in the table's unit; may be left out where all plans have one U

    Slopes are one-sided where the surface has a kink (at k = 1, from below). Notes: POSTERIOR_FLAGGED, those of
    :func:`m3bayes.predict` and, with a budget, of its bounds. Raises RecipeError for plans that cannot be,
    InfeasibleError where the budget allows no recipe, LawError where the law has no finite loss.
    """
    names, rows = _named(plans)
    columns = recipe_columns(rows, post.law.columns)
    prediction = predict(post, rows, ci=ci)
    losses = loss_draws(post, rows)
    tokens = columns["epochs"] * columns["target_tokens"] / columns["target_ratio"]
    with jax.enable_x64(True):
        cost = six_nd().in_units(post.runs.unit_params, post.runs.unit_tokens)
        flops = np.asarray(cost.flops(columns["params"], tokens))
        budget = None if compute is None else _budget(post, columns, compute, target_tokens)
        slopes = _slopes(post, columns)
        optimum = None if budget is None else _optimum(post, budget)
        extra = [name for name in post.law.columns if name not in RECIPE]
        why_not = [budget.why_not(_recipe(columns, i, extra)) for i in range(len(names))] if budget else []
    predicted = prediction.frame()[list(ADDED)]
    added: dict[str, Any] = {name: columns[name] for name in (*RECIPE, *extra)}
    added |= {"tokens": tokens, "compute": flops}
    added |= {str(name): values.to_numpy() for name, values in predicted.items()}
    lowest = losses.min(axis=1, keepdims=True)
    added["probability_best"] = _shares(losses == lowest)
    added |= _summary("regret", losses - lowest, ci) | slopes
    if optimum is not None:
        feasible = [why is None for why in why_not]
        # a feasible plan may be no recipe of the search (its stages of another kind), and better
        optimum = np.minimum(optimum, losses[:, feasible].min(axis=1, initial=np.inf))
        added |= _summary("excess", losses - optimum[:, None], ci)
        added |= {"feasible": feasible, "why_not": [why or "" for why in why_not]}
    return Plans(
        table=pd.DataFrame(added, index=pd.Index(names, name="plan")),
        better=_better(losses, names),
        losses=losses,
        compute=None if budget is None else budget.compute,
        target_tokens=None if budget is None else budget.target_tokens,
        ci=ci,
        simulated=simulated(post.runs),
        notes=unique_notes([*flagged(post), *(budget.notes if budget else ()), *prediction.notes]),
    )


def _named(plans: Given) -> tuple[list[str], pd.DataFrame | list[Recipe]]:
    """Names of the plans, each once, and the plans as recipes or rows."""
    if isinstance(plans, pd.DataFrame):
        rows: pd.DataFrame | list[Recipe] = plans
        names = (
            [str(n) for n in plans["run"]] if "run" in plans else [f"row {i + 1}" for i in range(len(plans))]
        )
    elif isinstance(plans, Mapping):
        names, rows = [str(name) for name in plans], [_as_recipe(plan) for plan in plans.values()]
    else:
        names, rows = [f"plan {i + 1}" for i in range(len(plans))], [_as_recipe(plan) for plan in plans]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"plan {twice[0]!r} is there twice; give each plan its own name")
    return names, rows


def _as_recipe(plan: Recipe | Schedule) -> Recipe:
    return recipe(plan) if isinstance(plan, Schedule) else plan


def _recipe(columns: Mapping[str, np.ndarray], i: int, extra: Sequence[str]) -> Recipe:
    values = {name: float(columns[name][i]) for name in RECIPE if not np.isnan(columns[name][i])}
    return Recipe(**values, extra={name: float(columns[name][i]) for name in extra})


def _budget(
    post: Posterior,
    columns: Mapping[str, np.ndarray],
    compute: float | int,
    target_tokens: float | int | None,
) -> Space:
    extra = {name: _common(columns, name) for name in post.law.columns if name not in RECIPE}
    U = _common(columns, "target_tokens") if target_tokens is None else target_tokens
    return space(
        post.runs, post.law, compute=compute, target_tokens=U, cost=six_nd(), bounds={}, freeze=extra
    )


def _common(columns: Mapping[str, np.ndarray], name: str) -> float:
    found = np.unique(columns[name])
    if len(found) > 1:
        raise RecipeError(
            f"the plans' {name} runs from {found[0]:.4g} to {found[-1]:.4g}, expected one value since a budget has "
            "one; compare such plans by themselves or without compute"
            + (", or say target_tokens" if name == "target_tokens" else "")
        )
    return float(found[0])


def _optimum(post: Posterior, budget: Space) -> Float[np.ndarray, " draw"]:
    """Each draw's smallest loss within a budget."""
    extra = budget.further_columns(post.law)
    found = optima_by_regime(Surface(post.law, budget.cost), post.coefficients, extra, faces(budget)[0])
    return np.min([optimum.loss for optimum in found.values()], axis=0)


def _slopes(post: Posterior, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Slopes of the mean loss by log N, log k, log U, logit r and r_f: (plan,) each."""
    x = {name: np.asarray(columns[name], float) for name in post.law.columns}
    moved = {name: x[name] for name in SLOPES if name in x}
    of_columns = _gradients(post.law, post.coefficients, x, moved)
    r = columns["target_ratio"]
    per = {"target_ratio": r * (1 - r), "final_ratio": 1.0}
    return {
        slope: np.asarray(of_columns[name]) * per.get(name, columns[name])
        if name in moved
        else np.zeros(len(r))
        for name, slope in SLOPES.items()
    }


@partial(jax.jit, static_argnums=0)
def _gradients(law: Law, c, x, moved) -> dict[str, Array]:
    def mean_loss(moved: Mapping[str, Array], x: Mapping[str, Array]) -> Array:
        return jnp.mean(jax.vmap(law.loss, in_axes=(0, None))(c, {**x, **moved}))

    return jax.vmap(jax.grad(mean_loss))(moved, x)


def _better(losses: Float[np.ndarray, "draw plan"], names: Sequence[str]) -> pd.DataFrame:
    rows = [
        np.mean(one[:, None] < losses, axis=0) + 0.5 * np.mean(one[:, None] == losses, axis=0)
        for one in losses.T
    ]
    return pd.DataFrame(
        np.array(rows), index=pd.Index(names, name="plan"), columns=pd.Index(names, name="better than")
    )


def _shares(best: np.ndarray) -> Float[np.ndarray, " plan"]:
    return np.mean(best / best.sum(axis=1, keepdims=True), axis=0)


def _summary(name: str, values: Float[np.ndarray, "draw plan"], ci: float) -> dict[str, np.ndarray]:
    lower, upper = np.quantile(values, [(1 - ci) / 2, (1 + ci) / 2], axis=0)
    return {f"{name}_mean": values.mean(axis=0), f"{name}_lower": lower, f"{name}_upper": upper}
