"""What to measure next: the runs that make the coming decision better, for their cost.

Preposterior analysis by reweighting draws, without a fit. Some of the posterior's draws play the truth: each
makes an outcome of every candidate run. The others are the posterior; seeing outcomes weights them,

    w_md ~ prod_i p(y_mi | x_i, d)        y_mi = log L_m(x_i) + s_mi t_mi

The decision is then the recipe with the smallest weighted mean loss among a fixed set, and what it costs is
its regret in the draw that made the outcomes, which the weights do not know: few effective draws make a plan
look worse, never better. Outcomes that would leave fewer than 30 of them count as less than they say. With a
quantity as the goal, the cost is the squared error of its weighted mean.

Runs are chosen one after the other, given simulated outcomes of those already chosen: a second run that says
what the first one says gains little. Two plans are made, by gain a FLOP and by gain alone, both less one
standard error of the simulation, and the better one is returned. Symbols are those of outcomes.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import numpy as np
import pandas as pd

from m3bayes.decision.budgets import CostLike, Number, request
from m3bayes.decision.candidate_runs import candidate_runs
from m3bayes.decision.outcomes import (
    FEWEST,
    TRUTHS,
    WEIGHTED,
    Outcomes,
    effective,
    error_of,
    log_likelihood,
    normalised,
    regret_of,
    simulated,
    weights_of,
)
from m3bayes.decision.recommendation import flagged
from m3bayes.decision.residuals import unspendable
from m3bayes.decision.space import Bounds, check_numbers
from m3bayes.errors import InfeasibleError, Note, RecipeError, unique_notes
from m3bayes.inference import new_run
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import Recipes
from m3bayes.recipe import recipe_columns

Goal = Literal["regret"] | Callable[[Mapping[str, np.ndarray]], np.ndarray]
RANDOM_PLANS = 20


@dataclass(frozen=True, eq=False)
class NextRuns:
    """Runs to measure next, in this order.

    ``runs``     the candidates chosen: row (of the candidates, from 0), their columns, flops, after (expected
                 regret, or squared error of the goal, once this run and those before it are measured), gain
                 (what this run takes off), gain_se (simulation), ess (effective draws, median)
    ``before``, ``after``   the same without, and with all of them
    ``against``  table of plans within the budget: this one, the other greedy one, random ones (mean), the
                 largest run, nothing; runs, flops, after, after_se
    ``single``   every affordable candidate alone: row, flops, gain, gain_se
    """

    runs: pd.DataFrame
    before: float
    after: float
    against: pd.DataFrame
    single: pd.DataFrame
    goal: str
    budget: float
    notes: tuple[Note, ...]


def next_runs(
    post: Posterior,
    candidates: Recipes | None = None,
    *,
    compute: Number,
    target_tokens: Number,
    budget: Number,
    number: int | None = None,
    goal: Goal = "regret",
    bounds: Bounds | None = None,
    freeze: Mapping[str, Number] | None = None,
    cost: CostLike | None = None,
    seed: int = 0,
) -> NextRuns:
    """The candidate runs that lower the expected regret of ``recommend(compute, target_tokens)`` most.

    ``candidates``   recipes that could be run, as :func:`m3bayes.predict` takes them; default
                     :func:`candidate_runs`
    ``compute``, ``target_tokens``, ``bounds``, ``freeze``, ``cost``   the coming decision, as in
                     :func:`m3bayes.recommend`
    ``budget``       FLOP for all the runs together; ``number`` the most of them
    ``goal``         "regret"; or a function of {coefficient: (draw,)} giving the quantity (draw,) to be known

    Notes: LOW_ESS (outcomes say more than these draws can tell: run the first ones, refit, ask again),
    NOTHING_GAINED, NOISE_GROUP, COMPUTE_UNUSED (the bounds leave no recipe that costs ``compute``). Raises
    InfeasibleError where no candidate fits the budget, RecipeError for what cannot be asked.
    """
    check_numbers(budget=budget, **({} if number is None else {"number": number}))
    if not (0 < budget < math.inf and (number is None or number > 0)):
        raise RecipeError(f"budget is {budget} FLOP and number {number}; expected both above 0")
    asked = request(post, cost, bounds, freeze, TRUTHS + WEIGHTED)
    if candidates is None:
        candidates = candidate_runs(post, budget, seed=seed, cost=cost)
    columns = recipe_columns(candidates, post.law.columns)
    table = candidates if isinstance(candidates, pd.DataFrame) else pd.DataFrame(columns)
    random = np.random.default_rng(seed)
    noise = new_run.scatter(asked.post, columns, table)
    outcomes = simulated(asked.post, columns, noise, random)
    score = regret_of(asked, compute, target_tokens) if goal == "regret" else error_of(asked.post, goal)
    tokens = columns["epochs"] * columns["target_tokens"] / columns["target_ratio"]
    with jax.enable_x64(True):
        in_units = asked.cost.in_units(post.runs.unit_params, post.runs.unit_tokens)
        flops = np.asarray(in_units.flops(columns["params"], tokens))
    if not np.any(flops <= budget):
        raise InfeasibleError(
            f"no candidate fits the budget of {budget:.4g} FLOP: the cheapest costs {flops.min():.4g}; "
            "raise the budget or give smaller candidates"
        )
    study = _Study(outcomes, score, flops, float(budget), len(flops) if number is None else number)
    single = _gains(study, _nothing(study), np.flatnonzero(flops <= budget))
    plans = {
        "most gain a FLOP": _greedy(study, lambda steps: [_sure(s) / flops[s.row] for s in steps], single),
        "most gain": _greedy(study, lambda steps: [_sure(s) for s in steps], single),
    }
    name = min(plans, key=lambda name: plans[name][-1].cost.mean() if plans[name] else math.inf)
    steps = plans[name]
    before = _nothing(study).cost
    return NextRuns(
        runs=_rows(table, flops, steps, before),
        before=float(before.mean()),
        after=float(steps[-1].cost.mean() if steps else before.mean()),
        against=_against(study, plans, name, random),
        single=pd.DataFrame(
            [
                {"row": s.row, "flops": flops[s.row], "gain": s.gain.mean(), "gain_se": _se(s.gain)}
                for s in single
            ]
        ),
        goal="regret" if goal == "regret" else getattr(goal, "__name__", "goal"),
        budget=float(budget),
        notes=unique_notes(
            [
                *flagged(post),
                *(unspendable(asked.at(compute, target_tokens)) if goal == "regret" else ()),
                *new_run.notes(post, noise),
                *_notes(steps, single),
            ]
        ),
    )


class _Study(NamedTuple):
    """``score`` takes weights (truth, draw) to the cost (truth,) of deciding with them."""

    outcomes: Outcomes
    score: Callable[[np.ndarray], np.ndarray]
    flops: np.ndarray
    budget: float
    number: int


class _Step(NamedTuple):
    """A candidate measured after others: log weights (truth, draw), cost (truth,) of the decision, what it
    takes off, effective draws."""

    row: int
    log_weights: np.ndarray
    cost: np.ndarray
    gain: np.ndarray
    ess: float


def _nothing(study: _Study) -> _Step:
    log_weights = np.zeros((len(study.outcomes.y), len(study.outcomes.mean)))
    cost = study.score(weights_of(log_weights))
    return _Step(-1, log_weights, cost, np.zeros_like(cost), float(log_weights.shape[1]))


def _measured(study: _Study, before: _Step, row: int) -> _Step:
    log_weights = before.log_weights + log_likelihood(study.outcomes, row)
    cost = study.score(weights_of(log_weights))
    ess = float(np.median(effective(normalised(log_weights))))
    return _Step(row, log_weights, cost, before.cost - cost, ess)


def _gains(study: _Study, before: _Step, rows: Sequence[int] | np.ndarray) -> list[_Step]:
    """Every row after ``before``; only costs and gains are kept."""
    steps = (_measured(study, before, int(row)) for row in rows)
    return [step._replace(log_weights=np.empty(0)) for step in steps]


def _greedy(
    study: _Study, merit: Callable[[Sequence[_Step]], Sequence[float]], single: Sequence[_Step]
) -> list[_Step]:
    """Steps of the plan that always takes the most merit next; ends where nothing surely gains."""
    plan: list[_Step] = []
    before, left = _nothing(study), study.budget
    options = list(single)
    while options and len(plan) < study.number:
        merits = merit(options)
        best = int(np.argmax(merits))
        if merits[best] <= 0:
            break
        before = _measured(study, before, options[best].row)
        left -= study.flops[before.row]
        plan.append(before)
        rest = [step.row for step in options if step.row != before.row and study.flops[step.row] <= left]
        options = _gains(study, before, rest)
    return plan


def _sure(step: _Step) -> float:
    return float(step.gain.mean() - _se(step.gain))


def _se(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _rows(table: pd.DataFrame, flops: np.ndarray, steps: Sequence[_Step], before: np.ndarray) -> pd.DataFrame:
    chosen = [step.row for step in steps]
    added = {
        "flops": flops[chosen],
        "after": [step.cost.mean() for step in steps],
        "gain": [step.gain.mean() for step in steps],
        "gain_se": [_se(step.gain) for step in steps],
        "ess": [step.ess for step in steps],
    }
    rows = table.iloc[chosen].reset_index(drop=True)
    rows = rows.drop(columns=[name for name in added if name in rows]).assign(**added)
    rows.insert(0, "row", chosen)
    return rows


def _against(
    study: _Study, plans: Mapping[str, Sequence[_Step]], name: str, random: np.random.Generator
) -> pd.DataFrame:
    nothing = _nothing(study)
    affordable = np.flatnonzero(study.flops <= study.budget)
    largest = int(affordable[np.argmax(study.flops[affordable])])
    drawn = [_random_plan(study, random.permutation(affordable)) for _ in range(RANDOM_PLANS)]
    others = [other for other in plans if other != name]
    rows = {
        f"this plan: {name}": plans[name],
        **{f"greedy: {other}": plans[other] for other in others},
        "largest run": [_measured(study, nothing, largest)],
        "nothing": [],
    }
    table = {
        key: {
            "runs": float(len(steps)),
            "flops": sum(study.flops[step.row] for step in steps),
            "after": (steps[-1] if steps else nothing).cost.mean(),
            "after_se": _se((steps[-1] if steps else nothing).cost),
        }
        for key, steps in rows.items()
    }
    costs = np.array([cost.mean() for _, cost in drawn])
    table["random plans, mean"] = {
        "runs": np.mean([len(chosen) for chosen, _ in drawn]),
        "flops": np.mean([study.flops[chosen].sum() for chosen, _ in drawn]),
        "after": costs.mean(),
        "after_se": _se(costs),
    }
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("plan")


def _random_plan(study: _Study, order: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Candidates in this order while they fit, and the cost (truth,) of deciding after them."""
    chosen, left = [], study.budget
    step = _nothing(study)
    for row in order:
        if len(chosen) < study.number and study.flops[row] <= left:
            chosen.append(int(row))
            left -= study.flops[row]
            step = _measured(study, step, int(row))
    return chosen, step.cost


def _notes(steps: Sequence[_Step], single: Sequence[_Step]) -> list[Note]:
    notes = []
    if not steps:
        said = "no affordable candidate surely lowers the cost of the decision by more than the simulation's error"
        notes.append(Note("NOTHING_GAINED", said))
    low = [i for i, step in enumerate(steps, start=1) if step.ess < FEWEST]
    if low or (not steps and min(step.ess for step in single) < FEWEST):
        said = (
            f"from run {low[0] if low else 1} on outcomes would leave fewer than {FEWEST} effective draws, so that "
            "more is learnt than is counted here: measure the runs up to it, refit, and ask again"
        )
        notes.append(Note("LOW_ESS", said))
    return notes
