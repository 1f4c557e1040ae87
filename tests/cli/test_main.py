"""The command line from end to end on hand-made posteriors; only sampling is left out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m3bayes import cli
from m3bayes.cli import fit as fit_command
from m3bayes.decision.space import LETTERS
from m3bayes.errors import Note
from m3bayes.inference.noise import Noise
from m3bayes.inference.predict import predict
from m3bayes.inference.storage import load
from tests.cli.conftest import handmade

ROOT = Path(__file__).parent.parent.parent
TABLE = ROOT / "m3bayes" / "data" / "simulated_pilot.csv"
COMMANDS = ("fit", "summary", "predict", "recommend", "laws", "demo")
BUDGET = ("--compute", "5e14", "--target-tokens", "800000")


@pytest.fixture
def run(capsys):
    """run(*argv) -> (exit code, stdout, stderr)"""

    def call(*argv: object) -> tuple[int, str, str]:
        code = cli.main([str(part) for part in argv])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def recipes(tmp_path) -> Path:
    path = tmp_path / "recipes.csv"
    path.write_text(
        "name,params,target_tokens,epochs,target_ratio,final_ratio,first_ratio,note\n"
        "small,1e6,200000,4,1,1,,007\n"
        "large,1e10,200000,4,.25,.5,0,\n"
    )
    return path


def read_json(text: str):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


# --- help and arguments


@pytest.mark.parametrize("command", COMMANDS)
def test_help_gives_every_argument_a_text(run, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert "--json" in out
    parser = cli.parser()._subparsers._group_actions[0].choices[command]  # type: ignore[union-attr]
    assert [action.dest for action in parser._actions if not action.help] == []
    intervals = command not in ("laws",)
    assert ("--ci" in out) == intervals


def test_help_has_units_and_exit_codes(run):
    _, out, _ = run("--help")
    assert "FLOP" in out and "exit" in out
    _, out, _ = run("recommend", "--help")
    assert re.search(r"--compute FLOP", out)
    assert re.search(r"--max-params VALUE\s+most params \(N\), table's unit", out)


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("nonsense",),
        ("fit",),
        ("fit", "runs.csv"),
        ("fit", "runs.csv", "--out", "p.nc", "--chains", "0"),
        ("fit", "runs.csv", "--out", "p.nc", "--noise", "gaussian"),
        ("fit", "runs.csv", "--out", "p.nc", "--unit-params", "-1"),
        ("summary", "p.nc", "--ci", "90"),
        ("predict", "p.nc"),
        ("recommend", "p.nc", "--target-tokens", "1"),
        ("recommend", "p.nc", "--compute", "lots", "--target-tokens", "1"),
        ("recommend", "p.nc", *BUDGET, "--freeze", "r"),
        ("recommend", "p.nc", *BUDGET, "--bound", "k=8:1"),
        ("predict", "p.nc", "r.csv", "--allow", "anything"),
    ],
)
def test_wrong_arguments_exit_with_2(run, argv):
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert "usage:" in err


def test_version(run):
    code, out, _ = run("--version")
    assert code == 0
    assert re.fullmatch(r"m3bayes \d+\.\d+\.\d+\S*\n", out)


# --- bad input: exit 2, one line on stderr, nothing on stdout


def bad(run, *argv) -> str:
    code, out, err = run(*argv)
    assert (code, out) == (2, ""), err
    assert err.startswith("m3bayes: error: ") and err.count("\n") == 1, err
    return err


def test_missing_files_are_named(run, tmp_path, passed, recipes):
    missing = tmp_path / "none"
    assert "none.csv" in bad(run, "fit", f"{missing}.csv", "--out", tmp_path / "p.nc")
    assert "none.nc" in bad(run, "summary", f"{missing}.nc")
    assert "none.nc" in bad(run, "predict", f"{missing}.nc", recipes)
    assert "none.csv" in bad(run, "predict", passed, f"{missing}.csv")
    assert "none.nc" in bad(run, "recommend", f"{missing}.nc", *BUDGET)
    assert "none.csv" in bad(run, "recommend", passed, *BUDGET, "--baseline", f"{missing}.csv")


def test_wrong_files_are_named(run, tmp_path, passed):
    assert "netCDF" in bad(run, "summary", TABLE)
    assert "passed.nc" in bad(run, "fit", passed, "--out", tmp_path / "p.nc")
    assert "passed.nc" in bad(run, "predict", passed, passed)


def test_out_is_checked_before_the_work(run, tmp_path, passed, recipes, monkeypatch):
    monkeypatch.setattr(fit_command, "fit", lambda *a, **k: pytest.fail("fitted before --out was checked"))
    nowhere = tmp_path / "none" / "file"
    for argv in (("fit", TABLE), ("predict", passed, recipes), ("recommend", passed, *BUDGET)):
        assert "does not exist" in bad(run, *argv, "--out", nowhere)
        assert "is a folder" in bad(run, *argv, "--out", tmp_path)
    (tmp_path / "file").write_text("")
    assert "file" in bad(run, "demo", "--out", tmp_path / "file")


def test_laws_and_columns_that_are_not_there(run, tmp_path):
    out = ("--out", tmp_path / "p.nc")
    assert "nonsense" in bad(run, "fit", TABLE, *out, "--law", "nonsense")
    assert "zeta" in bad(run, "fit", TABLE, *out, "--drop", "zeta")
    assert "colour" in bad(run, "fit", TABLE, *out, "--where", "colour == 1")
    assert "nonsense" in bad(run, "laws", "nonsense")


def test_bad_cells_are_named_by_row_and_column(run, tmp_path, passed, recipes):
    text = recipes.read_text().replace("1e10", "-3")
    recipes.write_text(text)
    err = bad(run, "predict", passed, recipes)
    assert "recipes.csv" in err and "params" in err and "-3" in err and "row 2" in err
    runs = tmp_path / "runs.csv"
    runs.write_text(TABLE.read_text().replace("1.47779", "zero"))
    err = bad(run, "fit", runs, "--out", tmp_path / "p.nc")
    assert "loss" in err and "zero" in err


def test_bounds_that_cannot_be_meant(run, passed):
    start = ("recommend", passed, *BUDGET)
    assert "given twice" in bad(run, *start, "--max-epochs", "4", "--bound", "k=1:8")
    assert "given twice" in bad(run, *start, "--freeze", "r=1", "--freeze", "r=.5")
    assert "colour" in bad(run, *start, "--bound", "colour=1:2")
    assert "colour" in bad(run, *start, "--freeze", "colour=1")


# --- fit, with a stand-in for the sampler


@pytest.fixture
def sampler(monkeypatch):
    """Stands in for fit(); its attribute ``given`` holds what it was called with."""

    def fake(runs, law, **options):
        fake.given = {"runs": runs, "law": law, **options}
        return fake.result

    fake.result = handmade()
    monkeypatch.setattr(fit_command, "fit", fake)
    return fake


def test_fit_hands_its_arguments_over(run, sampler, tmp_path):
    out = tmp_path / "post.nc"
    code, _, _ = run(
        *("fit", TABLE, "--out", out, "--law", "chinchilla:tokens=all", "--noise", "normal,group:seed"),
        *("--where", "target_ratio == 1", "--unit-params", "1e6", "--unit-tokens", "10", "--chains", "3"),
        *("--warmup", "50", "--draws", "60", "--seed", "7", "--resume"),
    )
    assert code == 0
    given = sampler.given
    assert set(given["runs"]["target_ratio"]) == {1.0}
    assert (given["runs"].unit_params, given["runs"].unit_tokens) == (1e6, 10.0)
    assert (given["law"].name, given["law"].options) == ("chinchilla", {"tokens": "all"})
    assert given["noise"] == Noise("normal", "seed")
    counts = {name: given[name] for name in ("chains", "warmup", "draws", "seed")}
    assert counts == {"chains": 3, "warmup": 50, "draws": 60, "seed": 7}
    assert given["allow"] == "flagged" and given["resume"] is True
    assert given["checkpoint"].parent == tmp_path
    assert load(out).law.name == "m3"


def test_fit_reports_and_writes(run, sampler, tmp_path):
    out = tmp_path / "post.nc"
    code, text, err = run("fit", TABLE, "--out", out)
    assert code == 0
    assert text.startswith("m3 on 120 runs of simulated_pilot.csv: passed, 2 chains x 20 draws")
    assert re.search(r"^alpha +0\.3", text, re.MULTILINE)
    assert f"wrote {out}" in err
    assert [path.name for path in tmp_path.iterdir()] == ["post.nc"]


def test_a_flagged_fit_writes_its_file_and_exits_with_3(run, sampler, tmp_path):
    sampler.result = handmade(verdict="flagged", notes=(Note("R_HAT", "chains disagree"),))
    out = tmp_path / "post.nc"
    code, text, err = run("fit", TABLE, "--out", out)
    assert code == 3
    assert "flagged" in text and "R_HAT: chains disagree" in err and "not converged" in err
    assert load(out).verdict == "flagged"


def test_fit_as_json(run, sampler, tmp_path):
    code, out, _ = run("fit", TABLE, "--out", tmp_path / "post.nc", "--json", "--ci", ".5")
    result = read_json(out)
    assert code == 0
    assert (result["verdict"], result["law"], result["runs"], result["ci"]) == ("passed", "m3", 120, 0.5)
    rows = {row["coefficient"]: row for row in result["summary"]}
    frame = sampler.result.summary(ci=0.5)
    assert rows["tau"]["lower"] == pytest.approx(frame.loc["tau", "lower"])


# --- summary, laws


def test_summary(run, passed, flagged):
    code, out, err = run("summary", passed, "--ci", ".8")
    assert (code, err) == (0, "")
    assert {"E", "omega", "sigma", "nu"} <= {line.split(" ")[0] for line in out.splitlines()}
    code, out, err = run("summary", flagged)
    assert code == 0 and "flagged" in out and "R_HAT" in err
    code, out, err = run("summary", flagged, "--json")
    assert read_json(out)["notes"] == [{"code": "R_HAT", "message": "chains disagree", "about": []}]
    assert err == ""


def test_laws(run):
    code, out, _ = run("laws")
    assert code == 0 and len(out.splitlines()) == 2 + 12
    _, out, _ = run("laws", "m3")
    assert "omega" in out and "log" not in out.splitlines()[0]
    _, out, _ = run("laws", "--json")
    assert {law["name"] for law in read_json(out)} >= {"m3", "chinchilla", "farseer"}
    _, out, _ = run("laws", "chinchilla:tokens=all", "--json")
    assert read_json(out)["options"] == {"tokens": "all"}


# --- predict


def test_predict_keeps_the_columns_and_adds_its_own(run, passed, recipes, tmp_path):
    out = tmp_path / "pred.csv"
    code, _, err = run("predict", passed, recipes, "--out", out)
    assert code == 0
    written = pd.read_csv(out, dtype=str, keep_default_na=False)
    assert list(written)[:8] == list(pd.read_csv(recipes))
    assert tuple(written)[8:] == (
        *("loss_mean", "loss_sd", "loss_lower", "loss_upper", "new_run_lower", "new_run_upper"),
        *("extrapolation", "notes"),
    )
    # as they were written, not as a number would be
    assert list(written["note"]) == ["007", ""] and list(written["target_ratio"]) == ["1", ".25"]
    assert "EXTRAPOLATION" in written["notes"][1] and written["notes"][0] == ""
    assert "EXTRAPOLATION" in err and "wrote" in err
    expected = predict(load(passed), pd.read_csv(recipes)).frame()
    for name in ("loss_mean", "loss_lower", "new_run_upper", "extrapolation"):
        np.testing.assert_allclose(written[name].astype(float), expected[name], rtol=1e-6)


def test_predict_on_the_screen_and_as_json(run, passed, recipes):
    code, out, _ = run("predict", passed, recipes)
    about, intervals, _, header, *rows = out.splitlines()
    assert code == 0 and about.startswith("m3 on") and "assume that the law holds" in intervals
    assert "loss_mean" in header and len(rows) == 3
    code, out, err = run("predict", passed, recipes, "--json", "--ci", ".5")
    result = read_json(out)
    assert (code, err, result["ci"]) == (0, "", 0.5)
    assert [note["code"] for note in result["notes"]]
    small, large = result["recipes"]
    assert (small["name"], small["params"], small["first_ratio"]) == ("small", 1e6, None)
    assert small["loss_lower"] < small["loss_mean"] < small["loss_upper"]
    assert large["final_ratio"] == 0.5


def test_predictions_can_be_predicted_again(run, passed, recipes, tmp_path):
    first, second = tmp_path / "one.csv", tmp_path / "two.csv"
    assert run("predict", passed, recipes, "--out", first)[0] == 0
    assert run("predict", passed, first, "--out", second)[0] == 0
    assert second.read_bytes() == first.read_bytes()


def test_parquet_goes_in_and_comes_out(run, passed, recipes, tmp_path):
    pytest.importorskip("pyarrow", reason="parquet is an extra")
    table, out = tmp_path / "recipes.parquet", tmp_path / "pred.parquet"
    pd.read_csv(recipes).to_parquet(table)
    assert run("predict", passed, table, "--out", out)[0] == 0
    written = pd.read_parquet(out)
    assert list(written["name"]) == ["small", "large"] and (written["loss_sd"] > 0).all()


# --- recommend


def test_recommend(run, passed, tmp_path):
    out = tmp_path / "recipe.json"
    code, text, err = run("recommend", passed, *BUDGET, "--out", out)
    assert code == 0
    for word in ("Recommended", "Regimes", "Baselines", "4 epochs monolingual", "regret", "near-optimal"):
        assert word in text
    assert "nan" not in text.lower()
    assert "EXTRAPOLATION" in err
    written = read_json(out.read_text())
    recipe = written["recipe"]
    assert 6 * recipe["params"] * recipe["tokens"] == pytest.approx(written["compute_used"])
    assert written["compute_used"] <= 5e14 * (1 + 1e-9)
    assert written["posterior"]["verdict"] == "passed"
    code, text, err = run("recommend", passed, *BUDGET, "--json")
    assert (code, err) == (0, "")
    assert read_json(text) == written


def test_recommend_minds_bounds_frozen_variables_and_baselines(run, passed, tmp_path):
    baseline = tmp_path / "mine.csv"
    baseline.write_text("run,params,target_tokens,epochs\nmine,1e6,800000,3\n")
    code, text, _ = run(
        *("recommend", passed, *BUDGET, "--json", "--freeze", "r=1", "--max-params", "2e6"),
        *("--bound", "k=2:6", "--baseline", baseline, "--tolerance", ".01"),
    )
    result = read_json(text)
    assert code == 0
    assert result["regime"] == "monolingual"
    assert result["recipe"]["params"] <= 2e6 * (1 + 1e-9) and 2 <= result["recipe"]["epochs"] <= 6
    assert result["near_optimal"]["tolerance"] == 0.01
    assert result["baselines"]["mine"]["epochs"] == 3
    assert result["baselines"]["mine"]["excess_mean"] >= 0


def test_every_bound_has_its_options(run):
    _, out, _ = run("recommend", "--help")
    for name in LETTERS:
        assert f"--min-{name.replace('_', '-')}" in out and f"--max-{name.replace('_', '-')}" in out


def test_infeasible_requests_exit_with_4(run, passed):
    code, out, err = run("recommend", passed, *BUDGET, "--min-params", "1e12", "--max-params", "inf")
    assert (code, out) == (4, "")
    assert err.startswith("m3bayes: infeasible: ") and "params" in err


# --- flagged posteriors


def test_predict_and_recommend_refuse_a_flagged_posterior(run, flagged, recipes):
    for argv in (("predict", flagged, recipes), ("recommend", flagged, *BUDGET)):
        code, out, err = run(*argv)
        assert (code, out) == (3, "")
        assert "R_HAT" in err and "--allow flagged" in err
        code, out, _ = run(*argv, "--allow", "flagged")
        assert code == 0 and out


# --- the process


def test_a_reader_that_leaves_is_no_error(passed):
    command = [sys.executable, "-m", "m3bayes", "laws", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr:
        error = process.stderr.read()
    assert process.wait(60) == 141
    assert error == b""


def test_ctrl_c_is_quiet(run, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_command, "fit", interrupted)
    code, out, err = run("fit", TABLE, "--out", tmp_path / "p.nc")
    assert (code, out) == (130, "")
    assert err.splitlines() == ["m3bayes: fitting m3 to 120 runs of simulated_pilot.csv", "m3bayes: stopped"]


def test_bugs_are_not_hidden(monkeypatch, tmp_path):
    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(fit_command, "fit", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["fit", str(TABLE), "--out", str(tmp_path / "p.nc")])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_may_not_be_written(run, passed, tmp_path):
    tmp_path.chmod(0o500)
    assert "write" in bad(run, "recommend", passed, *BUDGET, "--out", tmp_path / "recipe.json")


def test_what_is_read_is_never_replaced(run, passed, recipes, tmp_path):
    table = tmp_path / "runs.csv"
    table.write_bytes(TABLE.read_bytes())
    before = {path: path.read_bytes() for path in (table, passed, recipes)}
    for argv in (
        ["fit", table, "--out", table],
        ["predict", passed, recipes, "--out", recipes],
        ["predict", passed, recipes, "--out", passed],
        ["recommend", passed, *BUDGET, "--out", passed],
        ["pilot", "run", table, "--target", "xx=xx", "--source", "en=en", "--out", table],
    ):
        code, _, messages = run(*argv)
        assert code == 2
        assert "is the file to read: give another path" in messages
    assert {path: path.read_bytes() for path in before} == before
