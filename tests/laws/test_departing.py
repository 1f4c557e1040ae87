"""The departure: nothing inside the range of the runs, the square root of the distance beyond, smooth between."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3bayes import laws
from m3bayes.errors import LawError
from m3bayes.laws.departing import TURN, VARIABLES, departing, departs, edges_of, growth, reach
from m3bayes.laws.law import without

RUNS = {
    "params": np.array([1e6, 4e6, 9e6]),
    "target_tokens": np.array([1e6, 1e6, 2e6]),
    "epochs": np.array([1.0, 4.0, 2.0]),
    "target_ratio": np.array([0.2, 1.0, 0.5]),
    "final_ratio": np.array([0.4, 1.0, 0.5]),
}


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def recipe(**changes) -> dict[str, float]:
    inside = {"params": 3e6, "target_tokens": 1.5e6, "epochs": 2.0, "target_ratio": 0.6, "final_ratio": 0.6}
    return inside | changes


def test_growth_is_none_inside_one_at_an_e_fold_and_a_square_root_far_out():
    assert growth(-3.0) == 0
    assert growth(0.0) == 0
    assert growth(1.0) == pytest.approx(1)
    assert growth(400.0) / growth(100.0) == pytest.approx(2, rel=0.002)
    t = np.linspace(0, 3, 50)
    assert np.all(np.diff(np.asarray(growth(t))) > 0)


def test_growth_has_two_continuous_derivatives_at_the_edge():
    first, second = jax.grad(growth), jax.grad(jax.grad(growth))
    for t in (-1e-9, 0.0, 1e-9):
        assert first(t) == pytest.approx(0, abs=1e-6)
        assert second(t) == pytest.approx(0, abs=1e-4)
    step = 1e-5
    assert first(0.5) == pytest.approx(float(growth(0.5 + step) - growth(0.5 - step)) / (2 * step), rel=1e-8)


def test_the_law_is_itself_inside_and_times_the_departure_beyond():
    law = laws.chinchilla()
    wide = departing(law, edges_of(RUNS))
    added = wide.names[len(law.names) :]
    c = {"E": 1.5, "A": 400.0, "B": 400.0, "alpha": 0.34, "beta": 0.28}
    w = {name: 0.01 * (i + 1) for i, name in enumerate(added)}
    assert wide.loss({**c, **w}, recipe()) == law.loss(c, recipe())
    beyond = recipe(params=9e7, epochs=8.0, target_ratio=0.1, final_ratio=0.1)

    # naive: each variable on its own, by the formula of the module
    logs = {
        "params": np.log(RUNS["params"]),
        "target_tokens": np.log(RUNS["target_tokens"]),
        "epochs": np.log(RUNS["epochs"]),
        "tokens": np.log(RUNS["epochs"] * RUNS["target_tokens"] / RUNS["target_ratio"]),
        "target_ratio": np.log(RUNS["target_ratio"]),
        "final_ratio": np.log(RUNS["final_ratio"]),
    }
    logs["compute"] = logs["params"] + logs["tokens"]
    D = 8.0 * 1.5e6 / 0.1
    at = {
        "params": 9e7, "target_tokens": 1.5e6, "epochs": 8.0, "tokens": D, "compute": 9e7 * D,
        "target_ratio": 0.1, "final_ratio": 0.1,
    }  # fmt: skip
    expected = 0.0
    for name in added:
        _, side, variable = name.split("_", 2)
        end = logs[variable].max() if side == "above" else -logs[variable].min()
        t = max((np.log(at[variable]) if side == "above" else -np.log(at[variable])) - end, 0)
        expected += w[name] * (1 + TURN) ** 2.5 * t**3 / (t + TURN) ** 2.5
    assert expected > 0.1
    found = wide.log_loss({**c, **w}, beyond) - law.log_loss(c, beyond)
    assert found == pytest.approx(np.tanh(expected), rel=1e-12)


def test_no_departure_takes_the_loss_farther_than_e_times():
    law = laws.chinchilla()
    wide = departing(law, edges_of(RUNS))
    c = {"E": 1.5, "A": 400.0, "B": 400.0, "alpha": 0.34, "beta": 0.28}
    far = recipe(params=1e15, epochs=1e4)
    for sign in (1, -1):
        w = dict.fromkeys(wide.names[len(law.names) :], 2.0 * sign)
        found = wide.log_loss({**c, **w}, far) - law.log_loss(c, far)
        assert found == pytest.approx(sign, abs=1e-6)


def test_nothing_lies_above_a_ratio_of_one():
    names = reach(edges_of(RUNS), recipe())
    assert "departure_below_target_ratio" in names
    assert "departure_above_target_ratio" not in names
    low = edges_of({**RUNS, "target_ratio": np.full(3, 0.3), "final_ratio": np.full(3, 0.9)})
    assert {"departure_above_target_ratio", "departure_above_final_ratio"} <= reach(low, recipe()).keys()


def test_units_of_parameters_and_tokens_do_not_matter():
    scaled = {**RUNS, "params": RUNS["params"] / 1e6, "target_tokens": RUNS["target_tokens"] / 1e9}
    far = recipe(params=1e9, target_tokens=1e8)
    here = reach(edges_of(RUNS), far)
    there = reach(edges_of(scaled), far | {"params": 1e3, "target_tokens": 0.1})
    assert here.keys() == there.keys()
    assert [float(v) for v in there.values()] == pytest.approx([float(v) for v in here.values()], rel=1e-9)


def test_what_it_says_of_itself():
    law = laws.m3()
    wide = departing(law, edges_of(RUNS))
    assert departs(wide) and not departs(law)
    assert wide.options["departure"].keys() == VARIABLES.keys()
    assert "e times above the runs' params" in wide["departure_above_params"].meaning
    assert jnp.isfinite(
        without(wide, wide.names[len(law.names) :]).loss(dict.fromkeys(law.names, 0.3), recipe())
    )


def test_errors():
    edges = edges_of(RUNS)
    with pytest.raises(LawError, match="has a departure already"):
        departing(departing(laws.m3(), edges), edges)
    with pytest.raises(LawError, match="no edges of epochs"):
        departing(laws.m3(), {name: ends for name, ends in edges.items() if name != "epochs"})
