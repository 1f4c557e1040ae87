"""Sweeps of a few seconds on made-up text: what is trained, written, resumed and refused."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from m3bayes.errors import M3BayesError, RecipeError, RunTableError
from m3bayes.pilot import results
from m3bayes.pilot.checkpoints import Folders, load
from m3bayes.pilot.corpus import read_corpora
from m3bayes.pilot.model import nearest_shape
from m3bayes.pilot.plan import plan_from_frame
from m3bayes.pilot.stream import gather
from m3bayes.pilot.sweep import check, left, sweep
from m3bayes.pilot.train import CONTEXT, measure
from m3bayes.pilot.trial import Texts, _job, trials
from m3bayes.runs import read_runs
from tests.pilot.texts import write_folder

N = 24_736
RECIPES = pd.DataFrame(
    {
        "run": ["mono", "mixed", "staged", "again"],
        "block": "test",
        "language": "xx",
        "params": N,
        "target_tokens": [8000, 8000, 4000, 8000],
        "epochs": [2.0, 1.0, 2.0, 2.0],
        "target_ratio": [1.0, 0.5, 0.5, 1.0],
        "final_ratio": [1.0, 0.5, 1.0, 1.0],
        "first_ratio": [np.nan, np.nan, 0.25, np.nan],
        "subset": [0, 0, 0, 1],
        "seed": [0, 0, 0, 1],
    }
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_folder(folder / "xx", "target", 80)
    write_folder(folder / "en", "source", 120)
    return folder


@pytest.fixture(scope="module")
def texts(folders) -> Texts:
    return Texts(*read_corpora({"xx": folders / "xx"}, {"en": folders / "en"}))


@pytest.fixture(scope="module")
def plan() -> pd.DataFrame:
    return plan_from_frame(RECIPES)


@pytest.fixture(scope="module")
def table(texts, plan, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("table") / "runs.csv"
    sweep(plan, texts, out)
    return out


def test_every_run_has_its_row_and_the_table_is_one_of_runs(table, plan, texts):
    runs = read_runs(table)
    assert list(runs["run"]) == list(plan["run"])
    assert (runs["params"] == N).all()
    assert runs["epochs"] == pytest.approx(plan["epochs"], rel=0.05)
    assert runs["target_ratio"] == pytest.approx(plan["target_ratio"], rel=0.02)
    assert list(runs["status"]) == ["ok"] * 4
    assert ((runs["loss"] > 1) & (runs["loss"] < np.log(256))).all()
    assert np.array_equal(runs["tokens"], runs["steps"] * 8 * 64)
    staged = runs.where("run == 'staged'")
    assert staged["first_stage_tokens"] + staged["last_stage_tokens"] == staged["tokens"]
    assert staged["last_stage_tokens"] / staged["tokens"] == pytest.approx(1 / 3, abs=0.01)
    assert set(runs["corpus"]) == {texts.fingerprint("xx")}
    assert runs["flops"] == pytest.approx(6 * (N + 256 * 32 + 2 * 2 * 32 * 64) * runs["tokens"], rel=0.01)


def test_another_seed_and_subset_give_another_loss(table):
    loss = dict(zip(*(read_runs(table)[name] for name in ("run", "loss")), strict=True))
    assert loss["mono"] != loss["again"]
    assert loss["mono"] == pytest.approx(loss["again"], rel=0.2)


def test_a_second_sweep_trains_nothing_again(table, plan, texts):
    before = table.read_bytes()
    sweep(plan, texts, table)
    assert table.read_bytes() == before


def test_a_part_of_the_table_is_completed_with_the_same_losses(table, plan, texts, tmp_path):
    part = tmp_path / "runs.csv"
    rows = results.read_results(table)
    results.append(part, [rows[2], rows[0]])
    assert list(left(plan, texts, part)["run"]) == ["mixed", "again"]
    sweep(plan, texts, part)
    losses = {row["run"]: row["loss"] for row in rows}
    assert {row["run"]: row["loss"] for row in results.read_results(part)} == losses


def test_two_workers_find_what_one_finds(table, plan, texts, tmp_path):
    out = tmp_path / "runs.csv"
    sweep(plan, texts, out, workers=2)
    one, two = (
        {row["run"]: float(row["loss"]) for row in results.read_results(path)} for path in (table, out)
    )
    assert two.keys() == one.keys()
    assert [two[run] for run in one] == pytest.approx(list(one.values()), rel=1e-4)


def test_a_killed_sweep_leaves_whole_rows_and_goes_on(plan, texts, folders, table, tmp_path):
    out, csv = tmp_path / "runs.csv", tmp_path / "plan.csv"
    plan.to_csv(csv, index=False)
    command = [sys.executable, "-m", "m3bayes", "pilot", "run", str(csv), "--out", str(out)]
    command += ["--target", f"xx={folders / 'xx'}", "--source", f"en={folders / 'en'}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not results.read_results(out):
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()  # type: ignore[union-attr]
    some = results.read_results(out)
    sweep(plan, texts, out)
    kept = results.read_results(out)
    assert kept[: len(some)] == some
    assert sorted(row["run"] for row in kept) == sorted(plan["run"])
    whole = {row["run"]: row["loss"] for row in results.read_results(table)}
    assert {row["run"]: row["loss"] for row in kept} == whole


def test_workers_end_with_the_sweep(plan, folders, tmp_path):
    out, csv = tmp_path / "runs.csv", tmp_path / "plan.csv"
    long = plan.head(2).assign(epochs=2000.0, target_ratio=1.0, final_ratio=1.0)
    long.to_csv(csv, index=False)
    command = [sys.executable, "-m", "m3bayes", "pilot", "run", str(csv), "--out", str(out), "--workers", "2"]
    command += ["--target", f"xx={folders / 'xx'}", "--source", f"en={folders / 'en'}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(workers := _workers(process.pid)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _workers(parent: int) -> list[int]:
    """Processes that ``parent`` started to train, by their number."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:  # ended meanwhile
            continue
        if int(status[1]) == parent and b"spawn_main" in command:
            found.append(int(folder.name))
    return found


def test_diverged_runs_are_recorded_as_such(texts, tmp_path):
    frame = RECIPES.iloc[:2].assign(lr=[1e30, 3e-3])
    out = tmp_path / "runs.csv"
    sweep(plan_from_frame(frame), texts, out)
    rows = results.read_results(out)
    assert [(row["status"], row["loss"] == "") for row in rows] == [("diverged", True), ("ok", False)]
    with pytest.raises(RunTableError, match=r"row 1 .*column loss"):
        read_runs(out)
    assert len(read_runs(out, where="status == 'ok'")) == 1


# ---- several sources ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_sources(folders) -> Texts:
    write_folder(folders / "fr", "source", 60, seed=5)
    sources = {"en": folders / "en", "fr": folders / "fr"}
    return Texts(*read_corpora({"xx": folders / "xx"}, sources))


def test_several_sources_are_read_as_the_plan_says(two_sources, tmp_path):
    tokens = {"en_tokens": [0, 8000, 2000, 0], "fr_tokens": [0, np.nan, 6000, 0]}
    out = tmp_path / "runs.csv"
    sweep(plan_from_frame(RECIPES.assign(**tokens).iloc[:3]), two_sources, out)
    runs = read_runs(out)
    assert list(runs["source"]) == ["en+fr"] * 3
    T = runs["epochs"] * runs["target_tokens"]
    assert runs["en_tokens"] + runs["fr_tokens"] == pytest.approx(runs["tokens"] - T)
    assert runs["en_tokens"] / (runs["tokens"] - T + 1e-9) == pytest.approx([0, 1, 0.25], abs=0.01)
    for name in ("en", "fr"):
        assert np.array_equal(runs[f"{name}_tokens"], runs[f"{name}_unique_tokens"])
    assert set(runs["corpus"]) == {two_sources.fingerprint("xx")}
    assert two_sources.fingerprint("xx").count("+") == 2


def test_the_windows_of_a_run_are_those_of_its_sources(two_sources):
    """The bytes that training sees, found again in the texts."""
    (trial,) = trials(plan_from_frame(RECIPES.assign(en_tokens=2000, fr_tokens=6000).iloc[[2]]))
    job = _job(trial, two_sources, None)
    tokens = gather(job.order, job.target, job.source, CONTEXT, 0, len(job.order))
    found = {"xx": 0, "en": 0, "fr": 0}
    text = {name: corpus.train.tobytes() for name, corpus in two_sources.sources.items()}
    ring = job.target.tobytes() * 2
    for window in tokens:
        (name,) = [name for name, where in ({"xx": ring} | text).items() if window.tobytes() in where]
        found[name] += 1
    assert found == {"xx": 124, "en": 31, "fr": 93}  # of 31 steps of 8 windows


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (
            {},
            "run mixed: 8,000 source tokens, but the plan does not say of which source; .* en_tokens, fr_tokens",
        ),
        (
            {"en_tokens": 8000, "fr_tokens": 500},
            r"run mixed: en_tokens \+ fr_tokens is 8,500, expected .* = 8,000",
        ),
        ({"en_tokens": 0, "ja_tokens": 8000}, r"run mixed: en_tokens \+ fr_tokens is 0, expected"),
    ],
)
def test_sources_that_do_not_make_up_the_recipe_are_refused(two_sources, tokens, message):
    with pytest.raises(RecipeError, match=message):
        check(plan_from_frame(RECIPES.iloc[[1]].assign(**tokens)), two_sources)


def test_more_than_a_source_has_is_refused_by_its_name(two_sources):
    tokens = 64 * (len(two_sources.sources["fr"].train) // 64) + 640
    frame = RECIPES.iloc[[1]].assign(epochs=tokens / 8000, en_tokens=0, fr_tokens=tokens)
    with pytest.raises(RecipeError, match=r"run mixed: .* source tokens of fr asked for"):
        check(plan_from_frame(frame), two_sources)


# ---- checkpoints -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(texts, tmp_path_factory) -> Path:
    """Models of a run of the test's plan, one with each of two seeds."""
    folder = tmp_path_factory.mktemp("kept")
    plan = plan_from_frame(RECIPES.iloc[[0, 3]])
    sweep(plan, texts, folder / "runs.csv", folders=Folders(keep=folder / "models"))
    return folder / "models"


@pytest.fixture(scope="module")
def continued_plan() -> pd.DataFrame:
    rows = pd.concat([RECIPES.iloc[[0, 0]], RECIPES.iloc[[2]]])
    names = {"run": ["scratch", "on", "staged-on"], "checkpoint": ["", "again", "again"], "seed": 7}
    return plan_from_frame(rows.assign(**names))


@pytest.fixture(scope="module")
def continued(texts, kept, continued_plan, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("continued") / "runs.csv"
    sweep(continued_plan, texts, out, folders=Folders(checkpoints=kept))
    return out


def test_runs_go_on_from_the_model_that_was_kept(continued, kept, texts):
    assert sorted(path.name for path in kept.iterdir()) == ["again.npz", "mono.npz"]
    runs = read_runs(continued)
    assert list(runs["continued"]) == [0, 1, 1]
    assert list(runs["checkpoint"]) == ["", "again", "again"]
    loss = dict(zip(runs["run"], runs["loss"], strict=True))
    assert loss["on"] < loss["scratch"] - 0.1
    digest = load(kept, "again", nearest_shape(N), 256).digest
    plain = texts.fingerprint("xx")
    assert list(runs["corpus"]) == [plain, *[f"{plain}+{digest[:12]}"] * 2]


def test_a_kept_model_has_the_loss_of_its_row(kept, texts):
    rows = {row["run"]: row for row in results.read_results(kept.parent / "runs.csv")}
    model = load(kept, "again", nearest_shape(N), 256).model
    stacked = jax.tree.map(lambda leaf: leaf[None], model)
    (outcome,) = measure(stacked, texts.targets["xx"].validation, texts.sources["en"].validation)
    assert outcome.target_loss == pytest.approx(float(rows["again"]["loss"]), abs=1e-5)


def test_a_part_of_a_continued_sweep_is_completed_with_the_same_losses(
    continued, continued_plan, texts, kept, tmp_path
):
    rows = results.read_results(continued)
    for workers in (1, 2):
        part = tmp_path / f"{workers}.csv"
        results.append(part, [rows[1]])
        sweep(continued_plan, texts, part, folders=Folders(checkpoints=kept), workers=workers)
        found = {row["run"]: float(row["loss"]) for row in results.read_results(part)}
        assert found == pytest.approx({row["run"]: float(row["loss"]) for row in rows}, rel=1e-4)


def test_another_checkpoint_than_the_table_s_is_refused(continued, continued_plan, texts, kept, tmp_path):
    (tmp_path / "again.npz").write_bytes((kept / "mono.npz").read_bytes())
    with pytest.raises(M3BayesError, match="run on was trained on another text, or went on from another"):
        sweep(continued_plan, texts, continued, folders=Folders(checkpoints=tmp_path))


def test_a_checkpoint_that_is_not_there_is_refused_before_anything_is_trained(
    continued_plan, texts, tmp_path
):
    for folders, message in (
        (Folders(), "no folder of checkpoints is given"),
        (Folders(checkpoints=tmp_path), r"again\.npz cannot be read"),
    ):
        with pytest.raises(M3BayesError, match=message):
            sweep(continued_plan, texts, tmp_path / "runs.csv", folders=folders)
    assert not (tmp_path / "runs.csv").exists()


def test_a_model_that_diverged_is_not_kept(texts, tmp_path):
    plan = plan_from_frame(RECIPES.iloc[[0]].assign(lr=1e30))
    sweep(plan, texts, tmp_path / "runs.csv", folders=Folders(keep=tmp_path / "models"))
    assert not (tmp_path / "models").exists()


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"language": "yy"}, M3BayesError, "run mono: language 'yy' has no text, there is xx"),
        ({"target_tokens": 10**7}, M3BayesError, "run mono: target_tokens is 10000000, corpus xx has"),
        (
            {"target_ratio": 0.02, "final_ratio": 0.02},
            RecipeError,
            "run mono: .* source text is never repeated",
        ),
        ({"epochs": 1e-6, "target_ratio": 0.5}, RecipeError, "run mono: .* too few for its stages"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(changes, error, message, texts, tmp_path):
    frame = RECIPES.iloc[[0]].assign(**changes)
    if "final_ratio" not in changes and "target_ratio" in changes:
        frame = frame.assign(first_ratio=0.49)
    with pytest.raises(error, match=message):
        sweep(plan_from_frame(frame), texts, tmp_path / "runs.csv")
    with pytest.raises(error, match=message):
        check(plan_from_frame(frame), texts)
    assert not (tmp_path / "runs.csv").exists()


def test_a_table_of_another_text_is_refused(table, plan, texts, tmp_path):
    other = tmp_path / "runs.csv"
    results.append(other, [results.read_results(table)[0] | {"corpus": "abc+def"}])
    with pytest.raises(M3BayesError, match="run mono was trained on another text"):
        sweep(plan, texts, other)


def test_a_table_that_another_sweep_writes_is_refused(plan, texts, tmp_path):
    out = tmp_path / "runs.csv"
    with results.only_writer(out), pytest.raises(M3BayesError, match="being written by another sweep"):
        sweep(plan, texts, out)


def test_further_columns_are_blank_in_rows_that_have_none(table, tmp_path):
    rows, out = results.read_results(table), tmp_path / "runs.csv"
    results.append(out, rows[:1])
    results.append(out, [rows[1] | {"en_tokens": 64, "en_unique_tokens": 64}])
    results.append(out, [rows[2] | {"checkpoint": "a", "continued": 1}])
    found = results.read_results(out)
    further = ("en_tokens", "en_unique_tokens", "checkpoint", "continued")
    cells = [tuple(row[name] for name in further) for row in found]
    assert cells == [("", "", "", ""), ("64", "64", "", ""), ("", "", "a", "1")]
    assert tuple(found[0]) == (*results.COLUMNS, *further)


def test_other_tables_are_refused(tmp_path):
    out = tmp_path / "runs.csv"
    out.write_text("run,loss\na,1\n")
    with pytest.raises(RunTableError, match="is not the table of a sweep"):
        results.read_results(out)
    out.write_text(",".join([*results.COLUMNS, "note"]) + "\n")
    with pytest.raises(RunTableError, match=r"is not the table of a sweep \(columns note\)"):
        results.read_results(out)
    out.write_text(",".join(results.COLUMNS) + "\na,b\n")
    with pytest.raises(RunTableError, match="row 1 does not have"):
        results.read_results(out)
