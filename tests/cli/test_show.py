from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from m3bayes.cli.show import ROWS_SHOWN, frame_table, json_text, number, table
from m3bayes.errors import Note


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.14159, "3.142"),
        (0.00012345, "0.0001234"),
        (1e21, "1e21"),
        (123456789.0, "1.235e8"),
        (2e-9, "2e-9"),
        (40, "40"),
        (4.0, "4"),
        (np.float64(0.5), "0.5"),
        (np.int64(7), "7"),
        (float("nan"), ""),
        (float("inf"), "inf"),
        (None, ""),
        (True, "yes"),
        (np.bool_(False), "no"),
        ("text", "text"),
    ],
)
def test_number(value, text):
    assert number(value) == text


def test_table_aligns_numbers_right_and_text_left():
    assert table(("name", "loss"), [("a", 1.5), ("long one", 12.25)]).splitlines() == [
        "name       loss",
        "--------  -----",
        "a           1.5",
        "long one  12.25",
    ]


def test_table_without_rows_still_has_its_headers():
    assert table(("name", "loss"), []).splitlines() == ["name  loss", "----  ----"]


def test_long_frames_are_cut_and_say_so():
    frame = pd.DataFrame({"x": np.arange(ROWS_SHOWN + 3)})
    lines = frame_table(frame).splitlines()
    assert len(lines) == 2 + ROWS_SHOWN + 1
    assert lines[-1] == "... and 3 more rows"


def test_json_has_no_nan_and_knows_arrays_and_notes():
    value = {
        "array": np.array([1.0, np.nan]),
        "infinite": float("-inf"),
        "whole": np.int64(3),
        "flag": np.bool_(True),
        "notes": (Note("CODE", "said", ("E",)),),
        "nothing": None,
        2: "number as key",
    }
    assert json.loads(json_text(value), parse_constant=pytest.fail) == {
        "array": [1.0, None],
        "infinite": None,
        "whole": 3,
        "flag": True,
        "notes": [{"code": "CODE", "message": "said", "about": ["E"]}],
        "nothing": None,
        "2": "number as key",
    }
