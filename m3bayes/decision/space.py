"""What may be recommended: bounds on seven variables, and how they differ from what was run.

| symbol | name | unit |
|---|---|---|
| N | params | the table's unit of parameters |
| k | epochs | - |
| r, r_f | target_ratio, final_ratio | - |
| D, S | tokens, source_tokens: all tokens seen, those of the source language | the table's unit of tokens |
| share | last_stage_share, of the last of two stages: (r - r_1) / (r_f - r_1) | - |

The default bounds are the range of the runs, the share's over the runs that had two stages. They are widened
only by the caller, and then a note says so. The share's bounds say nothing of recipes with one stage; frozen
below 1 it asks for two stages, frozen at 1 for one. Constraints narrow the bounds, or are further budgets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from m3bayes.decision.constraints import Constraint
from m3bayes.decision.cost import Cost, check_increases, six_nd, tightest
from m3bayes.errors import InfeasibleError, Note, RecipeError
from m3bayes.laws.law import RECIPE_COLUMNS, Law
from m3bayes.recipe import Recipe
from m3bayes.runs import Runs
from m3bayes.table_checks import same_ratio

Number = float | int
Bounds = Mapping[str, Sequence[Number | None]]

LETTERS = {
    "params": "N",
    "epochs": "k",
    "target_ratio": "r",
    "final_ratio": "r_f",
    "tokens": "D",
    "source_tokens": "S",
    "last_stage_share": "share",
}
RECIPE = ("params", "epochs", "target_ratio", "final_ratio")
RATIOS = ("target_ratio", "final_ratio", "last_stage_share")
# what a lower end comes from where the variable can be no smaller
SMALLEST = {
    "params": "one parameter",
    "tokens": "one token",
    "epochs": "one target token",
    **dict.fromkeys(RATIOS, "a ratio is above 0"),
}
ROUNDING, TIE = 1e-9, 1e-12
# a cost is looked at up to so many times the range of the runs where bounds are lifted
FAR = 1e6


@dataclass(frozen=True)
class Bound:
    """An interval of one variable; ``low_from`` and ``high_from`` say whose its ends are."""

    name: str
    low: float
    high: float
    low_from: str
    high_from: str

    @property
    def low_text(self) -> str:
        return f"{self.name} >= {self.low:.4g} ({self.low_from})"

    @property
    def high_text(self) -> str:
        return f"{self.name} <= {self.high:.4g} ({self.high_from})"


@dataclass(frozen=True)
class Budget:
    """At most ``most`` of a cost, in its unit."""

    cost: Cost
    most: float

    def spent(self, recipe: Recipe) -> float:
        return float(self.cost.flops(recipe.params, recipe.tokens))


@dataclass(frozen=True)
class Space:
    """A request in the table's units: bounds, compute C, U, the cost model and what else is fixed.

    ``compute`` is in the unit of ``cost`` (FLOP), which is that of all ``budgets``, the first of them ``compute``.
    ``two_stages`` is None where one or two stages may be recommended, else whether there must be two.
    ``extra`` are values of further columns the law reads. Where there are ``sizes`` a recipe may have those N
    alone; ``steps`` are (variable, step) of which it has whole multiples.
    """

    bounds: Mapping[str, Bound]
    compute: float
    target_tokens: float
    cost: Cost
    first_ratio: float
    two_stages: bool | None
    extra: Mapping[str, float]
    runs_compute: float
    notes: tuple[Note, ...]
    budgets: tuple[Budget, ...]
    sizes: tuple[float, ...] = ()
    steps: tuple[tuple[str, float], ...] = ()

    def __getitem__(self, name: str) -> Bound:
        return self.bounds[name]

    def recipe(self, params: Number, epochs: Number, target_ratio: Number, final_ratio: Number) -> Recipe:
        """A recipe of this request; rounding is taken back to the bounds and to the budget."""
        N, k, r, r_f = (
            float(np.clip(value, self[name].low, self[name].high))
            for name, value in zip(RECIPE, (params, epochs, target_ratio, final_ratio), strict=True)
        )
        N = self.affordable(N, k * self.target_tokens / r)
        # two stages whose ratios differ by rounding alone are one
        r_f = r if same_ratio(r, r_f) else r_f
        first = self.first_ratio if r_f > r else None
        return Recipe(N, self.target_tokens, k, r, r_f, first, self.extra)

    def further_columns(self, law: Law) -> dict[str, float]:
        """Values of the columns that the law reads besides the recipe's own."""
        first = {"first_ratio": self.first_ratio} if "first_ratio" in law.columns else {}
        return {**self.extra, **first}

    def affordable(self, N: float, D: float) -> float:
        """N within its bounds, with what rounding adds to the cost above C taken off."""
        least, most = self["params"].low, self["params"].high
        N = min(max(N, least), most)
        if float(self.cost.flops(N, D)) > self.compute * (1 + ROUNDING):
            return N
        while least < N and float(self.cost.flops(N, D)) > self.compute:
            N = max(N * (1 - 1e-15), least)
        return N

    def why_not(self, recipe: Recipe) -> str | None:
        """The first constraint that a recipe breaks by more than rounding, budgets first; None where it is feasible."""
        if not math.isclose(recipe.target_tokens, self.target_tokens, rel_tol=ROUNDING):
            return f"target_tokens is {recipe.target_tokens:.4g}, the request's {self.target_tokens:.4g}"
        single = recipe.first_ratio is None
        if self.two_stages is not None and self.two_stages == single:
            return f"last_stage_share is frozen at {self['last_stage_share'].low:g}"
        for budget in self.budgets:
            spent = budget.spent(recipe)
            if spent > budget.most * (1 + ROUNDING):
                more = f"costs {spent:.4g} {budget.cost.unit}, more than {self.limit_text(budget)}"
                return more + _by_how_much(spent, budget.most)
        for name, bound in self.bounds.items():
            value = getattr(recipe, name)
            if name == "last_stage_share" and single:
                continue
            if math.isnan(bound.low):
                return "no run had two stages"
            if value < bound.low * (1 - ROUNDING):
                return f"{name} {value:.4g}, but {bound.low_text}{_by_how_much(value, bound.low)}"
            if value > bound.high * (1 + ROUNDING):
                return f"{name} {value:.4g}, but {bound.high_text}{_by_how_much(value, bound.high)}"
        if self.sizes and not any(math.isclose(recipe.params, N, rel_tol=ROUNDING) for N in self.sizes):
            return f"params {recipe.params:.4g} is none of the architectures"
        for name, step in self.steps:
            count = getattr(recipe, name) / step
            if not math.isclose(count, round(count), rel_tol=ROUNDING):
                return f"{name} {getattr(recipe, name):.4g} is no multiple of {step:g}"
        return None

    def limit_text(self, budget: Budget) -> str:
        return f"{'compute' if budget is self.budgets[0] else budget.cost.unit}={budget.most:.4g}"

    def grained(self, sizes: Iterable[float], steps: Mapping[str, float]) -> Space:
        return replace(self, sizes=tuple(sizes), steps=tuple(steps.items()))

    def held(self, name: str, value: float, why: str) -> Space:
        """The request with one variable held at a value within its bounds."""
        return replace(self, bounds={**self.bounds, name: Bound(name, value, value, why, why)})


def space(
    runs: Runs,
    law: Law,
    *,
    compute: Number,
    target_tokens: Number,
    cost: Cost,
    bounds: Bounds,
    freeze: Mapping[str, Number],
    constraints: Sequence[Constraint] = (),
) -> Space:
    """The space of a request. Raises RecipeError for names and numbers that mean nothing, InfeasibleError for
    bounds that exclude each other at once."""
    check_numbers(compute=compute, target_tokens=target_tokens)
    _positive("compute", compute, cost.unit)
    _positive("target_tokens", target_tokens, "tokens in the table's unit")
    bounds, freeze = _by_name(bounds), _by_name(freeze)
    check_numbers(**{f"freeze {name}": value for name, value in freeze.items()})
    if both := sorted(bounds.keys() & freeze.keys()):
        raise RecipeError(f"{both[0]} is both bounded and frozen; give one of the two")
    extra = {name: value for name, value in freeze.items() if name not in (*LETTERS, "first_ratio")}
    _check_names(bounds, freeze, extra, law)
    narrowed, second = _sorted_out(constraints)
    budgets = [
        Budget(cost.in_units(runs.unit_params, runs.unit_tokens), float(most))
        for cost, most in [(cost, compute), *second]
    ]
    cost = budgets[0].cost
    # no model below one parameter, no run below one target token
    smallest = {"params": 1 / runs.unit_params, "tokens": 1 / runs.unit_tokens}
    smallest |= {"epochs": smallest["tokens"] / target_tokens}
    smallest |= dict.fromkeys(RATIOS, 1e-6)
    result, notes = {}, []
    for name, (low, high) in ranges(runs).items():
        asked = (freeze[name], freeze[name]) if name in freeze else bounds.get(name, (None, None))
        result[name] = bound = _bound(name, (low, high), asked, smallest.get(name, 0.0))
        # written so that a range of NaN is one that any bound goes beyond
        if not (math.isnan(bound.low) or (bound.low >= low * (1 - TIE) and bound.high <= high * (1 + TIE))):
            said = "none of them had two stages" if math.isnan(low) else f"they had {low:.4g} to {high:.4g}"
            asked_for = f"{name} from {bound.low:.4g} to {bound.high:.4g}"
            notes.append(Note("BOUNDS_WIDENED", f"{asked_for} goes beyond the runs: {said}", (name,)))
        for constraint in narrowed.get(name, ()):
            result[name] = _narrowed(result[name], constraint)
    for budget in budgets:
        _check_budget(budget.cost, runs, result)
    share = freeze.get("last_stage_share")
    runs_compute = float(np.max(cost.flops(runs["params"], runs.tokens)))
    return Space(
        bounds=result,
        compute=float(compute),
        target_tokens=float(target_tokens),
        cost=tightest([(budget.cost, budget.most) for budget in budgets]).in_units(
            runs.unit_params, runs.unit_tokens
        ),
        first_ratio=float(freeze.get("first_ratio", 0.0)),
        two_stages=None if share is None else share < 1,
        extra={name: float(value) for name, value in extra.items()},
        runs_compute=runs_compute,
        notes=(*notes, *_outside_the_runs(runs, float(compute), float(target_tokens), runs_compute)),
        budgets=tuple(budgets),
    )


def _by_how_much(value: float, limit: float) -> str:
    """Where the two look the same in four digits."""
    return f", by {abs(value / limit - 1):.1g} of it" if f"{value:.4g}" == f"{limit:.4g}" else ""


def check_numbers(**given: object) -> None:
    """Raise RecipeError for the first that is a text, a truth value or anything else that is no number."""
    for name, value in given.items():
        if np.ndim(value) or np.asarray(value).dtype.kind not in "iuf":  # pyright: ignore[reportArgumentType]
            raise RecipeError(f"{name}: {value!r}; expected a number")


def ranges(runs: Runs) -> dict[str, tuple[float, float]]:
    """Range of the runs in the seven variables; NaN for the share where no run had two stages."""
    two_stages = ~same_ratio(runs["target_ratio"], runs["final_ratio"])
    values = {
        "params": runs["params"],
        "epochs": runs["epochs"],
        "target_ratio": runs["target_ratio"],
        "final_ratio": runs["final_ratio"],
        "tokens": runs.tokens,
        "source_tokens": runs.source_tokens,
        "last_stage_share": runs.last_stage_share[two_stages],
    }
    return {
        name: (float(np.min(column)), float(np.max(column))) if column.size else (math.nan, math.nan)
        for name, column in values.items()
    }


def _bound(name: str, runs: tuple[float, float], asked: Sequence[Number | None], smallest: float) -> Bound:
    """The caller's ends where given, else the runs'; kept to what the variable can be at all."""
    for end in asked:
        if end is not None:
            check_numbers(**{f"bounds {name}": end})
    if len(asked) != 2 or any(end is not None and math.isnan(end) for end in asked):
        raise RecipeError(
            f"bounds of {name} are {asked!r}; expected (low, high), None for the range of the runs"
        )
    if math.isnan(runs[0]) and asked != (None, None):
        runs = (0.0, 1.0)
    low, high = (end if given is None else float(given) for end, given in zip(runs, asked, strict=True))
    if name in RATIOS and (low < 0 or high > 1):
        raise RecipeError(f"{name} between {low:g} and {high:g}; expected ratios from 0 to 1")
    low_from, high_from = ("runs" if end is None else "asked for" for end in asked)
    if low < smallest:
        low, low_from = smallest, SMALLEST[name]
    bound = Bound(name, low, high, low_from, high_from)
    if bound.low > bound.high:
        raise InfeasibleError(
            f"no recipe is feasible: {bound.low_text} and {bound.high_text} exclude each other"
        )
    return bound


def _sorted_out(
    constraints: Sequence[Constraint],
) -> tuple[dict[str, list[Constraint]], list[tuple[Cost, Number]]]:
    """Constraints by variable, and further budgets."""
    of_variables: dict[str, list[Constraint]] = {}
    budgets: list[tuple[Cost, Number]] = []
    for constraint in constraints:
        if not isinstance(constraint, Constraint):
            raise RecipeError(f"constraints has {constraint!r}; expected those of m3bayes.constraints")
    for constraint in dict.fromkeys(constraints):
        if isinstance(constraint.of, Cost):
            budgets.append((constraint.of, constraint.high))
            continue
        (name,) = _by_name({constraint.of: None})
        if name not in LETTERS:
            raise RecipeError(f"no variable {name!r} can be constrained; these can: {_known()}")
        of_variables.setdefault(name, []).append(constraint)
    return of_variables, budgets


def _narrowed(bound: Bound, constraint: Constraint) -> Bound:
    """What a constraint leaves of a bound; a range of NaN (no run had two stages) stays what it is."""
    low, high, low_from, high_from = bound.low, bound.high, bound.low_from, bound.high_from
    if constraint.low > low:
        low, low_from = float(constraint.low), "constraint"
    if constraint.high < high:
        high, high_from = float(constraint.high), "constraint"
    narrowed = Bound(bound.name, low, high, low_from, high_from)
    if low > high:
        raise InfeasibleError(
            f"no recipe is feasible: {narrowed.low_text} and {narrowed.high_text} exclude each other"
        )
    return narrowed


def _check_budget(cost: Cost, runs: Runs, bounds: Mapping[str, Bound]) -> None:
    """Raise RecipeError where a cost falls within the bounds on N and D, lifted ones taken at FAR times the runs'."""
    if cost.function is six_nd().function:
        return
    of_runs = {"params": runs["params"], "tokens": runs.tokens}
    ends = []
    for name, values in of_runs.items():
        low = max(bounds[name].low, float(values.min()) / FAR)
        ends.append((low, max(low, min(bounds[name].high, float(values.max()) * FAR))))
    check_increases(cost, *ends)


def _known() -> str:
    return ", ".join(f"{name} ({letter})" for name, letter in LETTERS.items())


def _by_name(given: Mapping[str, Any]) -> dict[str, Any]:
    """Keys as column names, whether given as names or as letters."""
    names = {letter: name for name, letter in LETTERS.items()}
    result: dict[str, Any] = {}
    for key, value in given.items():
        name = names.get(key, key)
        if name in result:
            raise RecipeError(f"{name} is given twice, as {name} and as {LETTERS[name]}")
        result[name] = value
    return result


def _check_names(bounds: Mapping, freeze: Mapping, extra: Iterable[str], law: Law) -> None:
    known = _known()
    for name in bounds:
        if name not in LETTERS:
            raise RecipeError(f"no variable {name!r} can be bounded; these can: {known}")
    needed = [column for column in law.columns if column not in (*RECIPE_COLUMNS, "first_ratio")]
    for name in extra:
        if name not in needed:
            also = f" and, for this law, {', '.join(needed)}" if needed else ""
            raise RecipeError(f"no variable {name!r} can be frozen; these can: {known}, first_ratio{also}")
    for name in needed:
        if name not in extra:
            raise RecipeError(
                f"law {law.name} reads column {name}; give its value as freeze={{{name!r}: value}}"
            )
    for name, value in freeze.items():
        if not math.isfinite(value):
            raise RecipeError(f"{name} is frozen at {value}; expected a finite number")
    if not 0 <= freeze.get("first_ratio", 0) < 1:
        raise RecipeError(
            f"first_ratio is frozen at {freeze['first_ratio']:g}; expected a ratio from 0 to below 1"
        )


def _positive(name: str, value: Number, unit: str) -> None:
    if not 0 < value < math.inf:
        raise RecipeError(f"{name} is {value}; expected a positive number of {unit}")


def _outside_the_runs(runs: Runs, compute: float, target_tokens: float, runs_compute: float) -> list[Note]:
    notes = []
    U = runs["target_tokens"]
    if not U.min() * (1 - 1e-9) <= target_tokens <= U.max() * (1 + 1e-9):
        notes.append(
            Note(
                "EXTRAPOLATION",
                f"target_tokens {target_tokens:.4g} is outside the runs' {U.min():.4g} to {U.max():.4g}",
                ("target_tokens",),
            )
        )
    times = compute / runs_compute
    if times > 30:
        said = f"compute is {times:.3g} times the largest run's; beyond 30 times the law is mostly guessing"
        notes.append(Note("BEYOND_30X", said, ("compute",)))
    elif times > 1.005:  # 6ND of a run's rounded recipe is not the round number asked for
        notes.append(Note("EXTRAPOLATION", f"compute is {times:.3g} times the largest run's", ("compute",)))
    return notes
