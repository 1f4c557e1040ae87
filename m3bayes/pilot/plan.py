"""Plans: which runs to train, one a row, in the order of execution.

| column | meaning |
|---|---|
| run, block, language | a name of its own, what the run is for, which target corpus |
| params, target_tokens, epochs, target_ratio, final_ratio, first_ratio | the recipe, as in m3bayes.recipe |
| subset | seed of the choice of target_tokens from the corpus |
| seed | seed of weights and order |
| lr, weight_decay, decay | optional; blank = the trainer's rule. decay is linear or cosine |
| <source>_tokens | for several sources: source tokens seen of each, together k U (1 - r) / r; blank is 0 |
| checkpoint | optional: the run whose trained model this one goes on from; blank is from scratch |

Blocks: ``sobol`` spreads over everything, ``epochs`` varies k at equal FLOP, ``ratio`` varies r at fixed N
and D, ``first_stage`` is pairs that differ in first_ratio alone, ``replicates`` repeats recipes of ``sobol``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from m3bayes.errors import RecipeError, RunTableError
from m3bayes.pilot.designs import Limits, PlannedRun, designed_runs, interleave
from m3bayes.pilot.model import SHAPES, Shape
from m3bayes.pilot.sobol import sobol_block
from m3bayes.recipe import Number
from m3bayes.table_cells import labels, numbers, numbers_or_labels
from m3bayes.table_checks import (
    REQUIRED,
    VARIABLES,
    Place,
    cells_by_column,
    check_readable,
    check_recipe_columns,
    check_run_names,
    place_in_frame,
    refuse,
)
from m3bayes.table_file import read_table

COLUMNS = ("run", "block", "language", *VARIABLES, "subset", "seed")
NAMES = ("run", "block", "language")
SEEDS = ("subset", "seed")
WHOLE = ("params", "target_tokens", *SEEDS)
DECAYS = ("linear", "cosine")
NO_SOURCES = ("target_tokens", "first_stage_tokens", "last_stage_tokens")
REPLICATES = 10
LARGEST_SEED = 2**31 - 1

_OF_A_PLAN = 10_000  # seeds of runs that belong to one seed of a plan


# ---- read --------------------------------------------------------------------------------------


def read_plan(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The plan in a CSV or parquet file. Raises RunTableError naming row, line, column and value."""
    return plan_from_frame(read_table(path), Path(path).name)


def plan_from_frame(frame: pd.DataFrame, name: str = "plan") -> pd.DataFrame:
    """A plan with its columns checked and typed: counts and seeds int64, numbers float64, else text."""
    cells = cells_by_column(frame, (*NAMES, *REQUIRED, *SEEDS), name, RunTableError)
    place = place_in_frame(frame, name)
    cells.setdefault("first_ratio", pd.Series(np.nan, index=frame.index, name="first_ratio"))
    order = [*COLUMNS, *(column for column in cells if column not in COLUMNS)]
    columns = {column: _column(column, cells[column], place) for column in order}
    check_recipe_columns(columns, place, RunTableError)
    _check_names(columns, place)
    _check_counts(columns, place)
    _check_settings(columns, place)
    for column in WHOLE:
        columns[column] = columns[column].astype(np.int64)
    return pd.DataFrame({column: _as_text_or_numbers(values) for column, values in columns.items()})


def _column(name: str, cells: pd.Series, place: Place) -> np.ndarray:
    if name in (*NAMES, "decay", "checkpoint"):
        return labels(cells)
    if name not in (*VARIABLES, *SEEDS, "lr", "weight_decay", *source_columns([name])):
        return numbers_or_labels(cells)
    values = numbers(cells)
    check_readable(cells, values, place, RunTableError)
    return values


def source_columns(columns: Iterable[str]) -> list[str]:
    """Those that say how much to read of a source, <source>_tokens; a table of runs has others of that ending."""
    return [
        name
        for name in columns
        if name.endswith("_tokens") and name not in NO_SOURCES and not name.endswith("_unique_tokens")
    ]


def _as_text_or_numbers(values: np.ndarray) -> pd.Series:
    return pd.Series(values, dtype="str" if values.dtype == object else values.dtype)


def _check_names(columns: Mapping[str, np.ndarray], place: Place) -> None:
    for column in NAMES:
        blank = np.array([not value for value in columns[column]])
        refuse(blank, columns, column, "a name", place, RunTableError)
    check_run_names(columns, place)


def _check_counts(columns: Mapping[str, np.ndarray], place: Place) -> None:
    sizes = [shape.params for shape in SHAPES]
    refuse(
        ~np.isin(columns["params"], sizes), columns, "params",
        f"the parameters of a shape: {', '.join(map(str, sizes))}", place, RunTableError,
    )  # fmt: skip
    U = columns["target_tokens"]
    refuse(np.floor(U) != U, U, "target_tokens", "a whole number of tokens", place, RunTableError)
    for column in SEEDS:
        seed = columns[column]
        good = (seed >= 0) & (seed <= LARGEST_SEED) & (seed == np.floor(seed))
        refuse(~good, seed, column, f"a whole number from 0 to {LARGEST_SEED}", place, RunTableError)


def _check_settings(columns: Mapping[str, np.ndarray], place: Place) -> None:
    blank = np.full(len(columns["run"]), np.nan)
    lr, weight_decay = columns.get("lr", blank), columns.get("weight_decay", blank)
    good = np.isnan(lr) | (np.isfinite(lr) & (lr > 0))
    refuse(~good, lr, "lr", "a finite number above 0, or blank", place, RunTableError)
    good = np.isnan(weight_decay) | (np.isfinite(weight_decay) & (weight_decay >= 0))
    refuse(
        ~good, weight_decay, "weight_decay", "a finite number of 0 or more, or blank", place, RunTableError
    )
    for column in source_columns(columns):
        tokens = columns[column]
        good = np.isnan(tokens) | (np.isfinite(tokens) & (tokens >= 0))
        refuse(~good, tokens, column, "a finite number of tokens, 0 or more, or blank", place, RunTableError)
    odd = np.array([value not in ("", *DECAYS) for value in columns.get("decay", ())], dtype=bool)
    refuse(odd, columns, "decay", f"{' or '.join(DECAYS)}, or blank", place, RunTableError)


# ---- generate ----------------------------------------------------------------------------------


def generate_plan(
    languages: Sequence[str],
    *,
    source_tokens: Number,
    shapes: Sequence[Shape] = SHAPES,
    target_tokens: Sequence[Number] = (5e4, 2e5, 8e5),
    compute: tuple[Number, Number] = (1e10, 4e12),
    budgets: Sequence[Number] = (6e10, 2.5e11),
    scarcities: Sequence[Number] = (2e4, 8e4, 3.2e5, 1.28e6),
    seeds: int = 3,
    sobol: int = 64,
    min_tokens: Number = 65_536,
    max_tokens: Number = 8_000_000,
    seed: int = 0,
) -> pd.DataFrame:
    """A plan for each of ``languages``, of which any prefix is a small version of the whole.

    ``source_tokens``  of source text at hand; ``min_tokens``, ``max_tokens``  of all text in any run
    ``target_tokens``  U of the Sobol block lies between the least and the most of these; the ratio and
                       first_stage blocks take theirs from them
    ``compute``        6ND of the Sobol block, least and most
    ``budgets``        6ND of the epochs block, each with each of ``scarcities``, its U, and ``seeds`` times
    ``sobol``          recipes of the Sobol block in a language
    ``seed``           of the Sobol sequences, the order, and the seeds of the runs

    Designed recipes are the same in every language, those of the Sobol block differ. Languages take turns.
    The first run of every designed recipe comes before any second one. Raises RecipeError.
    """
    _check_languages(languages)
    _check_counted({"seeds": (seeds, 1, 100), "sobol": (sobol, 0, 4000), "seed": (seed, 0, 100_000)})
    _check_amounts(
        {
            "source_tokens": [source_tokens],
            "target_tokens": target_tokens,
            "compute": compute,
            "budgets": budgets,
            "scarcities": scarcities,
            "min_tokens, max_tokens": (min_tokens, max_tokens),
        }
    )
    limits = Limits((min_tokens, max_tokens), source_tokens)
    spread = Limits((min_tokens, max_tokens), source_tokens, compute)
    generator = np.random.default_rng(seed)
    designed = designed_runs(budgets, scarcities, target_tokens, shapes, limits, seeds, generator)
    turns = []
    for language in languages:
        sampled = interleave(list(sobol_block(language, sobol, shapes, target_tokens, spread, seed).values()))
        rows = [PlannedRun("sobol", recipe, seeds + i) for i, recipe in enumerate(sampled)]
        again = [PlannedRun("replicates", row.recipe, row.draw + sobol) for row in rows[:REPLICATES]]
        turns.append(_cells(interleave([designed, rows, again]), language, seed))
    cells = [row for turn in zip(*turns, strict=True) for row in turn]
    return plan_from_frame(pd.DataFrame(cells, columns=list(COLUMNS)))


def _cells(runs: Sequence[PlannedRun], language: str, seed: int) -> list[tuple]:
    """The runs of a language as rows, numbered within their blocks."""
    numbers_of: dict[str, int] = {}
    rows = []
    for run in runs:
        number = numbers_of[run.block] = numbers_of.get(run.block, 0) + 1
        draw = seed * _OF_A_PLAN + run.draw
        recipe = [getattr(run.recipe, name) for name in VARIABLES]
        rows.append((f"{language}-{run.block}-{number:03d}", run.block, language, *recipe, draw, draw))
    return rows


def _check_languages(languages: Sequence[str]) -> None:
    names = [] if isinstance(languages, str) else list(languages)
    if not names or not all(names) or len(set(names)) < len(names):
        raise RecipeError(
            f"plan: languages: {languages!r}, expected one or more names, each once, such as ['de', 'ja']"
        )


def _check_counted(given: Mapping[str, tuple[object, int, int]]) -> None:
    for name, (value, least, most) in given.items():
        if not (isinstance(value, int) and least <= value <= most):
            raise RecipeError(f"plan: {name}: {value}, expected a whole number from {least} to {most}")


def _check_amounts(given: Mapping[str, Sequence[Number]]) -> None:
    for name, values in given.items():
        if not (len(values) and all(0 < value < np.inf for value in values)):
            raise RecipeError(f"plan: {name}: {list(values)}, expected finite numbers above 0")
        if name in ("compute", "min_tokens, max_tokens") and not values[0] < values[1]:
            raise RecipeError(f"plan: {name}: {list(values)}, expected the least first, then the most")


# ---- cost --------------------------------------------------------------------------------------


def plan_cost(plan: pd.DataFrame, *, context: int = 64, vocabulary: int = 256) -> pd.DataFrame:
    """What each run takes: ``tokens`` D, ``compute`` 6ND, and ``flops``, head and attention counted too."""
    shapes = {shape.params: shape for shape in SHAPES}
    tokens = plan["epochs"] * plan["target_tokens"] / plan["target_ratio"]
    flops = [
        shapes[int(N)].flops(float(D), context, vocabulary)
        for N, D in zip(plan["params"], tokens, strict=True)
    ]
    return plan[list(NAMES)].assign(tokens=tokens, compute=6.0 * plan["params"] * tokens, flops=flops)
