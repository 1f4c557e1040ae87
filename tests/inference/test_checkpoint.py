from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from m3bayes.errors import FitError, M3BayesError
from m3bayes.files import unseal
from m3bayes.inference.checkpoint import (
    check_header,
    read_chain,
    read_chains,
    read_header,
    remove,
    write_chain,
    write_header,
)
from tests.inference.example_posterior import assert_same_arrays
from tests.sealing import sealed

IDENTITY = {
    "law": {"name": "m3", "options": {"drop": ("tau",)}},
    "table": "5b" * 32,
    "settings": {"seed": 0, "chains": 4, "target_accept": np.float64(0.9), "limit": float("nan")},
    "versions": {"jax": "0.12.0", "numpyro": "0.22"},
}
STATE = {
    "key": np.asarray(jax.random.key_data(jax.random.key(7))),
    "z": np.array([[0.1, -0.0], [np.nan, np.inf]]),
    "done": np.array(250),
    "diverging": np.array([True, False]),
    "empty": np.zeros((0, 3), dtype=np.float32),
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "checkpoint"


def changed(section, **values):
    old = IDENTITY[section]
    return {**IDENTITY, section: {**old, **values} if isinstance(old, dict) else values["value"]}


def test_a_folder_without_a_header_is_no_checkpoint(folder):
    assert read_header(folder) is None
    assert check_header(folder, IDENTITY) is False
    assert read_chain(folder, 0) is None
    assert read_chains(folder, 2) == ([None, None], ())
    with pytest.raises(FitError, match="write its header first"):
        write_chain(folder, 0, STATE)


def test_the_header_comes_back_and_is_recognised(folder):
    write_header(folder, IDENTITY)
    header = read_header(folder)
    assert header is not None
    assert header["law"] == {"name": "m3", "options": {"drop": ["tau"]}}
    assert header["settings"]["target_accept"] == 0.9
    assert check_header(str(folder), IDENTITY) is True


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (changed("law", name="chinchilla"), 'law name "m3" there, "chinchilla" here'),
        (changed("law", options={}), 'law options drop ["tau"] there, absent here'),
        (changed("table", value="7c" * 32), 'table "5b5b5b5b5b5b... there, "7c7c7c7c7c7c... here'),
        (changed("settings", seed=1), "settings seed 0 there, 1 here"),
        (changed("settings", warmup=9), "settings warmup absent there, 9 here"),
        (changed("versions", jax="0.13.0"), 'versions jax "0.12.0" there, "0.13.0" here'),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused_by_what_differs(folder, other, says):
    write_header(folder, IDENTITY)
    with pytest.raises(FitError) as caught:
        check_header(folder, other)
    message = str(caught.value)
    assert says in message and str(folder) in message and "\n" not in message
    assert message.count(" there, ") <= 2


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_damaged_header_is_said(folder, content):
    write_header(folder, IDENTITY)
    (folder / "header.json").write_bytes(content)
    with pytest.raises(FitError, match=r"header\.json is damaged"):
        check_header(folder, IDENTITY)
    write_header(folder, IDENTITY)
    assert check_header(folder, IDENTITY)


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").write_text("kept")
    for place in (tmp_path / "file", tmp_path / "file" / "checkpoint"):
        with pytest.raises(M3BayesError, match="file"):
            write_header(place, IDENTITY)
        assert check_header(place, IDENTITY) is False


def test_a_chain_comes_back_bit_for_bit(folder):
    write_header(folder, IDENTITY)
    write_chain(folder, 1, STATE)
    assert read_chain(folder, 0) is None
    again = read_chain(folder, 1)
    assert again is not None
    assert_same_arrays(STATE, again)
    key = jax.random.wrap_key_data(jax.numpy.asarray(again["key"]))
    assert jax.random.uniform(key) == jax.random.uniform(jax.random.key(7))

    write_chain(folder, 1, {"z": np.arange(3)})
    assert_same_arrays({"z": np.arange(3)}, read_chain(folder, 1))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays=st.dictionaries(
        st.one_of(
            st.text("abz/. =é", min_size=1, max_size=8), st.sampled_from(["file", "args", "allow_pickle"])
        ),
        hnp.arrays(
            st.sampled_from([np.float64, np.float32, np.uint32, np.int64, np.bool_]),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
        ),
        max_size=4,
    )
)
def test_any_arrays_under_any_names_come_back(folder, arrays):
    write_header(folder, IDENTITY)
    write_chain(folder, 0, arrays)
    assert_same_arrays(arrays, read_chain(folder, 0))


def test_chains_of_another_fit_in_the_same_folder_do_not_count(folder):
    write_header(folder, IDENTITY)
    write_chain(folder, 0, STATE)
    write_header(folder, changed("settings", seed=1))
    assert read_chains(folder, 1) == ([None], ())
    write_header(folder, IDENTITY)
    assert read_chain(folder, 0) is not None


def test_a_damaged_chain_counts_as_absent_and_is_noted(folder):
    write_header(folder, IDENTITY)
    for chain in range(3):
        write_chain(folder, chain, STATE)
    file = folder / "chain-1.npz"
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    damaged = [whole[:length] for length in (0, 1, 50, len(whole) // 2, len(whole) - 1)]
    for bit in random.integers(0, 8 * len(whole), 50).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    for content in damaged:
        file.write_bytes(content)
        assert read_chain(folder, 1) is None
        chains, notes = read_chains(folder, 3)
        assert [chain is None for chain in chains] == [False, True, False]
        assert [note.code for note in notes] == ["CHECKPOINT_DAMAGED"]
        assert notes[0].about == ("chain 1",) and "chain-1.npz" in notes[0].message
    file.write_bytes(whole)
    assert_same_arrays(STATE, read_chain(folder, 1))


class Boom:
    def __reduce__(self):
        return (exec, ("raise SystemExit('was executed')",))


def test_nothing_in_a_chain_is_executed(folder):
    write_header(folder, IDENTITY)
    write_chain(folder, 0, STATE)
    file = folder / "chain-0.npz"
    opened = unseal(file.read_bytes())
    assert opened is not None
    image = io.BytesIO()
    np.savez(image, z=np.array([Boom()], dtype=object))
    file.write_bytes(sealed(image.getvalue(), opened[1]))
    chains, notes = read_chains(folder, 1)
    assert chains == [None] and [note.code for note in notes] == ["CHECKPOINT_DAMAGED"]


def test_chains_may_be_written_from_their_threads(folder):
    write_header(folder, IDENTITY)

    def work(chain):
        for done in range(20):
            write_chain(folder, chain, {"done": np.array(done), "q": np.full((done, 5), float(chain))})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    chains, notes = read_chains(folder, 4)
    assert notes == ()
    for i, chain in enumerate(chains):
        assert_same_arrays({"done": np.array(19), "q": np.full((19, 5), float(i))}, chain)


def test_removing_takes_what_is_of_the_checkpoint_and_nothing_else(folder):
    write_header(folder, IDENTITY)
    write_chain(folder, 0, STATE)
    (folder / ".chain-0.npz.1.2.tmp").write_text("left by a kill")
    (folder / "notes.txt").write_text("mine")
    remove(folder)
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    write_header(folder, IDENTITY)
    remove(folder)
    assert not folder.exists()
    remove(folder)


def test_the_header_is_json_for_people(folder):
    write_header(folder, {"law": "m3", "settings": {"seed": 1}})
    assert json.loads((folder / "header.json").read_text()) == {"law": "m3", "settings": {"seed": 1}}
