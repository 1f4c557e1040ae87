"""Recipes, the four variables of a training run, and the schedules of stages that carry them out.

| symbol | name | unit |
|---|---|---|
| N | params | the table's unit of parameters |
| U | target_tokens, unique tokens of the target text | the table's unit of tokens |
| k | epochs over U, all stages together | - |
| r | target_ratio, target tokens seen / all tokens seen | - |
| r_f | final_ratio, the ratio in the last stage | - |
| r_1 | first_ratio, the ratio before the last stage | - |
| T = k U, D = T / r, S = D - T | target tokens seen, all tokens, source tokens | the table's unit of tokens |

A recipe has one stage where r_f = r. Elsewhere it has two: D (r - r_1) / (r_f - r_1) tokens at r_f come last,
the others at r_1 before them, r_1 being 0 where nothing else is said. A schedule may have any number of
stages; many schedules have one recipe, and recipe -> schedule -> recipe gives the same numbers bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from m3bayes.errors import RecipeError
from m3bayes.table_cells import as_number, numbers, numbers_or_labels, show
from m3bayes.table_checks import (
    REQUIRED,
    VARIABLES,
    Place,
    cells_by_column,
    check_readable,
    check_recipe_columns,
    place_in_frame,
    refuse,
    same_ratio,
)

if TYPE_CHECKING:
    from m3bayes.runs import Runs

Number = float | int


@dataclass(frozen=True)
class Recipe:
    """What to train. N > 0, U > 0, k > 0 (below 1: part of the target text), 0 < r <= 1, 0 < r_f <= 1.

    ``first_ratio`` is needed where r_f < r; where r_f > r it is 0 unless given; at one stage it is None,
    whatever was given. ``extra`` holds further named numbers that a law may read (several sources, say).
    Raises RecipeError naming the field.
    """

    params: Number
    target_tokens: Number
    epochs: Number
    target_ratio: Number = 1.0
    final_ratio: Number = 1.0
    first_ratio: Number | None = None
    extra: Mapping[str, Number] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        values = {name: _number("recipe", name, getattr(self, name)) for name in REQUIRED}
        first = math.nan if self.first_ratio is None else _number("recipe", "first_ratio", self.first_ratio)
        as_columns = {name: np.array([value]) for name, value in (*values.items(), ("first_ratio", first))}
        check_recipe_columns(as_columns, lambda _, name: f"recipe: {name}", RecipeError)
        if same_ratio(values["target_ratio"], values["final_ratio"]):
            values["final_ratio"] = values["target_ratio"]
            stages_before = None
        else:
            stages_before = 0.0 if math.isnan(first) else first
        for name, value in values.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "first_ratio", stages_before)
        object.__setattr__(self, "extra", _extra("recipe", self.extra))

    @property
    def target_tokens_seen(self) -> float:
        """T = k U."""
        return self.epochs * self.target_tokens

    @property
    def tokens(self) -> float:
        """D = T / r."""
        return self.target_tokens_seen / self.target_ratio

    @property
    def source_tokens(self) -> float:
        """S = D - T, exactly 0 at r = 1."""
        return self.target_tokens_seen * (1 - self.target_ratio) / self.target_ratio

    @property
    def last_stage_share(self) -> float:
        """Tokens of the last stage / all tokens: (r - r_1) / (r_f - r_1), 1 at one stage."""
        if self.first_ratio is None:
            return 1.0
        return (self.target_ratio - self.first_ratio) / (self.final_ratio - self.first_ratio)


@dataclass(frozen=True)
class Stage:
    """``tokens`` > 0 of all text (the table's unit), a share ``target_ratio`` in [0, 1] of them target text.

    ``remainder`` is what rounding to a float took off ``tokens``: less than a token in a table in tokens,
    kept so that a schedule gives back its recipe exactly. Leave it out.
    """

    tokens: Number
    target_ratio: Number
    remainder: float = field(default=0.0, repr=False, compare=False)

    def __post_init__(self) -> None:
        tokens = _number("stage", "tokens", self.tokens)
        ratio = _number("stage", "target_ratio", self.target_ratio)
        if not (math.isfinite(tokens) and tokens > 0):
            raise RecipeError(f"stage: tokens: {show(tokens)}, expected a finite number above 0")
        if not 0 <= ratio <= 1:
            raise RecipeError(f"stage: target_ratio: {show(ratio)}, expected a ratio from 0 to 1")
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "target_ratio", ratio)


@dataclass(frozen=True)
class Schedule:
    """The stages of one training run, in order; the last one, and so the run, must hold target text."""

    params: Number
    target_tokens: Number
    stages: Sequence[Stage]
    extra: Mapping[str, Number] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("params", "target_tokens"):
            value = _number("schedule", name, getattr(self, name))
            if not (math.isfinite(value) and value > 0):
                raise RecipeError(f"schedule: {name}: {show(value)}, expected a finite number above 0")
            object.__setattr__(self, name, value)
        if not self.stages:
            raise RecipeError("schedule: stages: none, expected at least one Stage")
        if self.stages[-1].target_ratio == 0:
            raise RecipeError(
                "schedule: stages: the last one has target_ratio 0, expected a ratio above 0; "
                "recipes that end without target text are outside the laws"
            )
        object.__setattr__(self, "stages", tuple(self.stages))
        object.__setattr__(self, "extra", _extra("schedule", self.extra))

    @property
    def tokens(self) -> float:
        """D, all tokens of all stages."""
        return math.fsum(stage.tokens for stage in self.stages)


def schedule(recipe: Recipe) -> Schedule:
    """The stages of a recipe: one where r_f = r, two elsewhere."""
    k, U, r, r_f = map(
        Fraction, (recipe.epochs, recipe.target_tokens, recipe.target_ratio, recipe.final_ratio)
    )
    D = k * U / r
    if recipe.first_ratio is None:
        stages = (_stage(D, recipe.target_ratio),)
    else:
        r_1 = Fraction(recipe.first_ratio)
        last = D * (r - r_1) / (r_f - r_1)
        stages = (_stage(D - last, recipe.first_ratio), _stage(last, recipe.final_ratio))
    return Schedule(recipe.params, recipe.target_tokens, stages, recipe.extra)


def recipe(schedule: Schedule) -> Recipe:
    """The recipe of a schedule of any number of stages.

    k = target tokens / U, r = target tokens / all tokens, r_f = the last stage's ratio, and r_1 = the average
    ratio of everything before the last stage.
    """
    *before, last = schedule.stages
    D_1, T_1 = _tokens(before)
    D_f, T_f = _tokens([last])
    r = float((T_1 + T_f) / (D_1 + D_f))
    return Recipe(
        params=schedule.params,
        target_tokens=schedule.target_tokens,
        epochs=float((T_1 + T_f) / Fraction(schedule.target_tokens)),
        target_ratio=r,
        final_ratio=last.target_ratio,
        first_ratio=None if same_ratio(r, last.target_ratio) else float(T_1 / D_1),
        extra=schedule.extra,
    )


def _stage(tokens: Fraction, ratio: float) -> Stage:
    # Two floats hold the count to 106 bits, so that sums and ratios of stages round back to the recipe's own.
    try:
        rounded = float(tokens)
    except OverflowError:
        rounded = math.inf
    return Stage(rounded, ratio, float(tokens - Fraction(rounded)) if math.isfinite(rounded) else 0.0)


def _tokens(stages: Sequence[Stage]) -> tuple[Fraction, Fraction]:
    """All tokens and target tokens of some stages, exactly."""
    counts = [Fraction(stage.tokens) + Fraction(stage.remainder) for stage in stages]
    target = (count * Fraction(stage.target_ratio) for count, stage in zip(counts, stages, strict=True))
    return sum(counts, Fraction(0)), sum(target, Fraction(0))


def _number(what: str, name: str, value: object) -> float:
    number = as_number(value)
    if math.isnan(number):
        raise RecipeError(f"{what}: {name}: {show(value)}, expected a number")
    return number


def _extra(what: str, extra: Mapping[str, Number]) -> dict[str, float]:
    taken = [name for name in extra if name in VARIABLES]
    if taken:
        raise RecipeError(f"{what}: extra: {taken[0]} is a variable of its own, expected other names")
    return {str(name): _number(what, name, value) for name, value in extra.items()}


def recipe_columns(
    recipes: Recipe | Schedule | Sequence[Recipe | Schedule] | pd.DataFrame | Runs | Mapping[str, object],
    columns: Sequence[str] = (),
) -> dict[str, Float[np.ndarray, " recipe"]]:
    """Recipes as columns: the five variables, ``first_ratio`` (NaN = none stated), all other numeric columns.

    A mapping or frame needs ``params``, ``target_tokens`` and ``epochs``; the two ratios are 1 where both are
    absent. ``columns`` are further ones that must be there, without blanks (a law's own). Raises
    RecipeError naming row and column.
    """
    from m3bayes.runs import Runs  # here, since runs.py reads schedules

    if isinstance(recipes, Runs):
        frame = recipes.frame()
    elif isinstance(recipes, pd.DataFrame):
        frame = recipes
    elif isinstance(recipes, Mapping):
        frame = _frame_of_mapping(recipes)
    else:
        frame = _frame_of_recipes([recipes] if isinstance(recipes, Recipe | Schedule) else recipes)
    cells = cells_by_column(frame, REQUIRED, "recipes", RecipeError)
    place = place_in_frame(frame, "recipes")
    result = {name: numbers(cells[name]) for name in VARIABLES if name in cells}
    for name, values in result.items():
        check_readable(cells[name], values, place, RecipeError)
    result.setdefault("first_ratio", np.full(len(frame), np.nan))
    check_recipe_columns(result, place, RecipeError)
    others = {name: numbers_or_labels(column) for name, column in cells.items() if name not in VARIABLES}
    for name in columns:
        if name not in VARIABLES:
            others[name] = _complete_column(name, cells, place)
    return result | {name: values for name, values in others.items() if values.dtype == np.float64}


def _complete_column(name: str, cells: Mapping[str, pd.Series], place: Place) -> np.ndarray:
    if name not in cells:
        raise RecipeError(f"recipes: column {name} missing, expected since the law reads it; add it")
    values = numbers(cells[name])
    check_readable(cells[name], values, place, RecipeError)
    refuse(~np.isfinite(values), values, name, "a finite number", place, RecipeError)
    return values


def _frame_of_mapping(recipes: Mapping[str, object]) -> pd.DataFrame:
    cells = {str(name): np.atleast_1d(np.asarray(values)) for name, values in recipes.items()}
    for name, values in cells.items():
        if values.ndim > 1:
            raise RecipeError(f"recipes: column {name} has shape {values.shape}, expected one value a recipe")
    lengths = {name: len(values) for name, values in cells.items() if len(values) != 1}
    if len(set(lengths.values())) > 1:
        stated = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise RecipeError(
            f"recipes: columns of unlike length ({stated}), expected one length or single values"
        )
    length = next(iter(lengths.values()), 1)
    return pd.DataFrame({name: np.broadcast_to(values, length) for name, values in cells.items()})


def _frame_of_recipes(recipes: Sequence[Recipe | Schedule]) -> pd.DataFrame:
    rows = [recipe(item) if isinstance(item, Schedule) else item for item in recipes]
    if not rows:
        raise RecipeError("recipes: none given, expected at least one")
    for position, row in enumerate(rows):
        if not isinstance(row, Recipe):
            raise RecipeError(f"recipes: item {position + 1} is {show(row)}, expected a Recipe or a Schedule")
    named = [{name: getattr(row, name) for name in VARIABLES} | dict(row.extra) for row in rows]
    return pd.DataFrame(named, dtype=np.float64)
