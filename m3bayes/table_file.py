"""Read a table file (CSV or parquet) as it stands: cells are not interpreted here.

A CSV is read line by line, so that a file that is no table is refused at its first odd line, whatever its
size, and so that every cell keeps the number of the line it came from.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pandas as pd

from m3bayes.errors import RunTableError
from m3bayes.files import is_special

LONGEST_LINE = 1_000_000  # bytes; a row of a table has a few hundred

_UTF8_MARK = b"\xef\xbb\xbf"
_NOT_TEXT = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "save the sheet as CSV"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it first"),
    (b"\xff\xfe", "in UTF-16", "save it in UTF-8"),
    (b"\xfe\xff", "in UTF-16", "save it in UTF-8"),
    (b"\x89HDF", "a netCDF/HDF5 file", "give the table of runs, not a saved posterior"),
    (b"\x89PNG", "a picture", "give the table"),
    (b"%PDF", "a PDF document", "give the table"),
)
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The table in the file ``path``.

    A CSV (commas, UTF-8 with or without a mark, LF or CRLF, column names in the first line) gives its cells
    as text, stripped of surrounding blanks, and an index called ``line``, the line in the file of each row.
    Parquet gives what is stored, read by pandas' own engine. Raises RunTableError for everything else.
    """
    name = Path(path).name
    if is_special(path):
        raise RunTableError(f"{os.fspath(path)} is a pipe or a device, expected a CSV or parquet file")
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PAR1":
                return _read_parquet(path, name)
            if Path(path).suffix.lower() in (".parquet", ".pq"):
                raise RunTableError(
                    f"{name} is not a parquet file, though its name says so; was it cut short?"
                )
            for magic, what, cure in _NOT_TEXT:
                if start.startswith(magic):
                    raise RunTableError(f"{name} is {what}, expected a CSV or parquet file; {cure}")
            return _read_csv(file, name)
    except OSError as problem:
        reason = problem.strerror or "it cannot be read"
        raise RunTableError(f"{os.fspath(path)}: {reason}; expected a CSV or parquet file") from None


def _read_parquet(path: str | os.PathLike[str], name: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise RunTableError(
            f"{name} is a parquet file, and reading those needs an extra: pip install 'm3bayes[parquet]'"
        ) from None
    except Exception as problem:  # the engine's own exceptions, which have no common base
        reason = first_line(problem)
        raise RunTableError(f"{name} is a parquet file that cannot be read: {reason}") from None


def _read_csv(file: IO[bytes], name: str) -> pd.DataFrame:
    # strict: a quote out of place is an error and not a guess
    reader = csv.reader(_text_lines(file, name), strict=True, skipinitialspace=True)
    header: list[str] | None = None
    rows: list[list[str]] = []
    lines: list[int] = []
    line = 1
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if cells and cells != [""]:  # blank lines are skipped
                if header is None:
                    header = _check_header(cells, name)
                elif len(cells) != len(header):
                    raise RunTableError(_ragged(cells, header, name, len(rows) + 1, line))
                else:
                    rows.append(cells)
                    lines.append(line)
            line = reader.line_num + 1
    except csv.Error as problem:
        raise RunTableError(
            f'{name}: line {line} is not CSV ({problem}); look for a quote (") that is not closed'
        ) from None
    if header is None:
        raise RunTableError(f"{name} is empty, expected a line of column names and one row a run")
    columns = {column: [row[i] for row in rows] for i, column in enumerate(header)}
    return pd.DataFrame(columns, index=pd.Index(lines, name="line"), dtype=object)


def _text_lines(file: IO[bytes], name: str) -> Iterator[str]:
    number = 0
    while data := file.readline(LONGEST_LINE + 1):
        number += 1
        if number == 1:
            data = data.removeprefix(_UTF8_MARK)
        if b"\0" in data:
            raise RunTableError(f"{name}: line {number} holds null bytes, expected text; is this a CSV file?")
        if len(data) > LONGEST_LINE:
            raise RunTableError(
                f"{name}: line {number} is longer than {LONGEST_LINE} bytes, expected one run a line; "
                "are the line ends missing?"
            )
        if b"\r" in data.rstrip(b"\r\n"):
            raise RunTableError(
                f"{name}: line {number} holds a bare carriage return; save the file with LF or CRLF line ends"
            )
        try:
            yield data.decode("utf-8")
        except UnicodeDecodeError as problem:
            raise RunTableError(
                f"{name}: line {number} is not UTF-8 (byte 0x{data[problem.start]:02x} after "
                f"{data[: problem.start].decode('utf-8')[-20:]!r}); save the file as UTF-8"
            ) from None


def _check_header(header: list[str], name: str) -> list[str]:
    if len(header) == 1:
        for delimiter, what in _OTHER_DELIMITERS.items():
            if delimiter in header[0]:
                raise RunTableError(
                    f"{name}: its columns are separated by {what} ({header[0][:60]!r}), "
                    "expected commas; save it as comma-separated"
                )
    header = [" ".join(column.split()) for column in header]
    if "" in header:
        raise RunTableError(
            f"{name}: column {header.index('') + 1} has no name in the first line; name or remove it"
        )
    if all(_is_number(cell) for cell in header):
        raise RunTableError(
            f"{name}: the first line holds numbers ({', '.join(header)[:60]}), expected the column names"
        )
    repeated = next((column for column in header if header.count(column) > 1), None)
    if repeated is not None:
        raise RunTableError(
            f"{name}: column {repeated!r} is there {header.count(repeated)} times in the first line, "
            "expected once; rename or remove the others"
        )
    return header


def _ragged(cells: list[str], header: list[str], name: str, row: int, line: int) -> str:
    cure = (
        "is a cell missing at its end?"
        if len(cells) < len(header)
        else "a thousands separator (1,000,000) or a decimal comma splits a number: write 1000000 or 0.5"
    )
    return (
        f"{name}: row {row} (line {line}) has {len(cells)} cells ({', '.join(cells)[:60]!r}), "
        f"expected {len(header)} as in the first line; {cure}"
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def first_line(problem: BaseException) -> str:
    """What an exception from below says, cut to one line."""
    text = str(problem).strip() or type(problem).__name__
    return text.splitlines()[0][:200]
