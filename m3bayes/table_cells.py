"""Cells of a table: blank, a number, a label, or something else, and how to mend that."""

from __future__ import annotations

import datetime
import math
import re

import numpy as np
import pandas as pd
from jaxtyping import Float

_BLANKS = frozenset({"", "nan", "na", "n/a", "#n/a", "null", "none", "<na>", "nat", "-"})
LONGEST_MENDED = 40  # characters: no number is written with more
_MULTIPLES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


def is_blank(cell: object) -> bool:
    if isinstance(cell, str):
        return cell.strip().lower() in _BLANKS
    return bool(pd.api.types.is_scalar(cell) and pd.isna(cell))  # pyright: ignore[reportGeneralTypeIssues]


def as_number(cell: object) -> float:
    """The number in one cell; NaN where it is blank or no plain number (``1_000``, ``True``, a date)."""
    if isinstance(cell, bool | np.bool_ | complex | datetime.date | np.datetime64 | np.timedelta64):
        return math.nan
    if isinstance(cell, str) and "_" in cell:  # Python reads 1_000, other tools do not
        return math.nan
    try:
        return float(cell)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def numbers(column: pd.Series) -> Float[np.ndarray, " row"]:
    """The column as float64, NaN where :func:`as_number` gives NaN."""
    plain = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if plain and not pd.api.types.is_complex_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.array([as_number(cell) for cell in column.to_numpy(dtype=object)], dtype=np.float64)


def labels(column: pd.Series) -> np.ndarray:
    """The column as text, "" where blank."""
    cells = [_label(cell) for cell in column.to_numpy(dtype=object)]
    return np.array([*cells, None], dtype=object)[:-1]  # a list of text alone may become fixed-width


def _label(cell: object) -> str:
    if isinstance(cell, str):
        return "" if cell.strip() == "" else cell.strip()
    return "" if is_blank(cell) else str(cell)


def numbers_or_labels(column: pd.Series) -> np.ndarray:
    """A column of unknown kind: float64 where all its cells are numbers, truth values or blank, else text."""
    cells = column.to_numpy(dtype=object)
    truth = {"true": 1.0, "false": 0.0}
    if all(is_blank(cell) or str(cell).strip().lower() in truth for cell in cells):
        return np.array([truth.get(str(cell).strip().lower(), math.nan) for cell in cells], dtype=np.float64)
    values = numbers(column)
    unread = (i for i in np.flatnonzero(np.isnan(values)) if not is_blank(cells[i]))
    return values if next(unread, None) is None else labels(column)


def show(cell: object) -> str:
    """A cell's value for a message, in one short piece."""
    if isinstance(cell, float | np.floating):
        return "blank or NaN" if math.isnan(cell) else f"{cell:.12g}"
    if is_blank(cell):
        return "blank" if cell is None or str(cell).strip() == "" else f"blank ({cell})"
    text = repr(cell) if isinstance(cell, str) else str(cell)
    text = text.replace("\n", " ")
    return text if len(text) <= 40 else text[:37] + "..."


def how_to_mend(cell: object) -> str:
    """How to write what ``cell`` probably means."""
    text = " ".join(str(cell).split())
    if len(text) > LONGEST_MENDED:
        return "leave the row out if it was not measured"
    if isinstance(cell, bool | np.bool_) or text.lower() in ("true", "false", "yes", "no"):
        return "this is a truth value"
    if isinstance(cell, datetime.date | np.datetime64) or re.fullmatch(
        r"\d{1,4}[-/]\d{1,2}([-/]\d.*)?", text
    ):
        return "this is a date, perhaps made of a number by a spreadsheet"
    if text.startswith("#"):
        return "this is a spreadsheet's error value"
    if text.startswith("="):
        return "this is a spreadsheet's formula; save its value"
    if re.fullmatch(r"[+-]?\d{1,3}([,_ '\u00a0\u202f]\d{3})+(\.\d*)?", text):
        return f"write it without separators, {re.sub(r'[^0-9.+-]', '', text)}"
    if "_" in text and not math.isnan(as_number(text.replace("_", ""))):
        return f"write it without underscores, {text.replace('_', '')}"
    if re.fullmatch(r"[+-]?\d+,\d+", text):
        return f"write it with a decimal point, {text.replace(',', '.')}"
    if percent := re.fullmatch(r"([+-]?\d+\.?\d*)\s*%", text):
        return f"write it as a fraction, {float(percent[1]) / 100:g}"
    if multiple := re.fullmatch(r"([+-]?\d+\.?\d*)\s*([kmbgt])", text.lower()):
        return f"write it out, {float(multiple[1]) * _MULTIPLES[multiple[2]]:g}"
    if power := re.fullmatch(r"(?:(\d+\.?\d*)\s*[*x\u00b7\u00d7]\s*)?10(?:\^|\*\*)([+-]?\d+)", text):
        return f"write it as {power[1] or 1}e{power[2]}"
    return "leave the row out if it was not measured"
