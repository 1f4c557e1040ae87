"""m3bayes guidelines and m3bayes next: what is printed, what is written, what is refused."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from m3bayes.cli import main


def test_guidelines_write_the_map_and_draw_it(passed, tmp_path, capsys):
    out, figure = tmp_path / "map.csv", tmp_path / "map.png"
    asked = [
        "guidelines",
        str(passed),
        "--compute",
        "1e13:1e14",
        "--target-tokens",
        "1e5:8e5",
        "--cells",
        "2",
    ]
    assert main([*asked, "--out", str(out), "--figure", str(figure), "--json"]) == 0
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    table = pd.read_csv(out)
    assert len(content["threshold"]) == 2 and len(content["cells"]) == len(table) == 4
    assert table.filter(like="probability_").sum(axis=1).to_numpy() == pytest.approx(1)
    assert figure.stat().st_size > 10_000 and f"wrote {figure}" in printed.err


@pytest.mark.parametrize("text", ["1e13", "1e14:1e13", ":1e14", "a:b"])
def test_a_range_is_low_and_high(passed, text, capsys):
    assert main(["guidelines", str(passed), "--compute", text, "--target-tokens", "1e5:8e5"]) == 2
    assert "argument --compute" in capsys.readouterr().err


def test_next_writes_the_runs_it_chooses(passed, tmp_path, capsys):
    out = tmp_path / "next.csv"
    asked = ["next", str(passed), "--budget", "1e13", "--compute", "1e14", "--target-tokens", "2e5"]
    assert main([*asked, "--number", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "Next runs, within 1e13 FLOP" in printed.out and "largest run" in printed.out
    table = pd.read_csv(out)
    assert len(table) <= 2 and table["flops"].sum() <= 1e13


def test_next_refuses_candidates_that_do_not_fit(passed, tmp_path, capsys):
    path = tmp_path / "candidates.csv"
    path.write_text("params,target_tokens,epochs\n1e6,1e6,1\n", encoding="utf-8")
    asked = ["next", str(passed), "--compute", "1e14", "--target-tokens", "2e5", "--candidates", str(path)]
    assert main([*asked, "--budget", "1e3"]) == 4
    assert "the cheapest costs 6e" in capsys.readouterr().err
    path.write_text("params,epochs\n1e6,1\n", encoding="utf-8")
    assert main([*asked, "--budget", "1e13"]) == 2
    assert str(path) in capsys.readouterr().err
