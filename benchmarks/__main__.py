"""`make bench`: every benchmark in turn, results under benchmarks/results/."""

from __future__ import annotations

import runpy
import sys

BENCHMARKS = ("prediction", "calibration")

for name in BENCHMARKS:
    sys.argv = [f"benchmarks.{name}"]
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
