"""Where training from scratch overtakes a checkpoint: against roots of the law, and a known truth."""

from __future__ import annotations

import dataclasses
import inspect

import jax
import numpy as np
import pytest
from scipy.optimize import brentq

from m3bayes.errors import LawError, M3BayesError, RunTableError
from m3bayes.inference.fit import fit
from m3bayes.inference.simulate import simulate
from m3bayes.languages import crossover, published_crossover, with_starts
from m3bayes.languages.draws import positive_values
from m3bayes.laws import chinchilla, continued
from m3bayes.runs import runs_from_frame
from tests.languages.designs import CONTINUED, by_hand, continued_runs
from tests.laws.surfaces import naive, recipe

RUNS = continued_runs()
POST = by_hand(continued(), CONTINUED, RUNS)


def with_rho(rho: float, share: float = 1.0):
    """The posterior with rho at a value in a share of its draws."""
    draws = dict(POST.draws)
    draws["rho"] = np.where(np.arange(400).reshape(2, 200) < 400 * share, rho, draws["rho"])
    return dataclasses.replace(POST, draws=draws)


def test_both_ways_give_the_same_loss_there():
    sizes = (5e7, 6e8)
    found = crossover(POST, sizes)
    assert found.tokens.shape == (400, 2)
    for draw in (0, 57, 399):
        c = {name: float(values[draw]) for name, values in POST.coefficients.items()}
        for column, N in enumerate(sizes):

            def gain(u: float, c=c, N=N) -> float:
                x = recipe(params=N, target_tokens=float(np.exp(u)))
                scratch, checkpoint = (naive(continued(), c, {**x, "continued": kind}) for kind in (0.0, 1.0))
                return scratch - checkpoint

            root = brentq(gain, np.log(1e7), np.log(1e13), xtol=1e-12)
            assert found.tokens[draw, column] == pytest.approx(np.exp(root), rel=1e-6)


def test_compute_is_a_power_of_size():
    found = crossover(POST, [1e8, 1e9])
    C = 6 * np.array([1e8, 1e9]) * found.tokens
    assert found.exponent.draws == pytest.approx(np.log10(C[:, 1] / C[:, 0]))
    table = found.table
    assert table["compute"].to_numpy() == pytest.approx(np.quantile(C, 0.5, axis=0), rel=0.01)
    assert (table["compute_lower"] < table["compute"]).all()
    assert (table["compute"] < table["compute_upper"]).all()
    assert table["head_start"].to_numpy() == pytest.approx(table["tokens"].to_numpy() * 0.4, rel=0.05)
    assert found.tokens_range == (2e8, 2e11) and found.notes == ()


def test_units_of_the_table_do_not_matter():
    frame = RUNS.frame()
    frame = frame.assign(params=frame["params"] / 1e6, target_tokens=frame["target_tokens"] / 1e9)
    draws = dict(POST.draws)
    for name, size, power in (
        ("A", 1e6, "-alpha"),
        ("B", 1e9, "-beta"),
        ("G", 1e9, "beta"),
        ("G", 1e6, "-zeta"),
    ):
        sign = -1 if power[0] == "-" else 1
        draws[name] = draws[name] * size ** (sign * draws[power.lstrip("-")])
    runs = runs_from_frame(frame, unit_params=1e6, unit_tokens=1e9)
    found = crossover(dataclasses.replace(POST, runs=runs, draws=draws), 300).table.iloc[0]
    expected = crossover(POST, 3e8).table.iloc[0]
    assert found["compute"] == pytest.approx(expected["compute"])
    assert found["tokens"] * 1e9 == pytest.approx(expected["tokens"])
    assert found["outside"] == expected["outside"] == 0


def test_draws_that_never_cross_count_as_infinite():
    found = crossover(with_rho(1.2, share=0.3), 3e8)
    row = found.table.iloc[0]
    assert row["never"] == row["outside"] == pytest.approx(0.3)
    assert np.isinf(row["tokens_upper"]) and np.isfinite(row["tokens"])
    crossing = np.sort(found.tokens[:, 0])
    assert row["tokens"] == crossing[199] and np.isinf(crossing[280:]).all()
    codes = {note.code: note for note in found.notes}
    assert set(codes) == {"NEVER_CROSSES"}  # all others cross within the runs
    assert "in 30% of the draws" in codes["NEVER_CROSSES"].message
    assert np.isinf(crossover(with_rho(1.0), 3e8).tokens).all()


def test_a_law_without_rho_never_crosses_and_one_without_zeta_has_one_head_start():
    same = crossover(by_hand(continued(drop=("rho",)), CONTINUED, RUNS), [1e8, 1e9])
    assert (same.table["never"] == 1).all()
    flat = crossover(by_hand(continued(drop=("zeta",)), CONTINUED, RUNS), [1e8, 1e9])
    assert flat.exponent.draws == pytest.approx(1)
    assert flat.tokens[:, 0] == pytest.approx(flat.tokens[:, 1])


def test_notes_say_where_the_runs_do_not_reach():
    (sizes,) = crossover(POST, [1e8, 2e9]).notes
    assert sizes.code == "EXTRAPOLATION" and "2e+09" in sizes.message
    early = RUNS.where("target_tokens < 4e9 or start == 'scratch'")
    found = crossover(dataclasses.replace(POST, runs=early), [3e7, 1e9])
    assert found.tokens_range == (2e8, 3e9)
    expected = np.mean((found.tokens < 2e8) | (found.tokens > 3e9), axis=0)
    assert found.table["outside"].to_numpy() == pytest.approx(expected)
    assert expected[0] < 0.2 and expected[1] == 1
    (note,) = found.notes
    assert note.code == "CROSSOVER_OUTSIDE" and "2e+08 to 3e+09" in note.message and "1e+09" in note.message
    scratch = crossover(dataclasses.replace(POST, runs=RUNS.where("continued == 0")), 3e8)
    assert scratch.table["outside"].to_list() == [1] and scratch.notes[0].code == "CROSSOVER_OUTSIDE"


def test_a_known_truth_is_recovered():
    simulated = simulate(continued(), RUNS, jax.random.key(23))
    truth = {name: float(value) for name, value in simulated.truth.items()}
    assert truth["rho"] < 0.7
    post = fit(
        simulated.runs, continued(), chains=2, draws=500, constants=simulated.constants, progress=False
    )
    found = crossover(post, [3e7, 1e9])
    head_start = (truth["G"] * np.array([3e7, 1e9]) ** -truth["zeta"]) ** (-1 / truth["beta"])
    below = np.mean(found.tokens < head_start / (1 - truth["rho"]), axis=0)
    assert ((below > 1e-3) & (below < 1 - 1e-3)).all()  # z of 3
    table = found.table
    # within a factor of 2; of e^3 and more in the prior
    assert (table["tokens_upper"] < 4 * table["tokens_lower"]).all()
    exponent = found.exponent.draws
    assert abs(exponent.mean() - 1 - truth["zeta"] / truth["beta"]) < 4 * exponent.std()


def test_the_published_curve():
    table = published_crossover([2e9, 1e9])
    assert table["tokens"].iloc[0] == pytest.approx(206e9, rel=5e-3)
    assert table["compute"].to_numpy() == pytest.approx(6 * table["params"] * table["tokens"])
    assert np.log2(table["compute"].iloc[0] / table["compute"].iloc[1]) == pytest.approx(1.65)


def test_the_start_may_be_said_in_words():
    runs = with_starts(runs_from_frame(RUNS.frame().drop(columns="continued")))
    np.testing.assert_array_equal(runs["continued"], RUNS["continued"])
    bad = RUNS.frame().assign(start="Checkpoint", run="a")
    bad["run"] = [f"run {i}" for i in range(len(bad))]
    with pytest.raises(
        RunTableError, match=r"run 0, column start: 'Checkpoint', expected scratch or checkpoint"
    ):
        with_starts(runs_from_frame(bad))
    with pytest.raises(RunTableError, match="no column 'begin'"):
        with_starts(RUNS, "begin")


def test_what_is_refused():
    with pytest.raises(LawError, match="expected one of law continued"):
        crossover(by_hand(chinchilla(), CONTINUED, RUNS), 1e8)
    with pytest.raises(M3BayesError, match="params is 0"):
        crossover(POST, 0)
    with pytest.raises(M3BayesError, match="params is 'x'"):
        inspect.unwrap(positive_values)("params", "x")
    with pytest.raises(M3BayesError, match="ci is 1"):
        crossover(POST, 1e8, ci=1)
