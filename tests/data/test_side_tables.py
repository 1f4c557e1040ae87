"""The measured tables beside the pilot's: the plans make them, and they vary what they are for."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m3bayes.data import continued_runs, trilingual_runs
from m3bayes.pilot.plan import read_plan
from m3bayes.pilot.train import default_rate

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "data"
SHIPPED = ROOT / "m3bayes" / "data"
TABLES = {
    "learning_rate": DATA / "learning_rate.csv",
    "decay": DATA / "decay.csv",
    "checkpoint": DATA / "checkpoint.csv",
    "trilingual": SHIPPED / "trilingual_runs.csv",
    "continued": SHIPPED / "continued_runs.csv",
}


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(DATA / "side_plans.py"))


@pytest.mark.parametrize("name", TABLES)
def test_the_plan_is_the_script_s_and_every_run_was_trained(name, script):
    written = read_plan(DATA / f"{name}_plan.csv")
    pd.testing.assert_frame_equal(written, script[f"{name}_plan"]())
    trained = pd.read_csv(TABLES[name])
    assert set(trained["run"]) == set(written["run"])
    assert (trained["status"] == "ok").all()
    rows = written.set_index("run").loc[list(trained["run"])]
    assert np.array_equal(trained["params"], rows["params"])
    assert np.array_equal(trained["target_tokens"], rows["target_tokens"])
    assert np.allclose(trained["epochs"], rows["epochs"], rtol=0.02)  # whole steps of 512 tokens


def test_the_rule_is_near_the_best_rate_of_every_size():
    table = pd.read_csv(DATA / "learning_rate.csv")
    for N, runs in table.groupby("params"):
        runs = runs.sort_values("lr").reset_index(drop=True)
        best = int(runs["loss"].idxmin())
        assert 0 < best < len(runs) - 1, "the best rate is inside those tried"
        three = runs.iloc[best - 1 : best + 2]
        a, b, _ = curve = np.polyfit(np.log(three["lr"]), three["loss"], 2)
        optimum = -b / (2 * a)
        excess = np.polyval(curve, np.log(default_rate(N))) - np.polyval(curve, optimum)
        assert abs(np.log(default_rate(N)) - optimum) < np.log(1.4)
        assert excess < 0.01  # nats a byte


def test_a_cosine_costs_two_stages_more_than_it_costs_one():
    loss = pd.read_csv(DATA / "decay.csv").set_index("run")["loss"]
    costs = {
        regime: loss[f"{regime}-cosine"] - loss[f"{regime}-linear"]
        for regime in ("monolingual", "single", "two")
    }
    assert all(cost > 0 for cost in costs.values())
    assert costs["two"] == max(costs.values())


# ---- two sources -------------------------------------------------------------------------------


def test_the_trilingual_table_counts_every_token_of_every_text():
    runs = trilingual_runs()
    assert len(runs) >= 60 and set(runs["source"]) == {"en+fr"} and set(runs["language"]) == {"de"}
    T = runs["epochs"] * runs["target_tokens"]
    assert np.allclose(T + runs["en_tokens"] + runs["fr_tokens"], runs["tokens"])
    for source in ("en", "fr"):
        assert np.array_equal(runs[f"{source}_tokens"], runs[f"{source}_unique_tokens"])
    plan = read_plan(DATA / "trilingual_plan.csv").set_index("run").loc[list(runs["run"])]
    for source in ("en", "fr"):
        assert np.abs(runs[f"{source}_tokens"] - plan[f"{source}_tokens"]).max() <= 512


def test_the_trilingual_table_varies_the_mix_at_every_size_and_scarcity():
    runs = trilingual_runs()
    S = runs["en_tokens"] + runs["fr_tokens"]
    alone = runs["target_ratio"] == 1
    cells = {(N, U) for N in set(runs["params"]) for U in set(runs["target_tokens"])}
    assert len(cells) == 9
    assert set(zip(runs["params"][alone], runs["target_tokens"][alone], strict=True)) == cells
    share = runs["en_tokens"][~alone] / S[~alone]
    assert min((share == 0).sum(), (share == 1).sum()) >= 8
    assert ((share > 0.2) & (share < 0.8)).sum() >= 15
    assert runs["target_ratio"].min() < 0.12 and runs["epochs"].max() > 8


@pytest.mark.parametrize(("N", "U"), [(24_736, 20_000), (24_736, 80_000), (55_536, 320_000)])
def test_source_text_of_any_mix_helps(N, U):
    """k epochs with source text are better than German alone halfway between k / 2 and 2 k epochs."""
    cell = trilingual_runs().where(f"params == {N} and target_tokens == {U}")
    mix, alone = cell.where("block == 'mix'"), cell.where("block == 'alone'")
    assert len(mix) == 5 and len(alone) == 2
    assert np.sqrt(np.prod(alone["epochs"])) == pytest.approx(mix["epochs"], rel=0.01)
    assert mix["loss"].max() < alone["loss"].mean()


# ---- from scratch and from a checkpoint --------------------------------------------------------


def test_continued_runs_are_pairs_that_differ_in_where_they_begin():
    runs = continued_runs()
    assert len(runs) >= 40 and set(runs["target_ratio"]) == {1.0}
    frame = runs.frame().set_index("run")
    assert (frame["epochs"] <= 1).all(), "no text is read twice"
    scratch, on = (frame[frame["continued"] == value] for value in (0, 1))
    same = ["params", "target_tokens", "epochs", "lr", "decay", "steps", "subset", "seed"]
    pd.testing.assert_frame_equal(
        scratch.sort_values(["params", "steps"])[same].reset_index(drop=True),
        on.sort_values(["params", "steps"])[same].reset_index(drop=True),
    )
    assert (scratch["checkpoint"] == "").all()
    kept = pd.read_csv(DATA / "checkpoint.csv").set_index("run")
    assert list(kept.loc[list(on["checkpoint"]), "params"]) == list(on["params"])
    # one checkpoint a size, and its first digits after those of the texts
    assert on["corpus"].nunique() == on["params"].nunique() == len(kept)
    (texts,) = set(scratch["corpus"])
    assert all(corpus.startswith(f"{texts}+") for corpus in on["corpus"])


def test_a_checkpoint_is_ahead_where_there_is_little_text():
    runs = continued_runs()
    least = runs.where(f"target_tokens == {runs['target_tokens'].min()}")
    for N in set(runs["params"]):
        some = least.where(f"params == {N}")
        scratch, on = (some["loss"][some["continued"] == value] for value in (0, 1))
        assert on < 0.9 * scratch
