"""Arrays kept in a folder that the caller names, found again by a key of all that they were made from."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from m3bayes.errors import M3BayesError
from m3bayes.files import unseal, write_sealed

_LABEL = "corpora 1"


def cache_file(folder: Path, parts: Iterable[bytes]) -> Path:
    """The place in ``folder``, which is made where it is missing, of what is made from ``parts``."""
    digest = hashlib.sha256(_LABEL.encode())
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise M3BayesError(
            f"{folder} cannot be made: {error.strerror}; choose another folder for the cache"
        ) from error
    return folder / f"corpora-{digest.hexdigest()[:32]}.npz"


def load(path: Path) -> tuple[dict[str, np.ndarray], Any] | None:
    """What :func:`save` wrote; None where there is nothing, or nothing whole."""
    try:
        opened = unseal(path.read_bytes())
    except OSError:
        return None
    if opened is None or opened[1] != _LABEL:
        return None
    try:
        with np.load(io.BytesIO(opened[0]), allow_pickle=False) as stored:
            arrays = dict(stored)
        return arrays, json.loads(arrays.pop("").tobytes())
    except (ValueError, KeyError, OSError, zipfile.BadZipFile):
        return None


def save(path: Path, arrays: Mapping[str, np.ndarray], description: Any) -> None:
    """``arrays`` by non-empty names, and a description that JSON can hold."""
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(description).encode(), np.uint8)
    np.savez(buffer, allow_pickle=False, **arrays, **{"": text})
    write_sealed(path, buffer.getbuffer(), _LABEL)
