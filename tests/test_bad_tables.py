"""Tables that cannot be: one typed line each, naming row, line in the file, column and value."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m3bayes.errors import RunTableError
from m3bayes.runs import read_runs, runs_from_frame

HEADER = (
    "run,params,target_tokens,epochs,target_ratio,final_ratio,first_ratio,loss,language,tokens,loss_se,weight"
)
GOOD = {
    "run": "a", "params": "100000000", "target_tokens": "1000000000", "epochs": "2", "target_ratio": "0.5",
    "final_ratio": "1", "first_ratio": "0", "loss": "3.1", "language": "de", "tokens": "", "loss_se": "",
    "weight": "",
}  # fmt: skip


def csv(*changes: dict[str, str], header: str = HEADER) -> str:
    """A table of one row for each of ``changes``, and a good one before them."""
    rows = [GOOD | {"run": f"run-{i}"} | change for i, change in enumerate([{}, *changes])]
    return "\n".join([header, *(",".join(row[name] for name in HEADER.split(",")) for row in rows)]) + "\n"


def without(*columns: str) -> str:
    names = [name for name in HEADER.split(",") if name not in columns]
    return "\n".join([",".join(names), ",".join(GOOD[name] for name in names)]) + "\n"


def renamed(old: str, new: str) -> str:
    return csv(header=HEADER.replace(old, new))


# What is wrong with the second row, and what the message holds. Every one names row 2, line 3.
BAD_CELLS: dict[str, tuple[dict[str, str], list[str]]] = {
    "text": ({"loss": "diverged"}, ["column loss", "'diverged'", "expected a number"]),
    "blank required": ({"params": ""}, ["column params", "blank", "above 0"]),
    "NaN": ({"loss": "nan"}, ["column loss", "NaN", "above 0"]),
    "infinite": ({"loss": "inf"}, ["column loss", "inf", "finite"]),
    "minus infinity": ({"epochs": "-inf"}, ["column epochs", "-inf", "finite"]),
    "too large for a float": ({"params": "1e999"}, ["column params", "inf", "finite"]),
    "zero loss": ({"loss": "0"}, ["column loss", ": 0,", "above 0"]),
    "negative loss": ({"loss": "-2.5"}, ["column loss", "-2.5", "above 0"]),
    "zero params": ({"params": "0"}, ["column params", ": 0,", "above 0"]),
    "negative epochs": ({"epochs": "-3"}, ["column epochs", "-3", "above 0"]),
    "negative tokens of the target": ({"target_tokens": "-1e9"}, ["column target_tokens", "-1000000000"]),
    "ratio of 0": ({"target_ratio": "0"}, ["column target_ratio", ": 0,", "above 0 and at most 1"]),
    "ratio above 1": ({"final_ratio": "1.2e3"}, ["column final_ratio", "1200", "at most 1"]),
    "negative ratio": ({"final_ratio": "-0.5"}, ["column final_ratio", "-0.5"]),
    "percent": ({"target_ratio": "50"}, ["column target_ratio", "50", "divide by 100: 0.5"]),
    "percent sign": ({"target_ratio": "50%"}, ["column target_ratio", "'50%'", "as a fraction, 0.5"]),
    "first ratio above 1": ({"first_ratio": "20"}, ["column first_ratio", "20", "0.2"]),
    "ends on the source": (
        {"final_ratio": "0.1", "first_ratio": ""},
        ["column first_ratio", "blank", "final_ratio 0.1", "target_ratio 0.5"],
    ),
    "stages contradict the ratio": (
        {"target_ratio": "0.2", "first_ratio": "0.4"},
        ["column target_ratio", "0.2", "first_ratio 0.4", "final_ratio 1"],
    ),
    "first ratio at one stage": (
        {"final_ratio": "0.5", "first_ratio": "0.3"},
        ["column first_ratio", "0.3", "both 0.5"],
    ),
    "empty last stage": ({"first_ratio": "0.5"}, ["column first_ratio", "0.5", "no tokens"]),
    "tokens contradict": ({"tokens": "5e9"}, ["column tokens", "5000000000", "4e+09", "1%"]),
    "negative stated tokens": ({"tokens": "-4e9"}, ["column tokens", "-4000000000", "above 0"]),
    "standard error of 0": ({"loss_se": "0"}, ["column loss_se", ": 0,", "above 0", "or blank"]),
    "standard error past counting": ({"loss_se": "1e200"}, ["column loss_se", "1e+200", "losses, or blank"]),
    "loss past counting": ({"loss": "1.7e308"}, ["column loss", "1.7e+308", "1e+100", "another unit"]),
    "loss of next to nothing": ({"loss": "1e-300"}, ["column loss", "1e-300", "1e-100", "another unit"]),
    "negative weight": ({"weight": "-1"}, ["column weight", "-1", "0 or more"]),
    "weight past counting": ({"weight": "1e13"}, ["column weight", "1e+13", "at most 1e+12"]),
    "infinite weight": ({"weight": "inf"}, ["column weight", "inf", "finite"]),
    "same name": ({"run": "run-0"}, ["column run", "'run-0'", "row 1 (line 2)"]),
    "thousands separators": ({"params": '"100,000,000"'}, ["'100,000,000'", "without separators, 100000000"]),
    "thousands apostrophes": ({"params": "100'000'000"}, ["without separators, 100000000"]),
    "underscores": ({"params": "100_000_000"}, ["'100_000_000'", "100000000"]),
    "underscores in a word": ({"loss": "not_measured"}, ["'not_measured'", "leave the row out"]),
    "underscores over two lines": (
        {"params": '"1_0\n_"'},
        ["column params", "write it without underscores, 10"],
    ),
    "underscores of many pages": ({"params": "1_" * 5000}, ["column params", "1_1_1"]),
    "decimal comma": ({"loss": '"3,14"'}, ["column loss", "'3,14'", "decimal point, 3.14"]),
    "billions": ({"params": "1.5B"}, ["column params", "'1.5B'", "write it out, 1.5e+09"]),
    "power of ten": ({"params": "3*10^8"}, ["column params", "'3*10^8'", "3e8"]),
    "truth value": ({"epochs": "True"}, ["column epochs", "'True'", "truth value"]),
    "date": ({"epochs": "2026-03-01"}, ["column epochs", "'2026-03-01'", "date"]),
    "spreadsheet's date": ({"epochs": "1/2"}, ["column epochs", "'1/2'", "date"]),
    "spreadsheet's error": ({"loss": "#DIV/0!"}, ["column loss", "'#DIV/0!'", "spreadsheet"]),
    "spreadsheet's formula": ({"loss": "=A1*2"}, ["column loss", "formula"]),
    "uncountable": ({"target_tokens": "1e300", "epochs": "1e300"}, ["column epochs", "product"]),
    "text of many pages": ({"loss": "x" * 5000}, ["column loss", "xxx..."]),
}


@pytest.mark.parametrize("kind", BAD_CELLS)
def test_bad_cells_are_named(kind: str, tmp_path: Path):
    change, said = BAD_CELLS[kind]
    message = refusal(tmp_path, csv(change))
    assert message.startswith("runs.csv: row 2 (line 3), column ")
    for part in said:
        assert part in message


BAD_FILES: dict[str, tuple[str | bytes, list[str]]] = {
    "empty": ("", ["empty"]),
    "blank lines alone": ("\n\n  \n", ["empty"]),
    "no row": (HEADER + "\n", ["no row"]),
    "missing column": (without("loss"), ["column loss missing", "it has run, params"]),
    "missing columns": (without("params", "epochs"), ["columns params, epochs missing"]),
    "ratio missing alone": (without("target_ratio"), ["column target_ratio missing", "final_ratio", "add"]),
    "final ratio missing alone": (without("final_ratio"), ["column final_ratio missing", "target_ratio"]),
    "other case": (renamed("epochs", "Epochs"), ["column epochs missing", "rename 'Epochs' to epochs"]),
    "a letter": (renamed("params", "N"), ["column params missing", "rename 'N' to params"]),
    "misspelt": (renamed("target_tokens", "target_token"), ["rename 'target_token' to target_tokens"]),
    "semicolons": (csv().replace(",", ";"), ["semicolons", "expected commas"]),
    "tabs": (csv().replace(",", "\t"), ["tabs", "expected commas"]),
    "bars": (csv().replace(",", "|"), ["bars", "expected commas"]),
    "no names": (csv().split("\n", 1)[1].replace("run-0", "1").replace("de", "2").replace(",,,", ",1,1,1"),
                 ["first line holds numbers"]),
    "same column twice": (renamed("language", "loss"), ["'loss'", "2 times"]),
    "column without name": (renamed("language", ""), ["column 9 has no name"]),
    "short row": (csv() + "run-9,1e8,1e9\n", ["row 2 (line 3)", "3 cells", "expected 12"]),
    "long row": (csv({"params": "100,000,000"}), ["row 2 (line 3)", "14 cells", "1000000"]),
    "quote not closed": (csv({"run": '"run'}), ["line 3", "quote"]),
    "quote not closed, long file": (csv({"run": '"run'}) + csv() * 2000, ["line 3", "quote"]),
    "text behind a quote": (csv({"run": '"run"s'}), ["line 3", "not CSV"]),
    "Latin-1": (csv({"language": "français"}).encode("latin-1"), ["line 3", "not UTF-8", "0xe7", "fran"]),
    "UTF-16": (csv().encode("utf-16"), ["UTF-16", "UTF-8"]),
    "null bytes": (csv({"language": "d\0e"}), ["line 3", "null bytes"]),
    "carriage returns": (csv().replace("\n", "\r"), ["carriage return", "line 1"]),
    "workbook": (b"PK\x03\x04" + b"\0" * 100, ["Excel", "save the sheet as CSV"]),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 100, ["gzip", "unpack"]),
    "posterior": (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, ["netCDF"]),
    "picture": (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, ["picture"]),
    "name of two lines": (renamed("loss,", '"lo\nss",'), ["column loss missing", "lo ss"]),
    "web page": ("<html>\n<body>Not found</body>\n</html>\n", ["missing", "<html>"]),
    "damaged parquet": (b"PAR1" + b"\0" * 100, ["parquet"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_say_what_they_are(kind: str, tmp_path: Path):
    text, said = BAD_FILES[kind]
    message = refusal(tmp_path, text)
    assert message.startswith("runs.csv")
    for part in said:
        assert part in message


def refusal(folder: Path, text: str | bytes) -> str:
    """What reading a file of this text is refused with: one line, soon, of the right type."""
    path = folder / "runs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    start = time.perf_counter()
    with pytest.raises(RunTableError) as error:
        read_runs(path)
    assert time.perf_counter() - start < 5
    message = str(error.value)
    assert "\n" not in message and len(message) < 500
    return message


def test_a_good_table_is_not_refused(tmp_path: Path):
    (tmp_path / "runs.csv").write_text(csv({}, {}))
    assert len(read_runs(tmp_path / "runs.csv")) == 3


def test_a_line_of_2_gigabytes_is_refused_at_once(tmp_path: Path):
    path = tmp_path / "runs.csv"
    with open(path, "wb") as file:
        file.write(csv().encode() + b"run-9," + b"1" * 2_000_000)
        file.truncate(2 << 30)
    start = time.perf_counter()
    with pytest.raises(RunTableError, match=r"line 3 is longer than 1000000 bytes") as error:
        read_runs(path)
    assert time.perf_counter() - start < 5
    assert "\n" not in str(error.value)
    # nothing but null bytes: the first line is refused
    os.truncate(path, 0)
    os.truncate(path, 2 << 30)
    with pytest.raises(RunTableError, match="null bytes"):
        read_runs(path)


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path):
    with pytest.raises(RunTableError, match=r"nothing\.csv: No such file"):
        read_runs(tmp_path / "nothing.csv")
    with pytest.raises(RunTableError, match="directory"):
        read_runs(tmp_path)
    (tmp_path / "t.parquet").write_text(csv())
    with pytest.raises(RunTableError, match="not a parquet file"):
        read_runs(tmp_path / "t.parquet")


def test_all_weights_zero(tmp_path: Path):
    text = csv({"weight": "0"}).replace(",,,\n", ",,,0\n", 1)
    assert "column weight: 0" in refusal(tmp_path, text)


def test_several_bad_rows_are_counted(tmp_path: Path):
    assert "(and 2 more rows)" in refusal(tmp_path, csv(*[{"loss": "-1"}] * 3))
    assert "(and one more row)" in refusal(tmp_path, csv(*[{"loss": "x"}] * 2))


BAD_FRAMES = {
    "truth values": ({"epochs": [True, False]}, ["row 1", "column epochs", "True", "truth value"]),
    "dates": ({"epochs": pd.to_datetime(["2026-01-01"] * 2)}, ["row 1", "column epochs", "2026", "date"]),
    "complex": ({"loss": [1 + 2j, 3]}, ["row 1", "column loss", "1+2j"]),
    "lists": ({"loss": [[1, 2], 3]}, ["row 1", "column loss", "[1, 2]"]),
    "missing values": ({"params": pd.array([1, None], dtype="Int64")}, ["row 2", "column params", "blank"]),
    "huge integers": ({"params": [10**400, 1]}, ["row 1", "column params"]),
    "text in one row": ({"loss": [2.5, "two"]}, ["row 2", "column loss", "'two'"]),
    "no row": ({"params": [], "target_tokens": [], "epochs": [], "loss": []}, ["no row"]),
}


@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_bad_frames_are_named(kind: str):
    change, said = BAD_FRAMES[kind]
    good = {"params": [1e8, 2e8], "target_tokens": [1e9, 1e9], "epochs": [1, 2], "loss": [3, 2.5]}
    with pytest.raises(RunTableError) as error:
        runs_from_frame(pd.DataFrame(good | change))
    assert "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)


def test_a_column_twice_in_a_frame():
    frame = pd.DataFrame(np.ones((2, 5)), columns=["params", "target_tokens", "epochs", "loss", "loss"])
    with pytest.raises(RunTableError, match="'loss' is there 2 times"):
        runs_from_frame(frame)


BAD_CONDITIONS = {
    "loss.to_csv('stolen.csv')": "a call",
    "loss.max": "a dot",
    "@print('x')": "not an expression",
    "__import__('os')": "a call",
    "loss[0] > 1": "an index",
    "loss ** 99999999 > 1": "a power",
    "[x for x in loss]": "may not",
    "(lambda: 1)()": "a call",
    "`loss`.max() > 1": "a call",
    "'`' + loss.max() + '`'": "a call",
    "`loss` + `": "not an expression",
    "(x := 3) > 2": "may not",
    "loss = 3": "not an expression",
    "loss <": "not an expression",
    "": "not an expression",
    "loss < 4; epochs > 1": "not an expression",
    "los < 4": "names 'los', which is no column; it has params",
    "`my loss` < 4": "names 'my loss'",
    "loss": "yes or no",
    "3": "yes or no",
    "1 < 2": "yes or no",
    "loss + 1": "yes or no",
    "loss < 'a'": "cannot be evaluated",
    "language < 4": "cannot be evaluated",
    "loss < 0": "no row of 2 fulfils",
    "(" * 500 + "loss" + ")" * 500: "expression",
    "loss < 4 " + "and loss < 4 " * 500: "characters",
    "1 / 0 > loss": "cannot be evaluated",
}


@pytest.mark.parametrize("condition", BAD_CONDITIONS, ids=lambda c: c[:30] or "empty")
def test_bad_conditions_are_refused_and_cannot_run_code(
    condition: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    good = {"params": [1e8, 2e8], "target_tokens": 1e9, "epochs": [1, 2], "loss": [3, 2.5], "language": "de"}
    with pytest.raises(RunTableError) as error:
        runs_from_frame(pd.DataFrame(good), where=condition)
    assert BAD_CONDITIONS[condition] in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
