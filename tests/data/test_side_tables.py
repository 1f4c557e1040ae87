"""The two small measured tables: the learning-rate rule is what they say, and the plans make them."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m3bayes.pilot.plan import read_plan
from m3bayes.pilot.train import default_rate

DATA = Path(__file__).parent.parent.parent / "data"
NAMES = ("learning_rate", "decay")


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_is_the_script_s_and_every_run_was_trained(name):
    written = read_plan(DATA / f"{name}_plan.csv")
    made = runpy.run_path(str(DATA / "side_plans.py"))[f"{name}_plan"]()
    pd.testing.assert_frame_equal(written, made)
    trained = pd.read_csv(DATA / f"{name}.csv")
    assert set(trained["run"]) == set(written["run"])
    assert (trained["status"] == "ok").all()


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
