"""Posteriors as files: netCDF in the ArviZ schema, sealed, read back bit for bit.

The file is the DataTree of :func:`tree`: groups ``posterior``, ``sample_stats``, ``log_likelihood``,
``observed_data`` and ``constant_data`` (the numeric columns of the runs); what is not an array is JSON in
the attributes of the root. After the HDF5 content stands one line with the version of the format and a
sha256 of every byte before it. It is checked before the content is parsed, so a damaged file never
reaches the HDF5 library. Nothing of a file is ever executed: a law is looked up by its name among the
built-in ones, or given by the caller.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from m3bayes import laws
from m3bayes.errors import M3BayesError, Note, PosteriorFileError
from m3bayes.files import is_special, unseal, write_sealed
from m3bayes.inference.noise import Noise
from m3bayes.inference.posterior import Posterior, Verdict
from m3bayes.laws.departing import departing, departs
from m3bayes.laws.law import Law
from m3bayes.runs import Runs

if TYPE_CHECKING:
    import xarray

FORMAT = 1
_MARK = "m3bayes_format"
_CURES = {
    (
        "pooled posterior",
        "posterior",
    ): "take one group out of it: `m3bayes pooled FILE --group NAME --out POSTERIOR`, "
    "or load_pooled(FILE).of(NAME)",
}
_MAKERS = {"posterior": "m3bayes fit", "pooled posterior": "m3bayes fit --pool COLUMN"}
_PLAIN = (_MARK, "inference_library")  # attributes that are no JSON
_HDF5 = b"\x89HDF\r\n\x1a\n"
_BY_DRAW = ("chain", "draw")

# name of an array -> its dimensions, values and what to say of it
_Arrays = Mapping[str, tuple[tuple[str, ...], np.ndarray, Mapping[str, str]]]


def tree(post: Posterior) -> xarray.DataTree:
    """The posterior as an ArviZ DataTree.

    Dimensions are ``chain``, ``draw``, ``run`` (coordinate: the names of the runs) and, where sigma is one a
    group, ``group``. The log likelihood is of log loss: ``arviz.loo(tree, var_name="log_loss")``. A
    variable's attribute ``name`` is its exact name, which differs from its key only where netCDF does not
    allow it (a ``/``).
    """
    import xarray

    first = next(iter(post.draws.values()))
    by_draw = {name: np.arange(size) for name, size in zip(_BY_DRAW, first.shape, strict=False)}
    by_run = {"run": np.array([_printable(name) for name in post.runs.names], dtype=object)}
    by_group = {"group": np.array([_printable(group) for group in post.groups], dtype=object)}
    groups = {
        "posterior": dataset(
            {
                name: ((*_BY_DRAW, "group")[: values.ndim], values, _described(post, name))
                for name, values in post.draws.items()
            },
            by_draw | (by_group if post.groups else {}),
        ),
        "sample_stats": dataset(
            {name: (_BY_DRAW, values, {}) for name, values in post.sample_stats.items()}, by_draw
        ),
        "observed_data": dataset({"log_loss": (("run",), np.log(post.runs["loss"]), {})}, by_run),
        "constant_data": dataset(
            {
                name: (("run",), values, {})
                for name, values in post.runs.columns.items()
                if values.dtype != object
            },
            by_run,
        ),
    }
    if post.log_likelihood is not None:
        groups["log_likelihood"] = dataset(
            {"log_loss": ((*_BY_DRAW, "run"), post.log_likelihood, {})}, by_draw | by_run
        )
    groups["/"] = xarray.Dataset(attrs=_attributes(post))
    return xarray.DataTree.from_dict(groups)


def save(post: Posterior, path: str | os.PathLike[str]) -> None:
    """Write ``post`` to ``path`` in one step; the same posterior always gives the same bytes.

    Raises PosteriorFileError where something in it has no place in a file (an option of a user's law that
    is not JSON) and M3BayesError where ``path`` cannot be written.
    """
    write(lambda: tree(post), path, "posterior")


def write(made: Callable[[], xarray.DataTree], path: str | os.PathLike[str], kind: str) -> None:
    """Write a tree to a sealed file of a ``kind``; errors as :func:`save`."""
    image = io.BytesIO()
    try:
        # Encoded in memory, so that the disk meets one plain write, and a full disk one plain error.
        made().to_netcdf(image, engine="h5netcdf")
    except (TypeError, ValueError) as error:
        raise PosteriorFileError(f"the {kind} cannot be saved to {path}: {_one_line(error)}") from error
    write_sealed(path, image.getbuffer(), f"{kind} {FORMAT}")


def load(path: str | os.PathLike[str], *, law: Law | None = None, runs: Runs | None = None) -> Posterior:
    """The posterior that :func:`save` wrote to ``path``.

    ``law``   the law that was fitted; needed for a user-defined one, checked by name, options and
              coefficients otherwise
    ``runs``  where given, must be the table that was fitted

    Raises PosteriorFileError where the file cannot be read, is none of m3bayes, has changed since it
    was saved, has a later format, or belongs to another law or table.
    """

    def made(stored: Stored, groups: Groups) -> Posterior:
        post = posterior_in(path, stored, groups, law)
        _check_shapes(post)
        return post

    post = read(path, "posterior", made)
    table = post.runs
    if runs is not None and runs.fingerprint() != table.fingerprint():
        raise PosteriorFileError(
            f"{path} was fitted to another table: {table.name}, {len(table)} runs "
            f"({table.fingerprint()[:12]}) there, {runs.name}, {len(runs)} runs "
            f"({runs.fingerprint()[:12]}) given; give that table, or fit this one"
        )
    return post


Stored = Mapping[str, Any]  # what is not an array, decoded
Groups = Mapping[str, Mapping[str, np.ndarray]]  # {group: {name: array}}


def read[Kind](path: str | os.PathLike[str], kind: str, make: Callable[[Stored, Groups], Kind]) -> Kind:
    """What ``make`` makes of the content of a file of a ``kind``; PosteriorFileError whatever goes wrong."""
    image = _payload(path, kind)
    try:
        stored, groups = _read(image)
        _check_kinds(stored)
        return make(stored, groups)
    except PosteriorFileError:
        raise
    except Exception as error:  # whatever a file of other hands makes of the steps above
        raise PosteriorFileError(
            f"{path} has the seal of m3bayes but not the content of a {kind}: {_one_line(error)}"
        ) from error


def posterior_in(path: str | os.PathLike[str], stored: Stored, groups: Groups, law: Law | None) -> Posterior:
    """The posterior in the content of a file, its shapes not checked."""
    return Posterior(
        law=_law(path, stored["law"], law),
        noise=Noise(**stored["noise"]),
        runs=_runs(stored["runs"], groups.get("constant_data", {})),
        draws={name: groups["posterior"][name] for name in stored["draws"]},
        sample_stats=groups.get("sample_stats", {}),
        log_likelihood=groups.get("log_likelihood", {}).get("log_loss"),
        constants=stored["constants"],
        groups=tuple(stored["groups"]),
        verdict=stored["verdict"],
        notes=_notes(stored["notes"]),
        settings=stored["settings"],
        versions=stored["versions"],
    )


# --- writing -------------------------------------------------------------------------------------------


def _attributes(post: Posterior) -> dict[str, Any]:
    runs = post.runs
    law = {
        "name": post.law.name,
        "options": dict(post.law.options),
        "coefficients": post.law.names,
        "units": {c.name: c.unit for c in post.law.coefficients},
        "formula": post.law.formula,
        "source": post.law.source,
        "built_in": _is_built_in(post.law),
    }
    table = {
        "name": runs.name,
        "fingerprint": runs.fingerprint(),
        "unit_params": runs.unit_params,
        "unit_tokens": runs.unit_tokens,
        "columns": list(runs.columns),
        "text": {name: values.tolist() for name, values in runs.columns.items() if values.dtype == object},
        "notes": [asdict(note) for note in runs.notes],
    }
    parts = {
        "law": law,
        "draws": list(post.draws),
        "noise": asdict(post.noise),
        "groups": post.groups,
        "constants": dict(post.constants),
        "verdict": post.verdict,
        "notes": [asdict(note) for note in post.notes],
        "settings": dict(post.settings),
        "versions": dict(post.versions),
        "runs": table,
    }
    return {
        _MARK: FORMAT,
        "inference_library": "m3bayes",
        **{name: json.dumps(part, default=_plain) for name, part in parts.items()},
    }


def dataset(arrays: _Arrays, coordinates: Mapping[str, np.ndarray]) -> xarray.Dataset:
    import xarray

    variables: dict[str, xarray.Variable] = {}
    for name, (dimensions, values, about) in arrays.items():
        key = re.sub(r"[\x00-\x1f/]", "_", name)
        key = key if key.strip(".") else f"_{key}"
        while key in variables or key in coordinates or key in _BY_DRAW:
            key += "_"
        # no fill value: a NaN is a NaN, and every bit of a draw is kept
        variables[key] = xarray.Variable(
            dimensions, values, {"name": json.dumps(name), **about}, {"_FillValue": None}
        )
    return xarray.Dataset(variables, coords=coordinates)


def _described(post: Posterior, name: str) -> dict[str, str]:
    unit, meaning = post.described(name)
    return {"unit": unit, "meaning": meaning}


def _is_built_in(law: Law) -> bool:
    try:
        known = _named(law.name, law.options)
    except (M3BayesError, TypeError):
        return False
    return known.names == law.names and known.formula == law.formula


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is no number, text or list of them")


def _printable(text: str) -> str:
    """Without what HDF5 text cannot hold; only for labels, the table itself is kept exactly."""
    return str(text).replace("\0", "?").encode("utf-8", "replace").decode("utf-8")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# --- reading -------------------------------------------------------------------------------------------


def _payload(path: str | os.PathLike[str], wanted: str) -> bytes:
    """The HDF5 content of a file of a kind whose seal is whole and whose format is known."""
    maker = _MAKERS[wanted]
    if is_special(path):
        raise PosteriorFileError(f"{path} is a pipe or a device; give a file that `{maker}` wrote")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or _one_line(error)
        raise PosteriorFileError(f"{path} cannot be read: {reason}; give one that `{maker}` wrote") from error
    if not data.startswith(_HDF5):
        what = "is empty" if not data else "is not a netCDF (HDF5) file"
        raise PosteriorFileError(f"{path} {what}; give one that `{maker}` wrote")
    opened = unseal(data)
    if opened is None and _MARK.encode() not in data:
        raise PosteriorFileError(
            f"{path} is an HDF5 file but no posterior of m3bayes, or only the first part of one; "
            f"give one that `{maker}` wrote"
        )
    if opened is None:
        raise PosteriorFileError(
            f"{path} is damaged: it was cut short or changed since it was saved; take a copy, or fit again"
        )
    image, label = opened
    kind, _, version = label.rpartition(" ")
    if kind != wanted or not version.isdecimal():
        cure = _CURES.get((kind, wanted), f"give one that `{maker}` wrote")
        raise PosteriorFileError(f"{path} holds a {kind}, not a {wanted}; {cure}")
    if int(version) > FORMAT:
        raise PosteriorFileError(
            f"{path} has file format {version}, this m3bayes reads up to {FORMAT}; install a later m3bayes"
        )
    return image


def _read(image: bytes) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """The root's JSON attributes, decoded, and {group: {name: array}}."""
    import h5netcdf

    _check_contained(image)
    with h5netcdf.File(io.BytesIO(image), "r") as file:
        groups = {
            name: {
                json.loads(variable.attrs["name"]): _array(variable)
                for key, variable in group.variables.items()
                if key not in group.dimensions
            }
            for name, group in file.groups.items()
        }
        stored = {name: json.loads(text) for name, text in file.attrs.items() if name not in _PLAIN}
        return stored, groups


def _check_contained(image: bytes) -> None:
    """ValueError where the HDF5 content points to other files, or has more data than bytes (unwritten, packed)."""
    import h5py

    def check_link(name: str, link: object) -> None:
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name} is a link")

    sizes = []

    def check_data(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise ValueError(f"the data of {name} are in another file")
            sizes.append(item.nbytes)

    with h5py.File(io.BytesIO(image), "r") as file:
        file.visititems_links(check_link)
        file.visititems(check_data)
    if sum(sizes) > len(image):
        raise ValueError(f"its arrays have {sum(sizes)} bytes, the file {len(image)}")


def _array(variable: Any) -> np.ndarray:
    # netCDF has no booleans: xarray writes small integers and says so
    values = np.asarray(variable[...])
    return values.astype(bool) if variable.attrs.get("dtype") == "bool" else values


def _check_shapes(post: Posterior) -> None:
    """ValueError unless the arrays fit each other and the law."""
    missing = [name for name in post.law.names if name not in post.draws]
    if missing:
        raise ValueError(f"there are no draws of {missing[0]}")
    shape = post.draws[post.law.names[0]].shape
    expected = {name: (values, shape) for name, values in {**post.draws, **post.sample_stats}.items()}
    if post.groups:
        expected["sigma"] = (post.draws["sigma"], (*shape, len(post.groups)))
    if post.log_likelihood is not None:
        expected["log_likelihood"] = (post.log_likelihood, (*shape, len(post.runs)))
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"draws have shape {shape}, expected (chain, draw)")
    for name, (values, wanted) in expected.items():
        if values.shape != wanted or values.dtype.kind not in "fiub":
            raise ValueError(f"{name} is {values.dtype} {values.shape}, expected numbers {wanted}")


def _check_kinds(stored: Mapping[str, Any]) -> None:
    """ValueError unless what is not an array is of its kind."""
    for name, value, kinds in (
        ("verdict", stored["verdict"], get_args(Verdict)),
        ("noise", stored["noise"]["kind"], ("student-t", "normal")),
    ):
        if value not in kinds:
            raise ValueError(f"its {name} is {value!r:.60}, expected {' or '.join(kinds)}")
    for name in ("noise", "constants", "settings", "versions"):
        if not isinstance(stored[name], dict):
            raise ValueError(f"its {name} is no mapping of names")


def _runs(stored: Mapping[str, Any], numeric: Mapping[str, np.ndarray]) -> Runs:
    text = {name: np.array(cells, dtype=object) for name, cells in stored["text"].items()}
    columns = {name: text[name] if name in text else numeric[name] for name in stored["columns"]}
    return Runs(
        columns=columns,
        unit_params=stored["unit_params"],
        unit_tokens=stored["unit_tokens"],
        notes=_notes(stored["notes"]),
        name=stored["name"],
    )


def _law(path: str | os.PathLike[str], kept: Mapping[str, Any], given: Law | None) -> Law:
    """The law of the file: ``given`` where it is that law, else the built-in one of that name."""
    options = {name: _hashable(value) for name, value in kept["options"].items()}
    there = _call(kept["name"], options)
    if given is None:
        if not kept["built_in"]:
            raise PosteriorFileError(f"{path} was fitted with the user-defined law {there}; give it as law=")
        given = _named(kept["name"], options)
    elif "departure" in options and not departs(given):
        given = departing(given, options["departure"])
    here = _call(given.name, {name: _hashable(value) for name, value in given.options.items()})
    if here != there:
        raise PosteriorFileError(f"{path} was fitted with law {there}, not {here}; give that one")
    if list(given.names) != kept["coefficients"]:
        raise PosteriorFileError(
            f"{path} was fitted with a law {there} of coefficients {', '.join(kept['coefficients'])}; "
            f"this {here} has {', '.join(given.names)}; give the law that was fitted"
        )
    return given


def _named(name: str, options: Mapping[str, Any]) -> Law:
    """A built-in law; with a departure where its options have the edges of one."""
    law = laws.named(name, **{option: value for option, value in options.items() if option != "departure"})
    return departing(law, options["departure"]) if "departure" in options else law


def _call(name: str, options: Mapping[str, object]) -> str:
    return f"{name}({', '.join(f'{option}={value!r}' for option, value in sorted(options.items()))})"


def _hashable(value: Any) -> Any:
    return tuple(_hashable(item) for item in value) if isinstance(value, list | tuple) else value


def _notes(stored: list[dict[str, Any]]) -> tuple[Note, ...]:
    return tuple(Note(note["code"], note["message"], tuple(note["about"])) for note in stored)
