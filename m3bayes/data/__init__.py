"""Tables that ship with the package."""

from __future__ import annotations

import json
from importlib.resources import as_file, files

from m3bayes.runs import Runs, read_runs


def demo_runs() -> Runs:
    """A SIMULATED pilot sweep: 120 runs of the M3 law at known coefficients, loss in nats per byte.

    How it was made stands in ``data/README.md`` of the repository; :func:`demo_truth` has the coefficients.
    """
    with as_file(files(__name__) / "simulated_pilot.csv") as path:
        return read_runs(path)


def demo_truth() -> dict:
    """What :func:`demo_runs` was simulated at: ``coefficients``, ``noise``, ``seed``."""
    return json.loads((files(__name__) / "simulated_pilot.json").read_text(encoding="utf-8"))
