from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.errors import M3BayesError
from m3bayes.files import unseal, write_atomically, write_bytes, write_text
from tests.sealing import sealed


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_written_and_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a file.txt"
    write_text(path, "grün\n")
    assert path.read_bytes() == "grün\n".encode()
    write_text(str(path), "second")
    assert path.read_text() == "second"
    assert names(tmp_path) == ["a file.txt"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("bad"), OSError(errno.ENOSPC, "full")])
def test_a_failure_half_way_keeps_the_old_file_and_removes_the_new(tmp_path, failure):
    path = tmp_path / "kept"
    write_text(path, "old")

    def half(temporary):
        temporary.write_text("ha")
        raise failure

    with pytest.raises(M3BayesError if isinstance(failure, OSError) else type(failure)):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["kept"]


@pytest.mark.parametrize(
    ("code", "mend"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EACCES, "may write"),
        (errno.EROFS, "may write"),
        (errno.EIO, "another path"),
    ],
)
def test_errors_of_the_system_are_one_line_with_the_path_and_a_way_out(tmp_path, code, mend):
    def fail(temporary):
        raise OSError(code, os.strerror(code))

    with pytest.raises(M3BayesError, match=mend) as caught:
        write_atomically(tmp_path / "out.nc", fail)
    assert str(tmp_path / "out.nc") in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("missing/out.nc", "missing does not exist"),
        ("file/out.nc", "file is not a folder"),
        ("folder", "not a regular file"),
        ("x" * 300, "shorter name"),
        ("x" * 250, "shorter name"),
    ],
)
def test_places_where_no_file_can_be(tmp_path, path, says):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(M3BayesError, match=says):
        write_text(tmp_path / path, "new")
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


def test_a_device_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(M3BayesError, match="not a regular file"):
        write_text(pipe, "new")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_link_is_followed_and_the_mode_is_kept(tmp_path):
    (tmp_path / "far").mkdir()
    target = tmp_path / "far" / "target"
    target.write_text("old")
    target.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink() and target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert names(tmp_path / "far") == ["target"]


def test_leftovers_of_processes_that_are_gone_are_removed_by_the_next_success(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = tmp_path / f".out.nc.{gone.pid}.7.tmp"
    alive = tmp_path / f".out.nc.{os.getpid()}.1.tmp"
    other = tmp_path / f".other.nc.{gone.pid}.7.tmp"
    for path in (dead, alive, other):
        path.write_text("half")
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "out.nc", lambda temporary: 1 / 0)
    assert dead.exists()
    write_text(tmp_path / "out.nc", "whole")
    assert names(tmp_path) == sorted(["out.nc", alive.name, other.name])


def test_threads_that_write_one_path_leave_one_whole_file(tmp_path):
    path = tmp_path / "one"
    contents = [bytes([65 + i]) * 100_000 for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda content: [write_bytes(path, content) for _ in range(10)], contents))
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["one"]


def test_a_disk_that_takes_no_more_keeps_the_old_file(tmp_path):
    """A limit on the size of files stands in for the full disk: the write stops half way."""
    script = f"""
        import resource
        from m3bayes.errors import M3BayesError
        from m3bayes.files import write_text
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        write_text({str(tmp_path / "out")!r}, "old")
        try:
            write_text({str(tmp_path / "out")!r}, "new" * 1000)
        except M3BayesError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert "make room" in done.stdout and str(tmp_path / "out") in done.stdout
    assert (tmp_path / "out").read_text() == "old"
    assert names(tmp_path) == ["out"]


@settings(deadline=None, max_examples=50)
@given(payload=st.binary(max_size=500), label=st.text("abc 019.", min_size=1, max_size=20), data=st.data())
def test_a_seal_opens_unless_anything_changed(payload, label, data):
    whole = sealed(payload, label)
    assert whole.startswith(payload)
    assert unseal(whole) == (payload, label)

    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    assert unseal(bytes(flipped)) is None
    assert unseal(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None
    assert unseal(whole + b"\n") is None


def test_the_innermost_content_may_itself_be_sealed():
    inner = sealed(b"content", "inner")
    assert unseal(sealed(inner, "outer")) == (inner, "outer")
