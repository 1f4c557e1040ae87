"""Files that are whole or not there: written beside their place, flushed, renamed; sealed with a digest.

A rename within one folder is atomic: whoever reads ``path`` at any moment, also after a kill or a crash
of the machine, finds the old file or the new one, never a part of either.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from m3bayes.errors import M3BayesError

_MENDED_BY = {
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOSPC: "make room or choose another folder",
    errno.EDQUOT: "make room or choose another folder",
    errno.EFBIG: "make room or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}
_SEAL = re.compile(rb"\nm3bayes ([ -~]{1,200}) sha256 ([0-9a-f]{64})\n\Z")
_SEAL_LENGTH = 300


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Let ``write(temporary)`` write a file, then put it at ``path`` in one step.

    The temporary file ``.name.<process>.<thread>.tmp`` lies in the folder of ``path`` (``write`` must not
    read a format from its name) and is removed when anything fails; those that killed processes left are
    removed by the next success. A symbolic link is followed and stays a link, and the mode of a file that
    is replaced is kept.

    Raises M3BayesError, with the path and a way out, where the folder is missing or not writable, the
    path is not a regular file, or the disk is full. Other exceptions of ``write`` pass.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}.tmp")
    try:
        _check_target(path)
        try:
            write(temporary)
            _flush(temporary)
            if path.exists():
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise M3BayesError(_complaint(path, error)) from error
    # The file is in its place; what follows cannot take that back, so it must not look like a failure.
    with contextlib.suppress(OSError):
        if os.name == "posix":
            _flush(path.parent)
            _remove_leftovers(path)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` in one step; errors as :func:`write_atomically`."""
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def write_sealed(path: str | os.PathLike[str], payload: bytes | memoryview, label: str) -> None:
    """Write ``payload`` and its :func:`seal` to ``path`` in one step; errors as :func:`write_atomically`."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            file.write(payload)
            file.write(seal(payload, label))

    write_atomically(path, write)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` in one step; errors as :func:`write_atomically`."""
    write_bytes(path, text.encode("utf-8"))


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Add ``line`` and a line end to the text file ``path`` and flush it to the disk.

    A kill or a full disk can leave a part of it, which then lacks the line end. Raises M3BayesError as
    :func:`write_atomically`.
    """
    try:
        with open(path, "ab") as file:
            file.write(line.encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise M3BayesError(_complaint(Path(path), error)) from error


def is_special(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a pipe, a socket or a device, of which reading may never come to an end."""
    path = Path(path)
    return path.exists() and not (path.is_file() or path.is_dir())


def seal(payload: bytes | memoryview, label: str) -> bytes:
    """The line to put after ``payload``: ``label`` (printable ASCII) and the sha256 of payload and label.

    HDF5 and zip readers do not mind the line, so a sealed netCDF or npz file still opens everywhere.
    """
    start = f"\nm3bayes {label} sha256 ".encode("ascii")
    digest = hashlib.sha256(payload)
    digest.update(start)
    return start + digest.hexdigest().encode("ascii") + b"\n"


def unseal(data: bytes) -> tuple[bytes, str] | None:
    """The payload and label of a sealed file; None where a single bit of them has changed."""
    tail_start = max(len(data) - _SEAL_LENGTH, 0)
    found = _SEAL.search(data[tail_start:])
    if found is None:
        return None
    covered = memoryview(data)[: tail_start + found.start(2)]
    if hashlib.sha256(covered).hexdigest().encode("ascii") != found[2]:
        return None
    return data[: tail_start + found.start()], found[1].decode("ascii")


def _check_target(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise M3BayesError(f"{path} cannot be written: it is not a regular file; give the path of a file")
    if not path.parent.is_dir():
        state = "is not a folder" if path.parent.exists() else "does not exist"
        raise M3BayesError(
            f"{path} cannot be written: the folder {path.parent} {state}; make it or choose another"
        )


def _complaint(path: Path, error: OSError) -> str:
    reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
    mend = _MENDED_BY.get(error.errno or 0, "choose another path")
    return f"{path} cannot be written: {reason}; {mend}"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of ``path`` whose process is gone."""
    leftover = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.\d+\.tmp")
    for name in os.listdir(path.parent):
        found = leftover.fullmatch(name)
        if found and not _is_running(int(found[1])):
            path.with_name(name).unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
