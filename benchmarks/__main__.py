"""`make bench`: P1 to P7, packages that fit the same law, the map, many fits, limits; a process each.

    python -m benchmarks [NAME ...]

Every benchmark prints a table and ends with one line of JSON, {figure: result}, which is kept in benchmarks/results/.
Others of this folder (calibration, real_tables, gpu) take long or need tables or a machine that is not here, and run by
themselves.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

from benchmarks import report

BENCHMARKS = (
    "posterior",
    "cold_start",
    "point_fits",
    "packages",
    "sbc",
    "prediction",
    "optima",
    "threshold_map",
    "many_languages",
    "many_fits",
    "limits",
)


def run(name: str) -> None:
    """Run one benchmark, show what it prints and keep its result."""
    begun = time.perf_counter()
    command = [sys.executable, "-u", "-m", f"benchmarks.{name}"]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                last = line
            else:
                print(line, end="", flush=True)
    if process.returncode or not last:
        raise SystemExit(f"benchmarks.{name} ended with exit code {process.returncode}")
    ((figure, result),) = json.loads(last).items()
    report.keep(name, figure, result, time.perf_counter() - begun)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "names", nargs="*", choices=(*BENCHMARKS, []), metavar="NAME", help=", ".join(BENCHMARKS)
    )
    for name in parser.parse_args().names or BENCHMARKS:
        run(name)
    print(report.write())


if __name__ == "__main__":
    main()
