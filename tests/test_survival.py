"""Kills, signals, full disks, laws that fail, other units, large tables: small versions of benchmarks/survival.py."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest

from benchmarks import survival
from m3bayes import cli
from m3bayes.errors import FitError, LawError, M3BayesError
from m3bayes.files import append_line, write_bytes
from m3bayes.inference import checkpoint
from m3bayes.inference.fit import fit
from m3bayes.inference.noise import normal
from m3bayes.inference.predict import predict
from m3bayes.laws import Coefficient, Law, chinchilla, law, m3
from m3bayes.runs import Runs, read_runs, runs_from_frame
from tests.inference import simulated
from tests.inference.synthetic import posterior

ROOT = Path(__file__).parent.parent

# ---- kills and signals ---------------------------------------------------------------------------


def test_a_calibration_killed_again_and_again_has_the_same_ranks(tmp_path):
    found = survival.kills_while_calibrating(tmp_path, kills=2, simulations=40)
    assert found["killed"] == 2 and found["ranks_identical"]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return survival.table_for(chinchilla(), tmp_path_factory.mktemp("table"), rows=20)


def fitting(table: Path, out: Path, draws: int = 4000) -> list[str]:
    return [
        *(sys.executable, "-m", "m3bayes", "fit", str(table), "--law", "chinchilla", "--json"),
        *("--chains", "2", "--draws", str(draws), "--out", str(out)),
    ]


@pytest.fixture(scope="module")
def alone(table, tmp_path_factory) -> Path:
    """What a fit that was left alone wrote."""
    out = tmp_path_factory.mktemp("alone") / "post.nc"
    subprocess.run(fitting(table, out), check=True, cwd=ROOT, capture_output=True)
    return out


def assert_resumed(table: Path, out: Path, alone: Path) -> None:
    subprocess.run([*fitting(table, out), "--resume"], check=True, cwd=ROOT, capture_output=True)
    assert out.read_bytes() == alone.read_bytes()
    assert not out.with_name(f"{out.name}.checkpoint").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_fit_at_once_and_it_can_go_on(table, alone, tmp_path, number, code):
    out = tmp_path / "post.nc"
    folder = tmp_path / "post.nc.checkpoint"
    process = subprocess.Popen(fitting(table, out), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not any(folder.glob("chain-*.npz")):
        time.sleep(0.002)
    process.send_signal(number)
    shown, said = process.communicate()
    assert process.returncode == code
    assert shown == b"" and not out.exists()
    assert f"stopped; --resume goes on with the chains in {folder}" in said.decode()
    assert "Traceback" not in said.decode()
    assert_resumed(table, out, alone)


def test_a_stopped_pooled_fit_says_that_nothing_is_kept(table, tmp_path):
    halves = pd.read_csv(table).assign(language=lambda runs: np.where(np.arange(len(runs)) % 2, "de", "fr"))
    halves.to_csv(tmp_path / "runs.csv", index=False)
    command = [*fitting(tmp_path / "runs.csv", tmp_path / "all.nc", draws=100_000), "--pool", "language"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and "pooled by language" in process.stderr.readline()
    time.sleep(2)  # the fit begins with the next step of the program
    process.terminate()
    shown, said = process.communicate()
    assert process.returncode == 143 and shown == ""
    assert said.splitlines()[-1] == "m3bayes: stopped; nothing is kept" and "Traceback" not in said
    assert not (tmp_path / "all.nc").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_calibration_says_how_it_goes_on(table, tmp_path, number, code):
    out = tmp_path / "calibration"
    command = [sys.executable, "-m", "m3bayes", "calibrate", "--law", "chinchilla", "--design", str(table)]
    command += ["--draws", "100", "--simulations", "1000", "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out / "simulations.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(number)
    shown, said = process.communicate()
    assert process.returncode == code and shown == "" and "Traceback" not in said
    assert (
        said.splitlines()[-1] == f"m3bayes: stopped; the same command goes on with the simulations in {out}"
    )


INTERRUPTED = """
import os, signal, sys
import m3bayes as m3
from m3bayes.inference import checkpoint
table, folder, draws = sys.argv[1:]
runs = m3.read_runs(table)
write, written = checkpoint.write_chain, set()

def interrupting(folder, chain, arrays):
    # as soon as both chains are kept: from outside it could come too late, where others use the machine
    write(folder, chain, arrays)
    first = len(written) < 2
    written.add(chain)
    if first and len(written) == 2:
        os.kill(os.getpid(), signal.SIGINT)

checkpoint.write_chain = interrupting
try:
    m3.fit(runs, m3.laws.chinchilla(), checkpoint=folder, chains=2, draws=int(draws), progress=False)
except KeyboardInterrupt:
    # no chain goes on behind the caller's back
    first = [checkpoint.read_chain(folder, chain)["done"] for chain in range(2)]
    import time
    time.sleep(0.3)
    assert first == [checkpoint.read_chain(folder, chain)["done"] for chain in range(2)]
    print("interrupted", *first)
"""


def test_ctrl_c_in_a_library_ends_all_chains_and_they_can_go_on(table, tmp_path):
    draws, folder = 20_000, tmp_path / "kept"
    command = [sys.executable, "-c", INTERRUPTED, str(table), str(folder), str(draws)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    word, *done = process.stdout.split()
    assert word == "interrupted" and all(0 < int(n) < draws for n in done)

    settings = {"chains": 2, "draws": draws, "progress": False}
    whole = fit(read_runs(table), chinchilla(), **settings)
    resumed = fit(read_runs(table), chinchilla(), checkpoint=folder, resume=True, **settings)
    for name, values in whole.draws.items():
        np.testing.assert_array_equal(resumed.draws[name], values)
    for name, values in whole.sample_stats.items():
        np.testing.assert_array_equal(resumed.sample_stats[name], values)


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[None]:
    script = "import sys\nfrom m3bayes.inference import checkpoint\nwith checkpoint.held(sys.argv[1]):\n"
    script += "    print('held', flush=True)\n    sys.stdin.read()"
    command = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        yield
        process.communicate()


def test_two_fits_of_one_name_do_not_share_a_checkpoint(table, tmp_path, capsys):
    """Else a chain of one seed could go on as that of another."""
    out, folder = tmp_path / "post.nc", tmp_path / "post.nc.checkpoint"
    with held_by_another_process(folder):
        assert cli.main(fitting(table, out)[3:]) == 2
        assert "another fit is going on in" in capsys.readouterr().err
    assert not out.exists() and not folder.exists()
    with checkpoint.held(folder):
        checkpoint.write_header(folder, {"law": "m3"})
    assert folder.exists()  # what is kept stays
    with pytest.raises(ZeroDivisionError), checkpoint.held(tmp_path / "empty"):
        raise ZeroDivisionError
    assert not (tmp_path / "empty").exists()


def test_two_fits_of_a_library_do_not_share_a_checkpoint(few_runs, tmp_path):
    """In one process as in two; the one that holds the folder may fit in it."""
    folder = tmp_path / "kept"
    few = {"chains": 1, "warmup": 20, "draws": 4, "allow": "flagged", "progress": False, "noise": normal()}
    with checkpoint.held(folder):
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(fit, few_runs, chinchilla(), checkpoint=folder, **few)
            with pytest.raises(FitError, match=f"another fit is going on in {folder}"):
                other.result()
        assert checkpoint.read_header(folder) is None
        fit(few_runs, chinchilla(), checkpoint=folder, **few)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    with held_by_another_process(folder), pytest.raises(FitError, match="another fit is going on in"):
        fit(few_runs, chinchilla(), checkpoint=folder, seed=1, **few)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
    assert fit(few_runs, chinchilla(), checkpoint=folder, seed=1, **few).settings["seed"] == 1


def test_a_file_system_without_locks_does_not_stop_a_fit(few_runs, tmp_path, monkeypatch):
    import fcntl

    def unsupported(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with checkpoint.held(tmp_path / "kept"):
        checkpoint.write_header(tmp_path / "kept", {"law": "m3"})
    assert checkpoint.read_header(tmp_path / "kept") == {"law": "m3"}


def test_a_checkpoint_of_the_wrong_arrays_counts_as_damaged(few_runs, tmp_path):
    """As another state of the program would leave under the same versions: whole files, other shapes."""
    few = {"chains": 2, "warmup": 20, "draws": 300, "allow": "flagged", "progress": False, "noise": normal()}
    alone = fit(few_runs, chinchilla(), checkpoint=tmp_path, **few)
    found, _ = checkpoint.read_chains(tmp_path, 2)
    whole = [arrays for arrays in found if arrays is not None]
    again = fit(few_runs, chinchilla(), checkpoint=tmp_path, resume=True, **few)
    assert "CHECKPOINT_DAMAGED" not in {note.code for note in again.notes}
    wrong = {
        "nothing": {},
        "without a part of the state": {n: v for n, v in whole[1].items() if n != "state0"},
        "with more": {**whole[1], "state99": np.zeros(3)},
        "draws of another width": {**whole[1], "q": np.zeros((300, 3))},
        "fewer draws than are done": {**whole[1], "q": whole[1]["q"][:10]},
        "statistics of another width": {**whole[1], "statistics": np.zeros((300, 2))},
        "position of another length": {**whole[1], "state1": np.zeros(4)},
        "text for a state": {**whole[1], "state1": np.array("text")},
        "more done than there is to do": {**whole[1], "done": np.array(10**6)},
        "a list for how much is done": {**whole[1], "done": np.array([320])},
        "a share for how much is done": {**whole[1], "done": np.array(320.0)},
    }
    for kind, arrays in wrong.items():
        checkpoint.write_chain(tmp_path, 1, arrays)
        resumed = fit(few_runs, chinchilla(), checkpoint=tmp_path, resume=True, **few)
        notes = [note for note in resumed.notes if note.code == "CHECKPOINT_DAMAGED"]
        assert [note.about for note in notes] == [("chain 1",)], kind
        for name, values in alone.draws.items():
            np.testing.assert_array_equal(resumed.draws[name], values, err_msg=kind)


# ---- disks ---------------------------------------------------------------------------------------


def test_a_disk_too_full_for_the_posterior_keeps_the_chains(table, alone, tmp_path):
    """The chains fit below the limit on the size of a file, the posterior does not."""
    out = tmp_path / "post.nc"
    most = alone.stat().st_size // 2

    limited = f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most})); "
    limited += "from m3bayes import cli; sys.exit(cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", limited, *fitting(table, out)[3:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not out.exists()
    assert "make room or choose another folder" in done.stderr and "Traceback" not in done.stderr
    folder = tmp_path / "post.nc.checkpoint"
    assert sorted(path.name for path in folder.iterdir()) == ["chain-0.npz", "chain-1.npz", "header.json"]
    assert_resumed(table, out, alone)


@pytest.mark.parametrize("write", [lambda p: write_bytes(p, b"new"), lambda p: append_line(p, "new")])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_flush_that_fails_is_said(tmp_path, monkeypatch, write, code):
    path = tmp_path / "file"
    path.write_bytes(b"old\n")

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(M3BayesError, match=os.strerror(code)) as caught:
        write(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes().startswith(b"old\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_file_in_place_of_the_folder_is_said_before_the_work(table, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "post.nc.checkpoint").write_text("kept")
    assert cli.main(fitting(table, tmp_path / "file" / "post.nc")[3:]) == 2
    assert cli.main(fitting(table, tmp_path / "post.nc")[3:]) == 2
    assert cli.main(["calibrate", "--design", str(table), "--out", str(tmp_path / "file")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert sum("error: " in line for line in said) == 3
    assert (tmp_path / "file").read_text() == (tmp_path / "post.nc.checkpoint").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_a_folder_that_may_only_be_read_is_said(table, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert cli.main(fitting(table, tmp_path / "post.nc")[3:]) == 2
    assert "cannot be written to" in capsys.readouterr().err


# ---- laws that fail ------------------------------------------------------------------------------


def of_one_coefficient(loss) -> Law:
    return law("mine", loss, [Coefficient("E", dist.LogNormal(0.0, 1.0), of_loss=True)])


@pytest.fixture(scope="module")
def few_runs() -> Runs:
    return simulated.measured(chinchilla(), simulated.CHINCHILLA, simulated.monolingual(20), sigma=0.02)


def raising(c, x):
    raise ZeroDivisionError("inside\nthe law")


BROKEN = {
    "raises": (raising, "ZeroDivisionError: inside"),
    "reads a coefficient that it does not have": (lambda c, x: c["zeta"], "KeyError: 'zeta'"),
    "reads a column that it does not declare": (lambda c, x: c["E"] * x["width"], "KeyError: 'width'"),
    "gives three numbers": (lambda c, x: c["E"] * jnp.ones(3), r"gives float64 \(3,\) for one recipe"),
    "gives complex numbers": (lambda c, x: c["E"] * 1j, r"gives complex128 \(\)"),
    "gives nothing": (lambda c, x: None, "gives NoneType"),
    "gives two things": (lambda c, x: (c["E"], c["E"]), "gives tuple"),
    "gives text": (lambda c, x: "3", "cannot be evaluated"),
    "asks a traced number": (lambda c, x: c["E"] if x["params"] > 1 else 0.0, "TracerBoolConversionError"),
    "computes with numpy": (lambda c, x: np.log(c["E"]), "TracerArrayConversionError"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_law_that_cannot_be_evaluated_is_said(few_runs, kind):
    loss, said = BROKEN[kind]
    with pytest.raises(LawError, match=said) as caught:
        fit(few_runs, of_one_coefficient(loss), noise=normal(), progress=False)
    assert "law mine" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("factor", [jnp.nan, -1.0])
def test_a_law_without_a_loss_anywhere_is_said(few_runs, factor):
    said = r"law mine has no finite loss above 0 for row 1 of .* \(params .*\) at E .*; of 512 draws .* 512 fail there"
    with pytest.raises(LawError, match=said) as caught:
        fit(few_runs, of_one_coefficient(lambda c, x: c["E"] * factor), noise=normal(), progress=False)
    assert "\n" not in str(caught.value)


def test_the_row_at_which_a_law_has_no_loss_is_named(few_runs, tmp_path):
    """Its recipe and the coefficients are the law's own arguments, in the table's units: there it gives NaN."""

    def loss(c, x):
        return c["E"] + c["B"] * jnp.sqrt(x["epochs"] - 0.5) * (x["target_tokens"] / 1e9) ** -c["beta"]

    mine = law("mine", loss, [Coefficient(n, dist.LogNormal(0.0, 0.5)) for n in ("E", "B", "beta")])
    frame = few_runs.frame().reset_index(drop=True)
    frame.loc[7, "epochs"] = 0.25
    runs = runs_from_frame(frame)
    with pytest.raises(LawError, match="for row 8 of") as caught:
        fit(runs, mine, noise=normal(), progress=False, checkpoint=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    recipe, coefficients = re.findall(r"\(([^)]*)\) at (.*); of", str(caught.value))[0]
    x, c = ({n: float(v) for n, v in (p.split() for p in t.split(", "))} for t in (recipe, coefficients))
    assert x["epochs"] == 0.25 and c.keys() == {"E", "B", "beta"}
    assert np.isnan(loss(c, x)) and np.isfinite(loss(c, {**x, "epochs": 1.0}))


def test_a_law_that_gives_nan_in_a_prediction_is_named_with_coefficients_and_row():
    """The recipe and the draw at which it happens."""
    post = posterior(draws=5)
    broken = law(
        "mine",
        lambda c, x: jnp.where(x["params"] > 3e8, jnp.nan, c["E"]),
        [Coefficient(c.name, c.prior) for c in chinchilla().coefficients],
    )
    recipes = {"params": [1e8, 5e8], "target_tokens": 1e9, "epochs": 1.0}
    with pytest.raises(
        LawError, match=r"law mine gives loss nan for recipe 2 \(params 5e\+08.* at draw 1 \(E "
    ) as caught:
        predict(type(post)(**{**vars(post), "law": broken}), recipes)
    assert "\n" not in str(caught.value)


# ---- units, order, size --------------------------------------------------------------------------


@pytest.mark.parametrize("fitted", [chinchilla(), m3()], ids=lambda law: law.name)
def test_units_and_order_do_not_change_the_draws(tmp_path, fitted):
    for row in survival.same_draws(fitted, tmp_path, survival.UNITS[:3]):
        assert row["bit_for_bit"], row
        assert row["with_unit"] < 1e-11, row


def test_memory_of_a_large_table_is_bounded(tmp_path):
    """5000 runs x 1000 draws: 38 MiB of log likelihoods, beside half a GiB of programs."""
    found = survival.memory(tmp_path, runs=5000, chains=2, draws=500, check=False)
    assert found["bytes_of_log_likelihood"] == 5000 * 1000 * 8
    assert max(step["peak_GiB"] for step in found["steps"]) < survival.MEMORY["most_GiB"]


def test_bad_tables_are_all_refused(tmp_path):
    rows = survival.bad_tables(tmp_path)
    assert len(rows) >= 30
    assert [row["kind"] for row in rows if row["said"] == "not refused"] == []
