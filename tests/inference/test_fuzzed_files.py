"""Files of other hands: refused with one typed line, or read; nothing in them is executed, nothing else written."""

from __future__ import annotations

import ast
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import m3bayes
from m3bayes.errors import FitError, M3BayesError, PosteriorFileError, RunTableError
from m3bayes.evaluation.calibrate import calibrate
from m3bayes.files import unseal
from m3bayes.inference import checkpoint
from m3bayes.inference.noise import normal
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.storage import load
from m3bayes.runs import read_runs
from tests.evaluation.exact import LAW, design, exact_fit
from tests.inference.example_posterior import assert_same, assert_same_arrays, example_posterior
from tests.sealing import sealed

FUZZ = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Marker:
    """A pickle of it makes the file ``executed`` where it is loaded."""

    def __reduce__(self):
        return (open, ("executed", "w"))


@pytest.fixture(autouse=True)
def nothing_is_executed_or_written(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, below one in which nothing may appear."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    yield
    assert not (inner / "executed").exists()
    assert sorted(path.name for path in (tmp_path / "outer").iterdir()) == ["inner"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> bytes:
    file = tmp_path_factory.mktemp("saved") / "post.nc"
    example_posterior(draws=5).save(file)
    return file.read_bytes()


def outcome(data: bytes) -> Posterior | str:
    path = Path("post.nc")
    path.write_bytes(data)
    try:
        return load(path)
    except PosteriorFileError as error:
        message = str(error)
        assert "post.nc" in message and "\n" not in message
        return message


# ---- damage --------------------------------------------------------------------------------------------


@st.composite
def damage(draw) -> Callable[[bytes], bytes]:
    """Bits flipped, bytes lost or put in, or the end cut off, at places that are shares of the length."""
    kinds = st.sampled_from(["flip", "cut", "lose", "insert", "overwrite"])
    steps = draw(
        st.lists(st.tuples(kinds, st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=3)
    )

    def apply(data: bytes) -> bytes:
        changed = bytearray(data)
        for kind, share, piece in steps:
            at = int(share * max(len(changed) - 1, 0))
            if kind == "flip" and changed:
                changed[at] ^= 1 << piece[0] % 8
            elif kind == "cut":
                del changed[at:]
            elif kind == "lose":
                del changed[at : at + piece[0]]
            elif kind == "insert":
                changed[at:at] = piece
            elif kind == "overwrite":
                changed[at : at + len(piece)] = piece
        return bytes(changed)

    return apply


@FUZZ
@given(change=damage())
def test_a_damaged_posterior_is_refused(saved, change):
    damaged = change(saved)
    found = outcome(damaged)
    assert isinstance(found, str) or damaged == saved


@FUZZ
@given(change=damage())
def test_a_damaged_posterior_with_a_new_seal_is_refused_or_read(saved, change):
    """What nobody does by accident: the content reaches the HDF5 library, and what it gives is looked at."""
    opened = unseal(saved)
    assert opened is not None
    found = outcome(sealed(change(opened[0]), opened[1]))
    if isinstance(found, Posterior):
        assert {values.shape for values in found.draws.values()} == {(2, 5)}


@FUZZ
@given(change=damage(), again=st.booleans())
def test_a_damaged_checkpoint_counts_as_none(change, again):
    folder, arrays = Path("kept"), {"z": np.arange(5.0), "done": np.array(3)}
    checkpoint.write_header(folder, {"law": "m3"})
    checkpoint.write_chain(folder, 0, arrays)
    file = folder / "chain-0.npz"
    whole = file.read_bytes()
    opened = unseal(whole)
    assert opened is not None
    file.write_bytes(sealed(change(opened[0]), opened[1]) if again else change(whole))
    chains, notes = checkpoint.read_chains(folder, 1)
    if chains[0] is None:
        assert {note.code for note in notes} <= {"CHECKPOINT_DAMAGED"}
    elif not again:
        assert_same_arrays(arrays, chains[0])


@FUZZ
@given(change=damage())
def test_a_damaged_header_is_said_or_is_of_another_fit(change):
    folder = Path("kept")
    checkpoint.write_header(folder, {"law": "m3", "settings": {"seed": 1}})
    file = folder / "header.json"
    file.write_bytes(change(file.read_bytes()))
    try:
        found = checkpoint.check_header(folder, {"law": "m3", "settings": {"seed": 1}})
    except FitError as error:
        assert "\n" not in str(error)
    else:
        assert found


# ---- hostile posteriors --------------------------------------------------------------------------------

# {what: change of the HDF5 file}; each must be refused
HOSTILE: dict[str, Callable[[h5py.File], object]] = {}


def hostile(change: Callable[[h5py.File], object]) -> Callable[[h5py.File], object]:
    HOSTILE[change.__name__.strip("_").replace("_", " ")] = change
    return change


def part(file: h5py.File, attribute: str, /, **changes) -> None:
    """Change a JSON attribute of the root."""
    file.attrs[attribute] = json.dumps({**json.loads(file.attrs[attribute]), **changes})


def replaced(file: h5py.File, name: str, **details) -> None:
    about = dict(file[name].attrs)
    del file[name]
    data = file.create_dataset(name, **details)
    data.attrs["name"] = about["name"]


@hostile
def _draws_of_another_shape(file):
    replaced(file, "posterior/alpha", data=np.ones((5, 2)))


@hostile
def _a_single_number_for_draws(file):
    replaced(file, "posterior/alpha", data=3.0)


@hostile
def _text_for_draws(file):
    replaced(file, "posterior/alpha", data=[[b"0"] * 5] * 2)


@hostile
def _complex_draws(file):
    replaced(file, "posterior/alpha", data=np.ones((2, 5), complex))


@hostile
def _statistics_of_another_length(file):
    replaced(file, "sample_stats/lp", data=np.ones((2, 9)))


@hostile
def _log_likelihood_of_other_runs(file):
    replaced(file, "log_likelihood/log_loss", data=np.ones((2, 5, 3)))


@hostile
def _a_terabyte_that_is_not_there(file):
    replaced(file, "posterior/alpha", shape=(2, 1 << 36), dtype=float, chunks=(1, 1 << 20))


@hostile
def _many_gigabytes_that_are_not_there(file):
    for name in ("lp", "diverging", "n_steps"):
        replaced(file, f"sample_stats/{name}", shape=(2, 1 << 29), dtype=float, chunks=(1, 1 << 20))


@hostile
def _zeros_packed_by_a_thousand(file):
    replaced(file, "posterior/alpha", data=np.zeros((2, 1 << 20)), compression="gzip")


@hostile
def _a_type_of_a_hundred_million_letters(file):
    file["posterior/alpha"].attrs["dtype"] = "U100000000"
    replaced(file, "posterior/beta", data=np.ones((2, 4)))


@hostile
def _a_link_to_another_file(file):
    del file["posterior/alpha"]
    file["posterior/alpha"] = h5py.ExternalLink("/etc/hostname", "/")


@hostile
def _a_link_to_nothing(file):
    file["posterior/further"] = h5py.SoftLink("/nowhere")


@hostile
def _data_in_another_file(file):
    replaced(file, "posterior/alpha", shape=(2, 5), dtype=float, external=[("/etc/passwd", 0, 80)])


@hostile
def _virtual_data(file):
    layout = h5py.VirtualLayout((2, 5), float)
    layout[:] = h5py.VirtualSource("other.h5", "x", (2, 5))
    about = file["posterior/alpha"].attrs["name"]
    del file["posterior/alpha"]
    file.create_virtual_dataset("posterior/alpha", layout).attrs["name"] = about


@hostile
def _a_verdict_of_its_own(file):
    file.attrs["verdict"] = json.dumps("certainly")


@hostile
def _a_noise_of_its_own(file):
    part(file, "noise", kind="__import__('os').system('touch executed')")


@hostile
def _further_arguments_of_the_noise(file):
    part(file, "noise", __class__="os.system", path="../../x")


@hostile
def _a_law_by_a_path(file):
    part(file, "law", name="../../x")


@hostile
def _a_law_by_a_module(file):
    part(file, "law", name="os.system", options={"command": "touch executed"})


@hostile
def _options_that_are_paths(file):
    part(file, "law", options={"drop": ["../../x"]})


@hostile
def _options_that_are_no_options(file):
    part(file, "law", options={"path": "../../x", "open": "executed"})


@hostile
def _options_nested_without_end(file):
    deep = json.loads("[" * 50 + "]" * 50)
    part(file, "law", options={"drop": deep})


@hostile
def _settings_that_are_code(file):
    file.attrs["settings"] = "open('executed', 'w')"


@hostile
def _settings_that_are_a_list(file):
    file.attrs["settings"] = "[1, 2]"


@hostile
def _json_nested_too_deep(file):
    del file.attrs["notes"]
    file.attrs.create("notes", "[" * 60_000)


@hostile
def _an_integer_of_ten_thousand_digits(file):
    file.attrs["settings"] = '{"seed": ' + "9" * 10_000 + "}"


@hostile
def _groups_without_a_sigma_each(file):
    file.attrs["groups"] = json.dumps(["a", "b", "c"])


@hostile
def _draws_of_a_name_that_is_not_there(file):
    file.attrs["draws"] = json.dumps(["../../x"])


@hostile
def _a_pickle_for_text(file):
    import pickle

    file.attrs["verdict"] = np.void(pickle.dumps(Marker()))


@hostile
def _a_circle_of_groups(file):
    file["posterior/again"] = file["/"]
    file.attrs["verdict"] = "7"


@hostile
def _a_table_of_one_row_less(file):
    replaced(file, "constant_data/loss", data=np.ones(11))


@hostile
def _a_table_without_a_finite_loss(file):
    file["constant_data/loss"][0] = np.nan


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_posteriors_are_refused(saved, kind):
    opened = unseal(saved)
    assert opened is not None
    image = io.BytesIO(opened[0])
    with h5py.File(image, "r+") as file:
        HOSTILE[kind](file)
    found = outcome(sealed(image.getvalue(), opened[1]))
    assert isinstance(found, str) and len(found) < 2000


def test_names_that_are_paths_stay_names(saved):
    """A table or run called ../../x is text and nothing else: no file is named by it."""
    opened = unseal(saved)
    assert opened is not None
    image = io.BytesIO(opened[0])
    with h5py.File(image, "r+") as file:
        part(file, "runs", name="../../x")
        part(file, "versions", m3bayes="../../x")
    found = outcome(sealed(image.getvalue(), opened[1]))
    assert isinstance(found, Posterior) and found.runs.name == "../../x"
    found.save("again.nc")
    assert_same(load("again.nc"), found)


# ---- hostile checkpoints and calibrations ----------------------------------------------------------------


def npz(**members: bytes) -> bytes:
    image = io.BytesIO()
    with zipfile.ZipFile(image, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return image.getvalue()


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def pickled() -> bytes:
    image = io.BytesIO()
    np.save(image, np.array([Marker()], dtype=object))
    return image.getvalue()


HOSTILE_CHAINS = {
    "no archive": b"nothing",
    "an archive cut short": npz(z=b"x" * 100)[:-30],
    "a pickle": npz(**{"=z.npy": pickled()}),
    "a header that is code": npz(**{"=z.npy": npy("__import__('os').system('touch executed')")}),
    "an absurd shape": npz(
        **{"=z.npy": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1 << 60,), }")}
    ),
    "a huge shape": npz(
        **{"=z.npy": npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({1 << 60},), }}")}
    ),
    "a negative shape": npz(**{"=z.npy": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-8,), }")}),
    "data missing": npz(
        **{"=z.npy": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (9,), }", b"12345678")}
    ),
}


@pytest.mark.parametrize("kind", HOSTILE_CHAINS)
def test_hostile_chains_count_as_damaged(kind):
    checkpoint.write_header("kept", {"law": "m3"})
    checkpoint.write_chain("kept", 0, {"z": np.arange(3)})
    opened = unseal(Path("kept/chain-0.npz").read_bytes())
    assert opened is not None
    Path("kept/chain-0.npz").write_bytes(sealed(HOSTILE_CHAINS[kind], opened[1]))
    chains, notes = checkpoint.read_chains("kept", 1)
    assert chains == [None] and [note.code for note in notes] == ["CHECKPOINT_DAMAGED"]


def test_names_of_arrays_that_are_paths_are_not_unpacked():
    checkpoint.write_header("kept", {"law": "m3"})
    checkpoint.write_chain("kept", 0, {"../../x": np.arange(3)})
    assert set(checkpoint.read_chain("kept", 0) or {}) == {"../../x"}
    assert sorted(os.listdir("kept")) == ["chain-0.npz", "header.json"]


@pytest.mark.parametrize(
    "content",
    ['{"law": ' * 3000 + "1" + "}" * 3000, '{"seed": ' + "9" * 10_000 + "}", '"m3"', "null", '{"a": NaN}'],
)
def test_hostile_headers_are_said(content):
    checkpoint.write_header("kept", {"law": "m3"})
    Path("kept/header.json").write_text(content)
    with pytest.raises(FitError) as caught:
        checkpoint.check_header("kept", {"law": "m3"})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


HOSTILE_LINES = {
    "half a line": b'{"number": 1, "verd',
    "no JSON": b"open('executed', 'w')",
    "not UTF-8": b'{"number": 1, "verdict": "\xff"}',
    "no object": b"[1]",
    "no number": b'{"verdict": "failed", "seconds": 1, "error": ""}',
    "a list for a number": b'{"number": [1], "verdict": "failed", "seconds": 1, "error": ""}',
    "no ranks": b'{"number": 1, "verdict": "passed", "seconds": 1}',
    "ranks of text": b'{"number": 1, "verdict": "passed", "attempts": 1, "seconds": 1, "divergences": 0, "notes": "", '
    b'"ranks": {"E": "0"}, "places": {"E": 0.5}}',
    "ranks beyond all draws": b'{"number": 1, "verdict": "passed", "attempts": 1, "seconds": 1, "divergences": 0, '
    b'"notes": "", "ranks": {"E": 100}, "places": {"E": 0.5}}',
    "a verdict of its own": b'{"number": 1, "verdict": "fine", "seconds": 1, "error": ""}',
    "nested too deep": b"[" * 100_000,
    "a huge integer": b'{"number": ' + b"9" * 10_000 + b"}",
    "null bytes": b"\0" * 100,
}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    found = calibrate(LAW, design(4), simulations=3, noise=normal(), fit=exact_fit, folder=folder)
    return found, {path.name: path.read_bytes() for path in folder.iterdir()}


def calibrated_again(files: dict[str, bytes]):
    folder = Path("calibration")
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return calibrate(LAW, design(4), simulations=3, noise=normal(), fit=exact_fit, folder=folder)


@pytest.mark.parametrize("kind", HOSTILE_LINES)
def test_lines_that_cannot_be_are_made_again(calibrated, kind):
    found, files = calibrated
    first, _, third = files["simulations.jsonl"].splitlines()
    lines = b"\n".join([first, HOSTILE_LINES[kind], third, b""])
    again = calibrated_again({**files, "simulations.jsonl": lines})
    assert again.ranks.equals(found.ranks) and again.verdict == found.verdict


@settings(FUZZ, max_examples=25)
@given(change=damage(), of=st.sampled_from(["header.json", "simulations.jsonl"]))
def test_a_damaged_calibration_is_said_or_made_again(calibrated, change, of):
    found, files = calibrated
    try:
        again = calibrated_again({**files, of: change(files[of])})
    except M3BayesError as error:
        assert "\n" not in str(error) and of == "header.json"
    else:
        assert list(again.ranks.index) == list(found.ranks.index)


def test_a_calibration_killed_before_its_first_line_goes_on(calibrated):
    found, files = calibrated
    assert calibrated_again({"header.json": files["header.json"]}).ranks.equals(found.ranks)


def test_lines_without_a_header_are_of_no_calibration(calibrated):
    found, files = calibrated
    wrong = files["simulations.jsonl"].replace(b'"E": ', b'"E": 1')
    assert calibrated_again({"simulations.jsonl": wrong}).ranks.equals(found.ranks)


# ---- pipes, and the source ---------------------------------------------------------------------------------


def test_pipes_are_refused_instead_of_waited_for():
    os.mkdir("kept")
    for name in ("post.nc", "runs.csv", "kept/header.json"):
        os.mkfifo(name)
    with pytest.raises(PosteriorFileError, match="pipe"):
        load("post.nc")
    with pytest.raises(RunTableError, match="pipe"):
        read_runs("runs.csv")
    with pytest.raises(FitError, match="damaged"):
        checkpoint.read_header("kept")
    os.unlink("kept/header.json")
    checkpoint.write_header("kept", {})
    os.mkfifo("kept/chain-0.npz")
    assert checkpoint.read_chains("kept", 1)[0] == [None]


MODULES_THAT_EXECUTE = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "code",
    "runpy",
    "ctypes",
}
MODULES_OF_OTHER_PROGRAMS = {"subprocess", "socket", "urllib", "requests", "http", "ftplib"}


def test_the_source_neither_unpickles_nor_evaluates_nor_connects():
    """Also where a test of one file would not reach."""
    for path in Path(m3bayes.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                given = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                )
                for name in given:
                    forbidden = MODULES_THAT_EXECUTE | MODULES_OF_OTHER_PROGRAMS
                    assert name.partition(".")[0] not in forbidden, (path, name)
            if isinstance(node, ast.Call):
                called = node.func
                if isinstance(called, ast.Name):
                    assert called.id not in ("eval", "exec", "compile", "__import__"), (path, node.lineno)
                if isinstance(called, ast.Attribute):
                    assert called.attr not in ("system", "popen", "read_pickle", "import_module"), (
                        path,
                        node.lineno,
                    )
                    # the one evaluation of a table's columns, whose expressions are checked before
                    assert called.attr != "eval" or path.name == "row_filter.py", (path, node.lineno)
                for keyword in node.keywords:
                    if keyword.arg == "allow_pickle":
                        assert isinstance(keyword.value, ast.Constant) and keyword.value.value is False, path
