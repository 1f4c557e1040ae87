"""Trained models in files, for other runs to go on from: parameters alone, without the optimiser's moments."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from m3bayes.errors import M3BayesError
from m3bayes.files import unseal, write_sealed
from m3bayes.pilot.model import Decoder, Shape

_LABEL = "model 1"


@dataclass(frozen=True)
class Folders:
    """``checkpoints`` has the models that runs may go on from, ``keep`` takes those that a sweep trains."""

    checkpoints: Path | None = None
    keep: Path | None = None


class Checkpoint(NamedTuple):
    """A trained model, and the sha256 of its parameters."""

    model: Decoder
    digest: str


def save(folder: Path, run: str, model: Decoder) -> None:
    """Keep the parameters of ``run`` in ``folder``, which is made where it is missing."""
    path = _file(folder, run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise M3BayesError(f"{folder} cannot be made: {error.strerror}; choose another folder") from error
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **_named(model))
    write_sealed(path, buffer.getbuffer(), _LABEL)


def load(folder: Path | None, run: str, shape: Shape, vocabulary: int) -> Checkpoint:
    """What :func:`save` kept of ``run``.

    Raises M3BayesError where there is no such file, it is not whole, or its model is of another shape or vocabulary.
    """
    if folder is None:
        raise M3BayesError(
            f"checkpoint {run!r} is asked for, but no folder of checkpoints is given; say --checkpoints FOLDER"
        )
    path = _file(folder, run)
    try:
        opened = unseal(path.read_bytes())
    except OSError as error:
        raise M3BayesError(
            f"{path} cannot be read: {error.strerror}; `m3bayes pilot run --keep {folder}` writes it when it trains "
            f"the run {run}"
        ) from error
    if opened is None or opened[1] != _LABEL:
        raise M3BayesError(f"{path} is not a whole checkpoint of m3bayes pilot; train the run {run} again")
    try:
        with np.load(io.BytesIO(opened[0]), allow_pickle=False) as stored:
            arrays = dict(stored)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise M3BayesError(f"{path} is not a checkpoint of m3bayes pilot: {error}") from error
    empty = eqx.filter_eval_shape(Decoder, shape, vocabulary, jax.random.key(0))
    expected = {name: leaf.shape for name, leaf in _leaves(empty)}
    found = {name: array.shape for name, array in arrays.items()}
    if found != expected:
        raise M3BayesError(
            f"{path} has a model of {sum(array.size for array in arrays.values())} numbers, embedding included, "
            f"expected {sum(int(np.prod(size)) for size in expected.values())}: {shape.params} parameters and "
            f"a vocabulary of {vocabulary}"
        )
    leaves = [jnp.asarray(arrays[name]) for name in expected]
    return Checkpoint(jax.tree.unflatten(jax.tree.structure(empty), leaves), _digest(arrays))


def _file(folder: Path, run: str) -> Path:
    if Path(run).name != run:
        raise M3BayesError(f"run {run!r} cannot name the file of its model, expected a name without a slash")
    return folder / f"{run}.npz"


def _leaves(model: Decoder) -> list[tuple[str, Any]]:
    """Arrays, or what stands for them, by the names of their places."""
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(model)]


def _named(model: Decoder) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in _leaves(model)}


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name} {little.dtype.str} {little.shape}\n".encode())
        digest.update(little.data)
    return digest.hexdigest()
