"""fit_many on the processor: the draws of fit, failures that stay their own, and folders that survive."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

import m3bayes as m3
from m3bayes.errors import FitError, RunTableError
from tests.inference.many_tables import LAW, SHORT, table, tables

TABLES = tables(5)
BAD = table(9).select(np.arange(30) < 2)


def single(runs, **settings):
    return m3.fit(runs, LAW, **SHORT | settings, allow="flagged", progress=False)


def same(one, other) -> bool:
    return all(np.array_equal(one.draws[name], other.draws[name]) for name in other.draws)


@pytest.fixture(scope="module")
def fits():
    return m3.fit_many({**TABLES, "bad": BAD, "longer": table(5, rows=40)}, LAW, **SHORT)


def test_draws_are_those_of_fit(fits):
    for name, runs in {**TABLES, "longer": table(5, rows=40)}.items():
        found, alone = fits[name], single(runs)
        assert same(found, alone), name
        assert (found.verdict, found.notes, found.settings) == (alone.verdict, alone.notes, alone.settings)
        assert np.array_equal(found.log_likelihood, alone.log_likelihood)
        row = fits.table.loc[name]
        assert (row["verdict"], row["attempts"]) == (alone.verdict, alone.settings["attempts"])
        assert set(filter(None, row["notes"].split(";"))) == {note.code for note in alone.notes}


def test_rows_stand_in_the_order_of_the_tables_and_name_the_device(fits):
    assert list(fits.table.index) == [*TABLES, "bad", "longer"]
    assert (fits.table["seconds"] > 0).all() and (fits.table["device"] == "cpu").all()


def test_a_fit_that_fails_is_a_row_and_stops_no_other(fits):
    row = fits.table.loc["bad"]
    assert (row["verdict"], row["attempts"]) == ("failed", 0) and "expected at least" in row["error"]
    with pytest.raises(FitError, match="2 runs, expected at least"):
        fits["bad"]
    with pytest.raises(KeyError, match="nameless"):
        fits["nameless"]
    (note,) = fits.notes
    assert (note.code, note.about) == ("FITS_FAILED", ("bad",))


def test_errors_of_other_kinds_stay_their_table_s_too(monkeypatch):
    def fit(runs, *given, **settings):
        if len(runs) == 40:
            raise ZeroDivisionError("of a law")
        return m3.fit(runs, *given, **settings)

    monkeypatch.setattr("m3bayes.inference.jobs.fit", fit)
    found = m3.fit_many([table(0), table(5, rows=40), table(1)], LAW, **SHORT)
    assert list(found.table["verdict"] == "failed") == [False, True, False]
    assert found.table.loc["1", "error"] == "ZeroDivisionError: of a law"


def test_a_fit_that_misses_the_gate_is_flagged_and_kept():
    found = m3.fit_many([table(0)], LAW, **SHORT | {"draws": 8})
    assert (found.table.loc["0", "verdict"], found.table.loc["0", "attempts"]) == ("flagged", 3)
    assert found["0"].verdict == "flagged" and [note.code for note in found.notes] == ["FITS_FLAGGED"]


def test_tables_are_taken_up_as_they_are_needed():
    taken, ahead = [], []

    def stream():
        for number in range(30):
            taken.append(number)
            yield table(number)

    m3.fit_many(stream(), LAW, **SHORT | {"draws": 8}, report=lambda done, _: ahead.append(len(taken) - done))
    assert max(ahead) <= 2 * (os.cpu_count() or 1) + 2


def test_a_killed_call_goes_on(fits, tmp_path):
    run = partial(m3.fit_many, law=LAW, **SHORT, folder=tmp_path)

    def kill(done: int, _: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run({**TABLES, "bad": BAD}, report=kill)
    begun = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nc")}
    assert len(begun) >= 2
    seen = []
    found = run({**TABLES, "bad": BAD}, report=lambda done, name: seen.append((done, name)))
    assert [done for done, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert {path: path.stat().st_mtime_ns for path in begun} == begun
    assert all(same(found[name], fits[name]) for name in TABLES)
    assert found.table.drop(columns="seconds").equals(
        fits.table.loc[[*TABLES, "bad"]].drop(columns="seconds")
    )
    again = run(dict(reversed(TABLES.items())))
    assert again.table["seconds"].equals(found.table["seconds"].loc[[*reversed(TABLES)]])


def test_what_is_damaged_is_fitted_again(tmp_path):
    run = partial(m3.fit_many, [table(0), table(1)], LAW, **SHORT, folder=tmp_path)
    found = run()
    rows = sorted(tmp_path.glob("*-*.json"))
    rows[0].write_text('{"verdict": "pas')
    rows[1].with_suffix(".nc").unlink()
    again = run()
    assert all(same(again[name], found[name]) for name in ("0", "1"))
    assert (again.table["seconds"] != found.table["seconds"]).all()


def test_a_folder_is_of_one_kind_of_fits(tmp_path):
    m3.fit_many([table(0)], LAW, **SHORT, folder=tmp_path)
    with pytest.raises(FitError, match="settings seed 0 there, 1 here"):
        m3.fit_many([table(0)], LAW, **SHORT, folder=tmp_path, seed=1)


def test_names_of_any_kind_have_files(tmp_path):
    named = {"../up": table(0), "a/b": table(1), "a b": table(2)}
    found = m3.fit_many(named, LAW, **SHORT, folder=tmp_path, log_likelihood=False)
    assert len(list(tmp_path.glob("*.nc"))) == 3 and not list(tmp_path.parent.glob("*.nc"))
    for name, runs in named.items():
        assert found[name].log_likelihood is None
        assert same(found[name], single(runs))


def test_processes_share_the_tables(tmp_path):
    run = partial(m3.fit_many, TABLES, LAW, **SHORT, folder=tmp_path)
    parts = [run(process=(index, 2)) for index in range(2)]
    assert [list(part.table.index) for part in parts] == [list(TABLES)[0::2], list(TABLES)[1::2]]
    whole = run()
    for part in parts:
        assert whole.table.loc[part.table.index].equals(part.table)
    with pytest.raises(FitError, match=r"process is \(2, 2\)"):
        run(process=(2, 2))


@pytest.mark.parametrize("wrong", [{"draws": 3}, {"chains": 0}, {"seed": -1}, {"warmup": 1}])
def test_settings_that_no_fit_could_have_are_refused_at_once(wrong):
    with pytest.raises(FitError, match=f"{next(iter(wrong))} is"):
        m3.fit_many(TABLES, LAW, **SHORT | wrong)


def test_two_processes_of_jax_distributed_one_of_them_killed(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.inference.many_tables", str(tmp_path), "12"]
    first, second = (
        subprocess.Popen(
            [*command, str(index), "2", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for index in range(2)
    )
    assert second.stdout is not None and first.stdout is not None
    assert second.stdout.readline() == "1\n"
    second.kill()
    second.communicate()
    assert [first.stdout.readline() for _ in range(7)] == ["1\n", "2\n", "3\n", "4\n", "5\n", "6\n", "all\n"]
    first.communicate()
    assert first.returncode == 0
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nc")}
    assert 7 <= len(kept) < 12, "the second process was done before it could be killed"
    found = m3.fit_many(tables(12), LAW, **SHORT, folder=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for name, runs in tables(12).items():
        assert same(found[name], single(runs)), name


def test_a_simulation_that_cannot_be_made_is_a_row_of_its_calibration(monkeypatch):
    module = importlib.import_module("m3bayes.evaluation.calibrate")
    made = []

    def simulate(*given, **settings):
        made.append(len(made))
        if made[-1] == 1:
            raise RunTableError("no such losses")
        return real(*given, **settings)

    real = module.simulate
    monkeypatch.setattr(module, "simulate", simulate)
    found = m3.calibrate(LAW, table(0), simulations=3, draws=300, noise=SHORT["noise"])
    assert list(found.fits["verdict"] == "failed") == [False, True, False]
    assert found.fits["error"][1] == "no such losses"
