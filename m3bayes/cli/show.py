"""How results look: numbers, aligned tables, JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass

import numpy as np
from tqdm import tqdm

from m3bayes.errors import Note

ROWS_SHOWN = 40


def number(value: object, digits: int = 4) -> str:
    """``digits`` significant digits of a number; text and whole numbers below 1e5 as they are, NaN blank."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, int | float | np.integer | np.floating):
        return "" if value is None else str(value)
    if math.isnan(value):
        return ""
    if float(value).is_integer() and abs(value) < 1e5:
        return str(int(value))
    text = f"{value:.{digits}g}"
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if e else text


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], digits: int = 4) -> str:
    """Columns two blanks apart; a column of numbers stands to the right, one of text to the left."""
    rows = [list(row) for row in rows]
    cells = [[number(value, digits) for value in row] for row in rows]
    columns = list(zip(headers, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [not any(isinstance(row[i], str) for row in rows) for i in range(len(headers))]

    def line(values: Sequence[str]) -> str:
        padded = (
            f"{value:>{width}}" if to_right else f"{value:<{width}}"
            for value, width, to_right in zip(values, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(headers), line(["-" * width for width in widths]), *map(line, cells)])


def frame_table(frame, digits: int = 4) -> str:
    """A pandas DataFrame as :func:`table`, its first ``ROWS_SHOWN`` rows."""
    shown = frame.head(ROWS_SHOWN)
    text = table([str(c) for c in shown.columns], shown.itertuples(index=False, name=None), digits)
    left = len(frame) - len(shown)
    return f"{text}\n... and {left} more rows" if left else text


def section(title: str, body: str) -> str:
    return f"{title}\n{body}\n"


def message(text: object) -> None:
    print(f"m3bayes: {text}", file=sys.stderr)


def notes(items: Iterable[Note]) -> None:
    for note in items:
        message(f"note: {note}")


def json_text(value: object) -> str:
    return json.dumps(clean(value), indent=2, allow_nan=False, ensure_ascii=False)


def clean(value: object) -> object:
    """``value`` as JSON knows it: NaN and infinities become null, arrays lists, notes objects."""
    if is_dataclass(value) and not isinstance(value, type):
        return clean(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return clean(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


@contextmanager
def progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Gives ``report(done, total)``, a bar where standard error is a terminal."""
    with tqdm(unit=unit, disable=not sys.stderr.isatty(), file=sys.stderr) as line:

        def report(done: int, total: int) -> None:
            line.total = total
            line.update(done - line.n)

        yield report
