"""The verdict: what is wrong is named, what is right passes."""

from __future__ import annotations

import numpy as np
import pytest

from m3bayes.inference.gate import judge, unidentified

CHAINS, DRAWS = 4, 1000


def sample(seed: int = 0, shape: tuple[int, int] = (CHAINS, DRAWS)):
    random = np.random.default_rng(seed)
    draws = {name: random.normal(size=shape) for name in ("alpha", "beta")}
    statistics = {
        "lp": random.normal(size=shape),
        "energy": random.normal(size=shape),
        "diverging": np.zeros(shape, bool),
    }
    return draws, statistics


def codes(gate) -> set[str]:
    return {note.code for note in gate.notes}


def test_independent_draws_pass():
    gate = judge(*sample())
    assert gate.passed
    assert gate.r_hat < 1.01
    assert gate.ess_bulk > 3000
    assert gate.e_bfmi == pytest.approx(2, abs=0.2)  # independent energies


def test_a_chain_elsewhere_is_named():
    draws, statistics = sample()
    draws["beta"][2] += 1.0
    gate = judge(draws, statistics)
    assert not gate.passed
    note = next(note for note in gate.notes if note.code == "R_HAT")
    assert note.about == ("beta",)
    assert "beta" in note.message


def test_short_chains_are_judged_in_groups():
    draws, statistics = sample(shape=(128, 32))
    for draw in range(1, 32):
        draws["beta"][:, draw] += 0.5 * draws["beta"][:, draw - 1]
    assert "R_HAT" in codes(judge(draws, statistics))
    assert judge(draws, statistics, superchains=16).passed
    draws["beta"][:8] += 1.0  # those that started together
    note = next(note for note in judge(draws, statistics, superchains=16).notes if note.code == "R_HAT")
    assert note.about == ("beta",) and "nested R-hat" in note.message


def test_disagreement_in_spread_alone_is_seen():
    draws, statistics = sample()
    draws["alpha"][0] *= 5
    assert "R_HAT" in codes(judge(draws, statistics))


def test_sticky_chains_have_too_few_independent_draws():
    draws, statistics = sample()
    draws["alpha"] = np.repeat(draws["alpha"][:, ::50], 50, axis=1)
    assert "ESS_BULK" in codes(judge(draws, statistics))


def test_divergences_are_counted():
    draws, statistics = sample()
    statistics["diverging"][1, :8] = True
    assert judge(draws, statistics).passed  # .2 %
    statistics["diverging"][1, :9] = True
    gate = judge(draws, statistics)
    assert codes(gate) == {"DIVERGENCES"}
    assert gate.notes[0].message.startswith("9 transitions")


def test_slow_energy_is_named():
    draws, statistics = sample()
    statistics["energy"] = np.cumsum(statistics["energy"], axis=1)
    assert "E_BFMI" in codes(judge(draws, statistics))


def test_a_coefficient_that_never_moves_does_not_pass():
    draws, statistics = sample()
    draws["alpha"] = np.full((CHAINS, DRAWS), 0.3)
    assert not judge(draws, statistics).passed


def test_unidentified_is_as_wide_as_the_prior():
    random = np.random.default_rng(0)
    prior = {"alpha": random.normal(size=2000), "tau": random.normal(size=2000)}
    notes = unidentified({"alpha": prior["alpha"] / 3, "tau": random.normal(size=2000)}, prior)
    assert [note.about for note in notes] == [("tau",)]


def test_a_chain_that_never_moves_is_named_without_a_warning():
    for still in (("lp", "energy"), ("lp",), ("energy",)):
        draws, statistics = sample()
        for values in draws.values():
            values[2] = 0.3
        for name in still:
            statistics[name][2] = 1.5
        gate = judge(draws, statistics)  # warnings are errors
        assert np.isnan(gate.e_bfmi) and not gate.passed
        note = next(note for note in gate.notes if note.code == "E_BFMI")
        assert note.message.startswith("chain 2 never moved") and note.about == ("chain 2",)


def test_chains_that_all_stand_still_do_not_pass():
    draws, statistics = sample()
    gate = judge(
        {name: np.ones_like(values) for name, values in draws.items()},
        {name: np.ones_like(values) for name, values in statistics.items()},
    )
    assert {"R_HAT", "E_BFMI"} <= codes(gate)
    assert "chain 0, chain 1, chain 2, chain 3 never moved" in " ".join(note.message for note in gate.notes)
