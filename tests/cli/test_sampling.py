"""The command line with real sampling."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from m3bayes import cli
from m3bayes.cli.demo import TIMES_LARGEST
from m3bayes.data import demo_runs, simulated_truth
from m3bayes.inference.storage import load
from m3bayes.runs import read_runs

ROOT = Path(__file__).parent.parent.parent
TABLE = ROOT / "m3bayes" / "data" / "simulated_pilot.csv"


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    assert cli.main(["demo", "--out", str(out)]) == 0
    return out


def test_a_fit_recovers_the_truth(tmp_path, capsys):
    out = tmp_path / "post.nc"
    assert cli.main(["fit", str(TABLE), "--draws", "500", "--out", str(out)]) == 0
    post = load(out)
    assert post.verdict == "passed"
    truth = simulated_truth()["coefficients"]
    summary = post.summary(ci=0.999)
    outside = [n for n in truth if not summary.loc[n, "lower"] <= truth[n] <= summary.loc[n, "upper"]]
    assert outside == []
    # the runs say something about every coefficient
    assert "UNIDENTIFIED" not in {note.code for note in post.notes}


def test_the_demo_fits_the_measured_runs(demo):
    post = load(demo / "posterior.nc")
    assert post.verdict == "passed"
    runs = read_runs(demo / "runs.csv")
    assert len(runs) == len(post.runs) == len(demo_runs())
    assert np.array_equal(runs["loss"], demo_runs()["loss"])


def test_the_demo_recommends_within_30_times_the_largest_run(demo):
    recipe = json.loads((demo / "recipe.json").read_text())
    times = recipe["compute"] / demo_runs().compute.max()
    assert TIMES_LARGEST / 2 < times < 30
    codes = {note["code"] for note in recipe["notes"]}
    assert codes.isdisjoint({"BEYOND_30X", "COMPUTE_UNUSED"})
    assert codes >= {"EXTRAPOLATION", "BOUNDS_WIDENED"}
    assert recipe["posterior"]["table"] == "pilot_runs.csv"


def test_the_demo_draws_a_picture(demo):
    from matplotlib.image import imread

    picture = imread(demo / "recommendation.png")
    assert min(picture.shape[:2]) >= 400
    assert picture[..., :3].std() > 0.05, "an empty picture"
    assert {path.name for path in demo.iterdir()} == {
        "runs.csv",
        "posterior.nc",
        "recipe.json",
        "recommendation.png",
    }


def test_the_same_seed_gives_the_same_draws_and_another_others(tmp_path, capsys):
    draws = []
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        out = tmp_path / f"{name}.nc"
        argv = ["fit", str(TABLE), "--law", "chinchilla", "--where", "target_ratio == 1 and epochs <= 4"]
        assert cli.main([*argv, "--out", str(out), "--seed", str(seed)]) == 0
        draws.append(load(out).draws["beta"])
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_too_short_a_fit_is_flagged_and_still_written(tmp_path, capsys):
    out = tmp_path / "post.nc"
    argv = ["fit", str(TABLE), "--law", "chinchilla", "--where", "target_ratio == 1 and epochs <= 4"]
    code = cli.main([*argv, "--out", str(out), "--chains", "1", "--warmup", "20", "--draws", "8"])
    _, err = capsys.readouterr()
    assert code == 3 and "ESS" in err
    assert load(out).verdict == "flagged"


def test_a_killed_fit_resumes_to_the_same_draws(tmp_path):
    command = [sys.executable, "-m", "m3bayes", "fit", str(TABLE), "--law", "chinchilla"]
    command += ["--where", "target_ratio == 1 and epochs <= 4", "--draws", "8000", "--json", "--out"]
    whole, cut = tmp_path / "whole.nc", tmp_path / "cut.nc"
    subprocess.run([*command, str(whole)], check=True, cwd=ROOT, capture_output=True)
    process = subprocess.Popen([*command, str(cut)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    folder = tmp_path / "cut.nc.checkpoint"
    limit = time.monotonic() + 120
    while not any(folder.rglob("chain-*.npz")) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    assert process.poll() is None, "the fit was over before it could be killed"
    process.kill()
    process.communicate()
    assert not cut.exists()
    subprocess.run([*command, str(cut), "--resume"], check=True, cwd=ROOT, capture_output=True)
    one, other = load(whole), load(cut)
    assert all(np.array_equal(one.draws[name], other.draws[name]) for name in one.draws)
    assert not folder.exists()
