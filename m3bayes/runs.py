"""Runs: the validated, immutable table of training runs that everything else starts from.

| symbol | column | unit |
|---|---|---|
| N | params, model parameters | ``unit_params`` parameters |
| U | target_tokens, unique tokens of the target text | ``unit_tokens`` tokens |
| k | epochs over U | - |
| r | target_ratio, target tokens seen / all tokens seen | - |
| r_f | final_ratio, the ratio in the last stage | - |
| r_1 | first_ratio, the ratio before the last stage; blank = 0 | - |
| L | loss, of held-out target text | any, one for all runs |
| T = k U, D = T / r, S = D - T | derived: target tokens seen, all tokens, source tokens | as U |
| C = 6 N D | derived: compute | FLOP |

``target_ratio`` and ``final_ratio`` are 1 where a table has neither. Optional: ``run``, ``language``,
``source`` (text), ``first_ratio``, ``loss_se``, ``weight`` (blank = 1), ``tokens`` (checked against D),
``flops``, ``lr``, ``weight_decay``. Other columns are carried along, as float64 where all their cells are
numbers, else as text.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from m3bayes.errors import Note, RunTableError
from m3bayes.row_filter import rows_where
from m3bayes.table_cells import labels, numbers, numbers_or_labels
from m3bayes.table_checks import (
    LABELS,
    NUMERIC,
    REQUIRED,
    Place,
    cells_by_column,
    check_measurements,
    check_readable,
    check_recipe_columns,
    check_run_names,
    last_stage_share,
    place_in_frame,
    refuse,
    table_notes,
)
from m3bayes.table_file import read_table

if TYPE_CHECKING:
    from m3bayes.recipe import Schedule

Number = float | int


@dataclass(frozen=True, eq=False, repr=False)
class Runs:
    """A table of training runs, one a row. Make one with :func:`read_runs` or :func:`runs_from_frame`.

    ``columns``      {name: (run,)} in the table's units, read-only, numbers as float64; ``params``,
                     ``target_tokens``, ``epochs``, ``target_ratio``, ``final_ratio``, ``loss`` always there
    ``unit_params``  how many parameters one unit of ``params`` is; ``unit_tokens`` likewise
    ``notes``        what is legal but worth knowing
    ``name``         of the file it came from, for messages

    Raises RunTableError naming row, column, value and what was expected.
    """

    columns: Mapping[str, np.ndarray]
    unit_params: Number = 1.0
    unit_tokens: Number = 1.0
    notes: tuple[Note, ...] = ()
    name: str = "table"

    def __post_init__(self) -> None:
        for unit in ("unit_params", "unit_tokens"):
            value = float(getattr(self, unit))
            if not (np.isfinite(value) and value > 0):
                raise RunTableError(f"{self.name}: {unit} is {value:g}, expected a finite number above 0")
            object.__setattr__(self, unit, value)
        missing = [column for column in (*REQUIRED, "loss") if column not in self.columns]
        if missing:
            raise RunTableError(f"{self.name}: column {missing[0]} missing; it has {', '.join(self.columns)}")
        frozen = {str(name): _read_only(name, values) for name, values in self.columns.items()}
        lengths = {len(values) for values in frozen.values()}
        if len(lengths) > 1 or lengths == {0}:
            raise RunTableError(
                f"{self.name}: columns of {sorted(lengths)} rows, expected one length above 0"
            )
        _check_values(frozen, lambda row, column: f"{self.name}: row {row + 1}, column {column}")
        object.__setattr__(self, "columns", MappingProxyType(frozen))
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            countable = np.isfinite(self.compute) & (self.compute > 0)
        if not countable.all():
            row = int(np.argmin(countable))
            raise RunTableError(
                f"{self.name}: row {row + 1}, column params: {frozen['params'][row]:g}, expected units of which "
                f"floating point can hold 6 N D: unit_params is {self.unit_params:g}, unit_tokens {self.unit_tokens:g}"
            )

    def __len__(self) -> int:
        return len(self.columns["loss"])

    def __getitem__(self, column: str) -> np.ndarray:
        if column not in self.columns:
            raise RunTableError(f"{self.name} has no column {column!r}; it has {', '.join(self.columns)}")
        return self.columns[column]

    def __repr__(self) -> str:
        return f"Runs({self.name}: {len(self)} runs of {', '.join(self.columns)})"

    @property
    def names(self) -> tuple[str, ...]:
        """The column ``run``; "row 1", "row 2", ... where that is blank or absent."""
        given = self.columns.get("run", [""] * len(self))
        return tuple(str(name) or f"row {row + 1}" for row, name in enumerate(given))

    @property
    def target_tokens_seen(self) -> Float[np.ndarray, " run"]:
        """T = k U."""
        return self["epochs"] * self["target_tokens"]

    @property
    def tokens(self) -> Float[np.ndarray, " run"]:
        """D = T / r."""
        return self.target_tokens_seen / self["target_ratio"]

    @property
    def source_tokens(self) -> Float[np.ndarray, " run"]:
        """S = D - T, exactly 0 at r = 1."""
        return self.target_tokens_seen * (1 - self["target_ratio"]) / self["target_ratio"]

    @property
    def compute(self) -> Float[np.ndarray, " run"]:
        """C = 6 N D in FLOP."""
        return 6.0 * (self["params"] * self.unit_params) * (self.tokens * self.unit_tokens)

    @property
    def last_stage_share(self) -> Float[np.ndarray, " run"]:
        """Tokens of the last stage / all tokens: (r - r_1) / (r_f - r_1), 1 at one stage."""
        return last_stage_share(self["target_ratio"], self["final_ratio"], _first_ratio(self.columns))

    def frame(self) -> pd.DataFrame:
        """The columns as a DataFrame of its own."""
        return pd.DataFrame({name: values.copy() for name, values in self.columns.items()})

    def select(
        self, rows: Bool[np.ndarray, " run"] | Int[np.ndarray, " chosen"] | Sequence[int] | slice
    ) -> Runs:
        """The runs of a mask, of indices (repeated ones too) or of a slice, in that order."""
        wanted = rows if isinstance(rows, slice) else np.asarray(rows)
        if isinstance(wanted, np.ndarray) and wanted.size == 0:
            wanted = wanted.astype(int)
        try:
            columns = {name: values[wanted] for name, values in self.columns.items()}
        except IndexError:
            raise RunTableError(f"{self.name}: rows to select do not fit its {len(self)} runs") from None
        if not len(columns["loss"]):
            raise RunTableError(f"{self.name}: no run selected, expected at least one")
        notes = table_notes(columns, self.unit_params, self.unit_tokens)
        return Runs(columns, self.unit_params, self.unit_tokens, notes, self.name)

    def where(self, expression: str) -> Runs:
        """The runs for which ``expression`` holds, such as ``"loss < 4.5 and epochs <= 60"``."""
        return self.select(rows_where(self.columns, expression, self.name))

    def fingerprint(self) -> str:
        """SHA-256 of all columns and both units; neither the name nor the order of the columns counts."""
        digest = hashlib.sha256(repr((self.unit_params, self.unit_tokens, len(self))).encode())
        for name in sorted(self.columns):
            values = self.columns[name]
            digest.update(f"\n{name!r} {values.dtype.kind}\n".encode())
            if values.dtype == np.float64:
                # one NaN, one zero, one byte order
                plain = np.where(np.isnan(values), np.nan, values + 0.0)
                digest.update(plain.astype("<f8").tobytes())
            else:
                digest.update(repr([str(value) for value in values]).encode())
        return digest.hexdigest()


def read_runs(
    path: str | os.PathLike[str],
    *,
    where: str | None = None,
    unit_params: Number = 1.0,
    unit_tokens: Number = 1.0,
) -> Runs:
    """Read a table of runs from a CSV or parquet file.

    ``where`` keeps the rows for which it holds, such as ``"in_authors_fit == 1"``; the others need not be
    valid. Raises RunTableError naming row, line in the file, column, value and what was expected.
    """
    return runs_from_frame(
        read_table(path), where=where, unit_params=unit_params, unit_tokens=unit_tokens, name=Path(path).name
    )


def runs_from_frame(
    frame: pd.DataFrame,
    *,
    where: str | None = None,
    unit_params: Number = 1.0,
    unit_tokens: Number = 1.0,
    name: str = "table",
) -> Runs:
    """The runs of a DataFrame, one a row; as :func:`read_runs` otherwise."""
    cells = cells_by_column(frame, (*REQUIRED, "loss"), name, RunTableError)
    place = place_in_frame(frame, name)
    columns = {column: _column(column, values) for column, values in cells.items()}
    if where is not None:
        kept = np.flatnonzero(rows_where(columns, where, name))
        columns = {column: values[kept] for column, values in columns.items()}
        cells = {column: values.iloc[kept] for column, values in cells.items()}
        place = _of_kept(place, kept)
    for column in NUMERIC:
        if column in columns:
            check_readable(cells[column], columns[column], place, RunTableError)
    if "weight" in columns:
        columns["weight"] = np.where(np.isnan(columns["weight"]), 1.0, columns["weight"])
    _check_values(columns, place)
    check_run_names(columns, place)
    runs = Runs(columns, unit_params, unit_tokens, name=name)
    return replace(runs, notes=table_notes(runs.columns, runs.unit_params, runs.unit_tokens))


def runs_from_stages(
    schedules: Sequence[Schedule],
    loss: Sequence[Number] | np.ndarray,
    *,
    unit_params: Number = 1.0,
    unit_tokens: Number = 1.0,
    name: str = "table",
    **columns: Sequence[object] | np.ndarray,
) -> Runs:
    """Runs from what was trained, stage by stage, and the ``loss`` of each.

    ``columns`` are further columns (``run=``, ``language=``, ...). Where one states what a schedule says too
    (``target_ratio=``, ...), it must agree with it to 1e-6. Raises RunTableError or RecipeError.
    """
    from m3bayes.recipe import recipe_columns  # here, since recipe.py reads Runs

    given = {"loss": loss, **columns}
    for column, values in given.items():
        if len(values) != len(schedules):
            raise RunTableError(
                f"{name}: {len(values)} values of {column} for {len(schedules)} schedules, expected one each"
            )
    derived = recipe_columns(schedules)
    frame = pd.DataFrame({column: list(values) for column, values in given.items()})
    place = place_in_frame(frame, name)
    for column in derived.keys() & given.keys():
        stated, said = numbers(pd.Series(list(given[column]))), derived[column]
        refuse(
            ~np.isclose(stated, said, rtol=1e-6, atol=0.0, equal_nan=True), stated, column,
            lambda i, said=said: f"{said[i]:.9g} as in its schedule; leave the column out",
            place, RunTableError,
        )  # fmt: skip
    return runs_from_frame(
        frame.assign(**derived), unit_params=unit_params, unit_tokens=unit_tokens, name=name
    )


def _column(name: str, cells: pd.Series) -> np.ndarray:
    if name in NUMERIC:
        return numbers(cells)
    return labels(cells) if name in LABELS else numbers_or_labels(cells)


def _of_kept(place: Place, kept: np.ndarray) -> Place:
    return lambda row, column: place(int(kept[row]), column)


def _check_values(columns: Mapping[str, np.ndarray], place: Place) -> None:
    check_recipe_columns(columns, place, RunTableError)
    check_measurements(columns, place)


def _first_ratio(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    return columns.get("first_ratio", np.full(len(columns["loss"]), np.nan))


def _read_only(name: str, values: np.ndarray) -> np.ndarray:
    numeric = np.issubdtype(values.dtype, np.number) or values.dtype == bool
    if name in NUMERIC and not numeric:
        raise RunTableError(f"column {name} holds {values.dtype}, expected numbers; use runs_from_frame")
    if values.ndim != 1:
        raise RunTableError(f"column {name} has shape {values.shape}, expected one value a run")
    copy = np.array(values, dtype=np.float64 if numeric else object)
    copy.setflags(write=False)
    return copy
