"""``m3bayes discrepancy``."""

from __future__ import annotations

import json

import pandas as pd

from m3bayes.cli import main
from m3bayes.inference.storage import load


def test_a_given_scale_is_written_and_said(passed, tmp_path, capsys):
    out = tmp_path / "wide.nc"
    assert main(["discrepancy", str(passed), "--scale", "0.05", "--out", str(out)]) == 0
    said, messages = capsys.readouterr()
    assert "a departure from the law beyond the runs" in said
    assert "DISCREPANCY" in messages and f"wrote {out}" in messages
    assert load(out).intervals != load(passed).intervals


def test_every_command_says_what_its_intervals_hold(passed, tmp_path, capsys):
    wide, recipes = tmp_path / "wide.nc", tmp_path / "recipes.csv"
    assert main(["discrepancy", str(passed), "--scale", "0.05", "--out", str(wide), "--json"]) == 0
    assert "departure" in json.loads(capsys.readouterr().out)["intervals"]
    pd.DataFrame({"params": [1e8], "target_tokens": [1e8], "epochs": [2.0]}).to_csv(recipes, index=False)
    for post, words in ((passed, "assume that the law holds"), (wide, "a departure from the law")):
        assert main(["predict", str(post), str(recipes)]) == 0
        assert words in capsys.readouterr().out
        assert main(["predict", str(post), str(recipes), "--json"]) == 0
        assert words in json.loads(capsys.readouterr().out)["posterior"]["intervals"]
        assert main(["summary", str(post)]) == 0
        assert words in capsys.readouterr().out


def test_what_cannot_be_done(passed, tmp_path, capsys):
    wide = tmp_path / "wide.nc"
    assert main(["discrepancy", str(passed), "--scale", "-1", "--out", str(wide)]) == 2
    assert main(["discrepancy", str(passed), "--scale", "0.05", "--out", str(passed)]) == 2
    assert "is the file to read" in capsys.readouterr().err
    assert main(["discrepancy", str(passed), "--scale", "0.05", "--out", str(wide)]) == 0
    assert main(["discrepancy", str(wide), "--out", str(tmp_path / "wider.nc")]) == 2
    assert "has a discrepancy already" in capsys.readouterr().err
