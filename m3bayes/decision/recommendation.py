"""What a recommendation holds, and its form as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from m3bayes.decision.cost import Cost, six_nd
from m3bayes.decision.near_optimal import NearOptimal
from m3bayes.decision.regret import Interval
from m3bayes.decision.space import Bound
from m3bayes.errors import Note
from m3bayes.inference import gate
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import Prediction
from m3bayes.recipe import Recipe, Schedule
from m3bayes.runs import Runs

UNITS = {
    "params": "the table's unit of parameters",
    "tokens": "the table's unit of tokens",
    "loss": "the table's unit of loss",
    "compute": "FLOP",
}


@dataclass(frozen=True)
class Loss:
    """Loss of a recipe, in the table's unit: the mean surface, and the interval of a new run's."""

    mean: float
    sd: float
    lower: float
    upper: float
    new_run_lower: float
    new_run_upper: float


@dataclass(frozen=True, eq=False)
class Optimum:
    """The draws' own optima: ``draws`` {params, epochs, target_ratio, final_ratio, tokens, loss: (draw,)},
    ``regime`` (draw,), and ``summary`` with mean, median, lower and upper of each."""

    draws: Mapping[str, np.ndarray] = field(repr=False)
    regime: np.ndarray = field(repr=False)
    summary: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Snapped:
    """What it costs that not every N, or number of tokens or epochs, can be had.

    ``free``    the best recipe if all could be had
    ``excess``  loss of the recommended recipe above that one's, by draw
    ``risk``    the same in what was minimised, at least 0
    ``tried``   table of the architectures and multiples: variable, value, the best recipe with it, its loss_mean and
                risk, or why_not
    """

    free: Recipe
    excess: Interval
    risk: float
    tried: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Recommendation:
    """A recipe for a budget, and what the posterior says about it. N and tokens are in the table's units.

    ``recipe``, ``schedule``  the recipe, and the stages that carry it out
    ``regime``        monolingual, single-stage or two-stage
    ``loss``          its loss
    ``optimum``       distribution of the draws' own optima
    ``regret``        loss of the recipe above each draw's own optimum, >= 0
    ``regimes``       table by regime: probability_best, gain over the simpler ones, probability_gain,
                      excluded (why), and the recipe of the regime with the smallest risk, with its loss
    ``near_optimal``  recipes that are within the tolerance of the optimum with probability .9
    ``baselines``     table by name: feasible, why_not, recipe, compute, loss, and excess over the recommended
    ``snapped``       what architectures and multiples cost, None where there were none
    ``constraints``   table of bounds and budgets: quantity, sense, limit, value, slack, relative, binding
    ``bounds``        the bounds that held, by variable
    ``compute_used``, ``compute_unused``   in ``unit``, that of ``cost``: FLOP, if nothing else was asked for
    ``simulated``     the runs behind the posterior were all simulated
    """

    recipe: Recipe
    schedule: Schedule
    regime: str
    loss: Loss
    optimum: Optimum
    regret: Interval
    regimes: pd.DataFrame
    near_optimal: NearOptimal
    baselines: pd.DataFrame
    snapped: Snapped | None
    constraints: pd.DataFrame
    bounds: Mapping[str, Bound]
    compute: float
    target_tokens: float
    compute_used: float
    compute_unused: float
    risk: str
    cost: str
    unit: str
    margin: float
    ci: float
    simulated: bool
    notes: tuple[Note, ...]

    def to_json(self) -> dict[str, Any]:
        """Numbers and texts alone, None for what is not a finite number; without the draws."""
        near, snapped = self.near_optimal, self.snapped
        return plain(
            {
                "units": UNITS | {"compute": self.unit},
                "simulated_runs": self.simulated,
                "recipe": recipe_row(self.recipe),
                "schedule": [
                    {"tokens": stage.tokens, "target_ratio": stage.target_ratio}
                    for stage in self.schedule.stages
                ],
                "regime": self.regime,
                "loss": vars(self.loss),
                "optimum": self.optimum.summary.to_dict(orient="index"),
                "regret": numbers(self.regret),
                "regimes": self.regimes.to_dict(orient="index"),
                "near_optimal": {
                    "tolerance": near.tolerance,
                    "probability": near.probability,
                    "size": near.size,
                    "candidates": near.candidates,
                    "probability_recommended": near.probability_recommended,
                    "ranges": {name: list(ends) for name, ends in near.ranges.items()},
                },
                "baselines": self.baselines.to_dict(orient="index"),
                "snapped": snapped
                and {
                    "free": recipe_row(snapped.free),
                    "excess": numbers(snapped.excess),
                    "risk": snapped.risk,
                    "tried": snapped.tried.to_dict(orient="index"),
                },
                "constraints": self.constraints.to_dict(orient="index"),
                "bounds": {name: vars(bound) for name, bound in self.bounds.items()},
                "compute": self.compute,
                "target_tokens": self.target_tokens,
                "compute_used": self.compute_used,
                "compute_unused": self.compute_unused,
                "risk": self.risk,
                "cost": self.cost,
                "margin": self.margin,
                "ci": self.ci,
                "notes": [
                    {"code": note.code, "message": note.message, "about": list(note.about)}
                    for note in self.notes
                ],
            }
        )


def numbers(found: Interval) -> dict[str, float]:
    return {part: getattr(found, part) for part in ("mean", "median", "lower", "upper")}


def loss_of(prediction: Prediction) -> Loss:
    """Of the prediction of one recipe, with the interval of a new run."""
    p = prediction
    assert p.new_run_lower is not None and p.new_run_upper is not None
    values = (p.loss_mean, p.loss_sd, p.loss_lower, p.loss_upper, p.new_run_lower, p.new_run_upper)
    return Loss(*(float(value[0]) for value in values))


def simulated(runs: Runs) -> bool:
    """Whether the table says of all its runs that they were simulated."""
    return "source" in runs.columns and set(runs["source"]) == {"simulated"}


def flagged(post: Posterior) -> list[Note]:
    if post.verdict == "passed":
        return []
    codes = ", ".join(dict.fromkeys(note.code for note in post.notes if note.code in gate.CODES))
    said = f"the posterior did not pass the gate ({codes}): its intervals are not to be trusted"
    return [Note("POSTERIOR_FLAGGED", said)]


def miscounted(post: Posterior, cost: Cost) -> list[Note]:
    """FLOPS_DIFFER of the table, where the cost is 6 N D all the same."""
    return [note for note in post.runs.notes if note.code == "FLOPS_DIFFER" and cost.name == six_nd().name]


def recipe_row(recipe: Recipe) -> dict[str, float | None]:
    names = ("params", "target_tokens", "epochs", "target_ratio", "final_ratio", "first_ratio")
    row = {name: getattr(recipe, name) for name in names}
    return {
        **row,
        **recipe.extra,
        **{n: getattr(recipe, n) for n in ("tokens", "source_tokens", "last_stage_share")},
    }


def plain(value: Any) -> Any:
    """Python's own types, with None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | int | np.number):
        return float(value) if math.isfinite(value) else None
    return value
