"""`m3bayes pilot` on made-up text; that sweeps train and resume is in tests/pilot/test_sweep.py."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from m3bayes import cli
from m3bayes.pilot import speed
from m3bayes.pilot.plan import read_plan
from m3bayes.runs import read_runs
from tests.pilot.texts import write_folder

PLAN = """\
run,block,language,params,target_tokens,epochs,target_ratio,final_ratio,first_ratio,subset,seed
a,test,xx,24736,6000,1,1,1,,0,0
b,test,xx,24736,6000,1,0.5,1,0,0,0
"""


@pytest.fixture
def run(capsys):
    """run(*argv) -> (exit code, stdout, stderr)"""

    def call(*argv: object) -> tuple[int, str, str]:
        code = cli.main(["pilot", *map(str, argv)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pilot")
    write_folder(folder / "xx", "target", 80)
    write_folder(folder / "en", "source", 120)
    (folder / "plan.csv").write_text(PLAN)
    return folder


def texts(folder: Path) -> list[object]:
    return ["--target", f"xx={folder / 'xx'}", "--source", f"en={folder / 'en'}", "--cache", folder / "cache"]


def test_plan_run_status(run, folder, tmp_path):
    out = tmp_path / "runs.csv"
    code, text, _ = run("status", folder / "plan.csv", "--out", out)
    assert code == 0 and text.splitlines()[-1].split()[1:3] == ["2", "0"]
    code, _, messages = run("run", folder / "plan.csv", "--out", out, *texts(folder))
    assert code == 0
    assert "2 of 2 runs to train" in messages and f"wrote {out}" in messages
    assert list(read_runs(out)["run"]) == ["a", "b"]
    code, text, _ = run("status", folder / "plan.csv", "--out", out, "--json")
    total = json.loads(text)["total"]
    assert (total["runs"], total["done"], total["diverged"], total["flops_left"]) == (2, 2, 0, 0)
    code, _, messages = run("run", folder / "plan.csv", "--out", out, *texts(folder))
    assert code == 0 and "0 of 2 runs to train" in messages


def test_a_dry_run_says_the_cost_and_trains_nothing(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "tokens_a_second", lambda shape, vocabulary: 1000.0)
    out = tmp_path / "runs.csv"
    code, text, _ = run("run", folder / "plan.csv", "--out", out, *texts(folder), "--dry-run", "--json")
    found = json.loads(text)
    assert code == 0 and not out.exists()
    assert found["hours"] == pytest.approx((6000 + 12_000) / 1000 / 3600)
    assert found["total"]["flops_left"] == found["total"]["flops"] > 6 * 24_736 * 18_000
    _, text, _ = run("run", folder / "plan.csv", "--out", out, *texts(folder), "--dry-run", "--workers", 2)
    assert text.splitlines()[-1] == "about 0.0025 hours on this device with 2 workers"


def test_the_speed_of_the_smallest_shape_is_measured():
    from m3bayes.pilot.model import SHAPES

    assert 100 < speed.tokens_a_second(SHAPES[0], 256) < 1e9


def test_two_sources_and_a_checkpoint(run, folder, tmp_path):
    """A model kept of one plan, gone on from in another, with the same texts."""
    write_folder(tmp_path / "fr", "source", 60, seed=5)
    sources = [*texts(folder), "--source", f"fr={tmp_path / 'fr'}"]
    header = "run,block,language,params,target_tokens,epochs,target_ratio,final_ratio,subset,seed"
    (tmp_path / "first.csv").write_text(
        f"{header},en_tokens,fr_tokens\nbase,test,xx,24736,6000,1,0.5,0.5,0,0,1500,4500\n"
    )
    (tmp_path / "second.csv").write_text(
        f"{header},checkpoint\non,test,xx,24736,6000,1,1,1,0,0,base\nfresh,test,xx,24736,6000,1,1,1,0,0,\n"
    )
    out, models = tmp_path / "runs.csv", tmp_path / "models"
    code, _, messages = run("run", tmp_path / "second.csv", "--out", out, *sources, "--checkpoints", models)
    assert code == 2 and "base.npz cannot be read" in messages and not out.exists()
    code, _, _ = run(
        "run", tmp_path / "first.csv", "--out", tmp_path / "base.csv", *sources, "--keep", models
    )
    base = read_runs(tmp_path / "base.csv")
    assert code == 0 and list(base["source"]) == ["en+fr"]
    assert base["fr_tokens"] / base["en_tokens"] == pytest.approx(3, rel=0.1)
    code, _, _ = run("run", tmp_path / "second.csv", "--out", out, *sources, "--checkpoints", models)
    on, fresh = read_runs(out)["loss"]
    assert code == 0 and on < fresh and list(read_runs(out)["continued"]) == [1, 0]


def test_plan_writes_a_plan(run, tmp_path):
    out = tmp_path / "plan.csv"
    code, text, _ = run(
        "plan", "--languages", "xx,yy", "--source-tokens", "3e7", "--sobol", 10, "--seeds", 1, "--out", out
    )
    assert code == 0
    plan = read_plan(out)
    assert set(plan["language"]) == {"xx", "yy"}
    assert text.splitlines()[-1].split()[1] == str(len(plan))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["plan", "--languages", "xx", "--source-tokens", "1e7", "--sizes", "5e3"],
            "no pilot model has about",
        ),
        (["plan", "--languages", "xx", "--source-tokens", "1e7", "--compute", "1e9"], "expected LOW,HIGH"),
        (["plan", "--languages", "xx", "--source-tokens", "-1"], "expected a number above 0, got '-1'"),
        (["plan", "--languages", "xx,xx", "--source-tokens", "1e7"], "each once"),
        (["run", "plan.csv", "--target", "xx", "--source", "en=en"], "expected NAME=PATH"),
        (["run", "plan.csv", "--target", "xx=en", "--target", "xx=en", "--source", "en=en"], "given twice"),
        (["run", "plan.csv", "--target", "xx=xx", "--source", "en=en", "--source", "en=en"], "given twice"),
        (["run", "plan.csv", "--target", "xx=xx", "--source", "xx=en"], "names both a target and a source"),
        (["run", "plan.csv", "--target", "yy=xx", "--source", "en=en"], "language 'xx' has no text"),
        (["run", "plan.csv", "--target", "xx=none", "--source", "en=en"], "none"),
        (["run", "none.csv", "--target", "xx=xx", "--source", "en=en"], "none.csv"),
        (["status", "none.csv"], "none.csv"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, folder, monkeypatch, argv, message):
    monkeypatch.chdir(folder)
    code, text, messages = run(*argv, "--out", "new.csv")
    assert code == 2 and not text
    assert message in messages.splitlines()[-1]
    assert "Traceback" not in messages
    assert not Path("new.csv").exists()


def test_without_the_extra_it_says_how_to_install_it(run, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, messages = run(
        "plan", "--languages", "xx", "--source-tokens", "1e7", "--out", tmp_path / "p.csv"
    )
    assert code == 2
    assert "equinox, not installed: pip install 'm3bayes[pilot]'" in messages
