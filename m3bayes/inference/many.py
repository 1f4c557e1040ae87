"""fit_many(tables, law) -> Fits: one law fitted to thousands of tables, kept in a folder as they are finished.

In the folder a table has ``NAME-FINGERPRINT.nc``, its posterior, and ``NAME-FINGERPRINT.json``, its row, which
is written last and says that the table is done. Files are written in one step and belong to one table, so that
any number of processes can share a folder, and a killed one is gone on from by calling again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pandas as pd

from m3bayes.errors import FitError, Note
from m3bayes.files import write_text
from m3bayes.inference import checkpoint, storage
from m3bayes.inference.fit import check_settings
from m3bayes.inference.jobs import Device, Job, Outcome, Settings, each_fit
from m3bayes.inference.noise import Noise, student_t
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.precision import Precision, check_precision
from m3bayes.laws.law import Law
from m3bayes.laws.m3 import m3
from m3bayes.runs import Runs

COLUMNS = ["verdict", "attempts", "seconds", "notes", "error", "device"]


@dataclass(frozen=True, eq=False)
class Fits:
    """The posteriors of many tables.

    ``fits[name]`` is the posterior of a table, read from the folder where there is one; FitError where its fit
    failed.

    ``table``   one row a table, by name: ``verdict`` (passed, flagged, failed), ``attempts``, ``seconds`` (in a
                batch the share of a table), ``notes`` (codes joined by ``;``), ``error``, ``device``
    ``notes``   FITS_FLAGGED, FITS_FAILED
    """

    table: pd.DataFrame
    notes: tuple[Note, ...]
    posteriors: Mapping[str, Posterior | Path]
    law: Law

    def __getitem__(self, name: str) -> Posterior:
        if name not in self.table.index:
            raise KeyError(name)
        if name not in self.posteriors:
            raise FitError(str(self.table.loc[name, "error"]))
        kept = self.posteriors[name]
        return kept if isinstance(kept, Posterior) else storage.load(kept, law=self.law)


def fit_many(
    tables: Mapping[str, Runs] | Iterable[Runs],
    law: Law | None = None,
    *,
    noise: Noise | None = None,
    seed: int = 0,
    chains: int = 4,
    warmup: int | None = None,
    draws: int = 1000,
    precision: Precision = "float64",
    constants: Mapping[str, float] | None = None,
    folder: Path | str | None = None,
    log_likelihood: bool = True,
    devices: Sequence[Device] = (),
    batch: int | None = None,
    process: tuple[int, int] | None = None,
    report: Callable[[int, str], None] | None = None,
) -> Fits:
    """The posterior of a law given each of many tables; nothing that goes wrong with one stops the others.

    ``tables``   by name, or one after the other: then they are named "0", "1", ...
    ``law``, ``noise``, ``seed``, ``chains``, ``warmup``, ``draws``, ``precision``, ``constants`` as for
                 :func:`m3bayes.fit`, the same for all tables. Fits that miss the gate after all attempts are flagged,
                 those that raise are failed
    ``folder``   keeps each posterior as it is finished, and out of memory: the same call goes on after a kill, with
                 more tables too. Tables whose fit failed are tried again
    ``log_likelihood``  False leaves out the log likelihood of every draw and run, which is most of a posterior (6
                 of 7 MB for 200 runs and 4000 draws); ``compare`` needs it
    ``devices``  none: the processor, and the draws of :func:`m3bayes.fit` with this seed, bit for bit. Given, as
                 ``jax.local_devices(backend="gpu")``: tables are sampled in batches, spread over these
                 devices; draws differ by rounding, and so as with another seed. Meant for accelerators and
                 hundreds of tables; slower on a processor
    ``batch``    tables a device at a time, which bounds its memory: give less where it runs out. By default 256, fewer
                 where tables are long
    ``process``  (index, count): fit only every count-th table, from ``index``; by default as
                 ``jax.distributed`` says. Processes may share a folder and wait for none; but jax ends the others
                 when one of its distributed processes dies, after which the same calls go on
    ``report``   called with the number of tables done and the name of the last one

    Raises FitError for settings that no fit could have and for a folder of other fits, M3BayesError where the
    folder cannot be written.
    """
    law = m3() if law is None else law
    settings = Settings(law, student_t() if noise is None else noise, chains, warmup, draws, precision)
    check_settings(seed, chains, warmup, draws)
    check_precision(precision)
    share = _share(process)
    kept = None if folder is None else _opened(folder, settings, seed, constants, log_likelihood)
    order: list[str] = []
    finished: dict[str, _Finished] = {}

    def jobs() -> Iterator[Job]:
        for name, runs in islice(_named(tables), *share):
            order.append(name)
            job = Job(name, runs, seed, constants)
            found = None if kept is None else _read(_place(kept, job), name)
            if found is None:
                yield job
            else:
                note(found)

    def keep(outcome: Outcome) -> _Finished:
        job, row, posterior = outcome.job, _row(outcome), outcome.posterior
        if posterior is not None and not log_likelihood:
            posterior = replace(posterior, log_likelihood=None)
        if kept is None:
            return _Finished(job.name, row, posterior)
        return _written(_place(kept, job), job.name, row, posterior)

    def note(one: _Finished) -> None:
        finished[one.name] = one
        if report is not None:
            report(len(finished), one.name)

    for one in each_fit(jobs(), settings, keep, devices=devices, batch=batch):
        note(one)
    rows = pd.DataFrame(
        [finished[name].row for name in order], index=pd.Index(order, name="table"), columns=COLUMNS
    )
    posteriors = {name: found for name, one in finished.items() if (found := one.posterior) is not None}
    return Fits(rows, _notes(rows), posteriors, law)


class _Finished(NamedTuple):
    """A table that is done: its row, and its posterior or where that lies; None where the fit failed."""

    name: str
    row: dict[str, Any]
    posterior: Posterior | Path | None


def _row(outcome: Outcome) -> dict[str, Any]:
    post = outcome.posterior
    return {
        "verdict": outcome.verdict,
        "attempts": 0 if post is None else int(post.settings["attempts"]),
        "seconds": outcome.seconds,
        "notes": "" if post is None else ";".join(sorted({note.code for note in post.notes})),
        "error": outcome.error,
        "device": outcome.device,
    }


def _notes(rows: pd.DataFrame) -> tuple[Note, ...]:
    notes = []
    for verdict, said in (("flagged", "did not pass the gate"), ("failed", "have no posterior")):
        names = tuple(
            str(name) for name, found in zip(rows.index, rows["verdict"], strict=True) if found == verdict
        )
        if names:
            why = f": {rows.loc[names[0], 'error']}" if verdict == "failed" else ""
            message = f"{len(names)} of {len(rows)} tables {said}, the first of them {names[0]}{why}"
            notes.append(Note(f"FITS_{verdict.upper()}", message, names))
    return tuple(notes)


def _named(tables: Mapping[str, Runs] | Iterable[Runs]) -> Iterable[tuple[str, Runs]]:
    if isinstance(tables, Mapping):
        return ((str(name), runs) for name, runs in tables.items())
    return ((str(number), runs) for number, runs in enumerate(tables))


def _share(process: tuple[int, int] | None) -> tuple[int, None, int]:
    """First, last and step of the tables of this process."""
    index, count = (jax.process_index(), jax.process_count()) if process is None else process
    if not 0 <= index < count:
        raise FitError(f"process is ({index}, {count}); give its index, from 0, and the number of processes")
    return index, None, count


# --- the folder -----------------------------------------------------------------------------------------


def _opened(
    folder: Path | str,
    settings: Settings,
    seed: int,
    constants: Mapping[str, float] | None,
    log_likelihood: bool,
) -> Path:
    """The folder, made where it is missing; FitError where it holds other fits."""
    law, noise = settings.law, settings.noise
    identity = {
        "law": law.name,
        "law_options": {key: str(value) for key, value in law.options.items()},
        "coefficients": list(law.names),
        "noise": {"kind": noise.kind, "by": noise.by, "known": noise.known},
        "settings": {
            "seed": seed,
            "chains": settings.chains,
            "warmup": settings.warmup,
            "draws": settings.draws,
            "precision": settings.precision,
            "log_likelihood": log_likelihood,
        },
        "constants": dict(constants or {}),
    }
    if not checkpoint.check_header(folder, identity):
        checkpoint.write_header(folder, identity)
    return Path(folder)


def _place(folder: Path, job: Job) -> Path:
    """Where a table is kept, without the ending: the same table under the same name has one place."""
    label = re.sub(r"[^A-Za-z0-9_-]+", "_", job.name)[:60]
    return folder / f"{label}-{job.runs.fingerprint()[:16]}"


def _read(place: Path, name: str) -> _Finished | None:
    """What is kept of a table; None where it is not done, also where its row is damaged or says that it failed."""
    posterior = place.with_suffix(".nc")
    try:
        row = json.loads(place.with_suffix(".json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and set(row) == set(COLUMNS) and posterior.is_file()
    return _Finished(name, row, posterior) if whole else None


def _written(place: Path, name: str, row: dict[str, Any], posterior: Posterior | None) -> _Finished:
    path = None if posterior is None else place.with_suffix(".nc")
    if posterior is not None and path is not None:
        posterior.save(path)
    write_text(place.with_suffix(".json"), json.dumps(row) + "\n")
    return _Finished(name, row, path)
