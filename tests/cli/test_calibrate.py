"""``m3bayes calibrate``."""

from __future__ import annotations

import json

import pytest

from m3bayes.cli import main
from tests.inference import simulated


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrate")
    simulated.monolingual(40).assign(loss=3.0).to_csv(folder / "runs.csv", index=False)
    call = ["calibrate", "--law", "chinchilla", "--design", str(folder / "runs.csv"), "--draws", "250"]
    return folder, [*call, "--out", str(folder / "out")]


def test_calibrate_prints_a_row_a_quantity_and_keeps_its_result(calibrated, capsys):
    folder, call = calibrated
    assert main([*call, "--simulations", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith("chinchilla on 1 tables like runs.csv: ")
    assert "loss at 10 x compute" in out and "log likelihood" in out
    assert {path.name for path in (folder / "out").iterdir()} == {
        "calibration.json", "calibration.png", "header.json", "simulations.jsonl",
    }  # fmt: skip
    assert "wrote" in err


def test_more_simulations_go_on_from_those_that_are_there(calibrated, capsys):
    folder, call = calibrated
    assert main([*call, "--simulations", "1", "--json"]) == 0
    kept = (folder / "out" / "simulations.jsonl").read_text()
    capsys.readouterr()
    assert main([*call, "--simulations", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["simulations"] == sum(found["fits"].values()) == 2
    assert {row["quantity"] for row in found["quantities"]} >= {"E", "alpha", "sigma", "nu"}
    assert json.loads((folder / "out" / "calibration.json").read_text()) == found
    assert (folder / "out" / "simulations.jsonl").read_text().startswith(kept)


def test_the_folder_of_another_calibration_is_refused(calibrated, capsys):
    _, call = calibrated
    assert main([*call, "--simulations", "1", "--noise", "normal"]) == 2
    assert "another fit" in capsys.readouterr().err


def test_a_file_is_no_folder(calibrated, tmp_path, capsys):
    _, call = calibrated
    (tmp_path / "file").write_text("")
    assert main([*call[:-1], str(tmp_path / "file")]) == 2
    assert "give the path of a folder" in capsys.readouterr().err
