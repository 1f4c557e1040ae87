"""Tables that ship with the package."""

from __future__ import annotations

import json
from importlib.resources import as_file, files

from m3bayes.runs import Runs, read_runs


def demo_runs() -> Runs:
    """The German runs of :func:`pilot_runs`, MEASURED: the table of ``m3bayes demo`` and of the README."""
    return pilot_runs().where("language == 'de'")


def pilot_runs() -> Runs:
    """A MEASURED sweep: small byte-level models trained on German, Japanese and French beside English.

    N, U, k, r, r_f and the length of the last stage vary; ``language`` names the target. Loss in nats per byte. Texts,
    plan and how to make it again stand in ``data/README.md`` of the repository.
    """
    return _table("pilot_runs.csv")


def trilingual_runs() -> Runs:
    """A MEASURED sweep: models trained on German beside English and French, in mixes from one to the other.

    One stage. ``en_tokens`` and ``fr_tokens`` are what was read of each source, ``en_unique_tokens`` and
    ``fr_unique_tokens`` the same numbers, since no source text is read twice. Loss in nats per byte. How it was made
    stands in ``data/README.md`` of the repository.
    """
    return _table("trilingual_runs.csv")


def continued_runs() -> Runs:
    """A MEASURED sweep: models trained on German from scratch, and on from a checkpoint that has not seen German.

    ``continued`` is 1 where a run began with ``checkpoint``, trained on Japanese, English and French alike, and 0 from
    scratch. Loss in nats per byte. How it was made stands in ``data/README.md`` of the repository.
    """
    return _table("continued_runs.csv")


def simulated_runs() -> Runs:
    """A SIMULATED pilot sweep: 120 runs of the M3 law at known coefficients, loss in nats per byte.

    How it was made stands in ``data/README.md`` of the repository; :func:`simulated_truth` has the coefficients.
    """
    return _table("simulated_pilot.csv")


def simulated_truth() -> dict:
    """What :func:`simulated_runs` was simulated at: ``coefficients``, ``noise``, ``seed``."""
    return json.loads((files(__name__) / "simulated_pilot.json").read_text(encoding="utf-8"))


def _table(name: str) -> Runs:
    with as_file(files(__name__) / name) as path:
        return read_runs(path)
