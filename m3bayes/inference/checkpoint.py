"""A folder that keeps a fit while it samples: what is fitted, and of each chain its state and draws.

``header.json`` says what is fitted (law, table, settings, versions). ``chain-<i>.npz`` holds the arrays
of chain i: the sampler's state, with the random key as its ``key_data``, and the draws so far. Each file
is replaced in one step and sealed (see ``files.py``), and a chain's seal names the header it was written
under, so a chain of an earlier fit in the same folder is never taken for one of this.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from m3bayes.errors import FitError, Note
from m3bayes.files import is_special, unseal, write_sealed, write_text

Folder = str | os.PathLike[str]
Arrays = dict[str, np.ndarray]
# the folders that this thread holds: who holds one to remove it after a fit lets the fit hold it too
_HELD: ContextVar[frozenset[Path]] = ContextVar("_HELD", default=frozenset())


@contextlib.contextmanager
def held(folder: Folder) -> Iterator[None]:
    """Keep ``folder``, made where it is missing, from other fits that hold it too; it goes if it stays empty.

    Two fits in one folder would take each other's chains for their own, in one process as in two. A kill lets go.
    Where a file system has no locks, nothing keeps them apart. Raises FitError where another fit holds the
    folder, or it cannot be made.
    """
    _make(folder)
    place = Path(folder).resolve()
    if place in _HELD.get():
        yield
        return
    with contextlib.ExitStack() as stack:
        if os.name == "posix":
            stack.callback(os.close, _locked(folder))
        stack.callback(_HELD.reset, _HELD.set(_HELD.get() | {place}))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def write_header(folder: Folder, identity: Mapping[str, Any]) -> None:
    """Start a checkpoint of the fit with this ``identity`` (JSON) in ``folder``, made where it is missing.

    Chains that another fit left there no longer count. Raises FitError where the folder cannot be
    made, M3BayesError where it cannot be written to.
    """
    _make(folder)
    write_text(_header(folder), json.dumps(_as_json(identity), indent=1, sort_keys=True) + "\n")


def read_header(folder: Folder) -> dict[str, Any] | None:
    """The identity of the fit in ``folder``, None where there is none; a damaged one raises FitError."""
    if is_special(_header(folder)):
        raise _damaged_header(folder)
    try:
        header = json.loads(_header(folder).read_bytes())
        json.dumps(header)  # what is nested too deeply to be written was not written here
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged_header(folder) from error
    if not isinstance(header, dict):
        raise _damaged_header(folder)
    return header


def check_header(folder: Folder, identity: Mapping[str, Any]) -> bool:
    """Whether ``folder`` holds a checkpoint of this fit; False where it holds none.

    Raises FitError, which names what differs, where it holds that of another fit.
    """
    there = read_header(folder)
    if there is None:
        return False
    kept, wanted = _flat(there), _flat(_as_json(identity))
    differences = [
        f"{name} {_short(kept.get(name, 'absent'))} there, {_short(wanted.get(name, 'absent'))} here"
        for name in wanted | kept
        if kept.get(name) != wanted.get(name)
    ]
    if differences:
        raise FitError(
            f"the checkpoint in {folder} is of another fit: {'; '.join(differences)}; "
            f"repeat that fit, give another folder, or do not resume"
        )
    return True


def write_chain(folder: Folder, chain: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace what is kept of ``chain``. Raises FitError without a header, M3BayesError on a failing disk."""
    label = _label(folder)
    if label is None:
        raise FitError(f"{folder} has no checkpoint to add chain {chain} to; write its header first")
    image = io.BytesIO()
    # names are prefixed, since savez takes some for its own arguments
    kept: dict[str, Any] = {f"={name}": np.asarray(values) for name, values in arrays.items()}
    np.savez(image, **kept)
    write_sealed(_chain(folder, chain), image.getbuffer(), label)


def read_chain(folder: Folder, chain: int) -> Arrays | None:
    """What is kept of ``chain``; None where nothing is, also where it is damaged or of another fit."""
    return _read(folder, chain)[0]


def read_chains(
    folder: Folder, chains: int, right: Callable[[int, Arrays], bool] = lambda chain, arrays: True
) -> tuple[list[Arrays | None], tuple[Note, ...]]:
    """:func:`read_chain` of each of ``chains`` chains, and a note CHECKPOINT_DAMAGED where one is damaged, or its
    arrays are not ``right``."""
    found: list[Arrays | None] = []
    notes = []
    for chain in range(chains):
        arrays, note = _read(folder, chain)
        if arrays is not None and not right(chain, arrays):
            arrays, note = None, _damaged(chain, _chain(folder, chain))
        found.append(arrays)
        notes += [] if note is None else [note]
    return found, tuple(notes)


def remove(folder: Folder) -> None:
    """Remove the checkpoint, and the folder where nothing else is in it."""
    folder = Path(folder)
    # the header goes first: what a kill leaves behind from here on counts for nothing
    ours = [_header(folder), *folder.glob("chain-*.npz"), *folder.glob(".header.json.*.tmp")]
    for path in [*ours, *folder.glob(".chain-*.npz.*.tmp")]:
        with contextlib.suppress(OSError):
            path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _locked(folder: Folder) -> int:
    """A descriptor of the folder, which holds its lock until it is closed."""
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise FitError(
            f"the checkpoint folder {folder} cannot be read: {error.strerror}; give another"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise FitError(
            f"another fit is going on in {folder}; wait for it, stop it, or give another"
        ) from None
    except OSError:  # some file systems of clusters have no locks
        pass
    return descriptor


def _make(folder: Folder) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FitError(
            f"the checkpoint folder {folder} cannot be made: {error.strerror}; give another"
        ) from error


def _header(folder: Folder) -> Path:
    return Path(folder) / "header.json"


def _chain(folder: Folder, chain: int) -> Path:
    return Path(folder) / f"chain-{chain}.npz"


def _label(folder: Folder) -> str | None:
    """What the seal of a chain says: the fit it belongs to."""
    header = read_header(folder)
    if header is None:
        return None
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode("ascii")).hexdigest()
    return f"chain of {digest}"


def _read(folder: Folder, chain: int) -> tuple[Arrays | None, Note | None]:
    path = _chain(folder, chain)
    if not path.exists():
        return None, None
    if is_special(path):
        return None, _damaged(chain, path)
    try:
        opened = unseal(path.read_bytes())
        if opened is None:
            return None, _damaged(chain, path)
        content, label = opened
        if label != _label(folder):
            return None, None
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name.removeprefix("="): archive[name] for name in archive.files}, None
    except Exception:  # cannot be read, or not what write_chain wrote: zip archives fail in many ways
        return None, _damaged(chain, path)


def _damaged(chain: int, path: Path) -> Note:
    message = f"the checkpoint of chain {chain} in {path} is damaged; the chain was sampled from its start"
    return Note("CHECKPOINT_DAMAGED", message, (f"chain {chain}",))


def _damaged_header(folder: Folder) -> FitError:
    return FitError(f"{_header(folder)} is damaged; remove the folder, give another, or do not resume")


def _as_json(identity: Mapping[str, Any]) -> dict[str, Any]:
    """As it reads from a file: tuples are lists, names are text."""
    return json.loads(json.dumps(dict(identity), default=lambda value: value.item()))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"settings": {"seed": 0}} -> {"settings seed": "0"}, values as JSON (in which NaN equals NaN)."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name} ")
        else:
            flat[prefix + name] = json.dumps(value)
    return flat


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:13] + "..."
