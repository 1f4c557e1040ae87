"""Are posteriors right? Ranks of the truth on tables simulated from a law's prior.

    python -m benchmarks.calibration [--law m3] [--design simulated|measured] [--tables 100] [--out FOLDER]

:func:`m3bayes.calibrate` on the recipes of the simulated table, or on those of the measured German runs. The result
is FOLDER/DESIGN-LAW.json and, of the ranks, DESIGN-LAW.png; beside them a folder with the simulations finished so
far, from which a killed run goes on; it can be removed afterwards.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import date
from pathlib import Path

from tqdm import tqdm

import m3bayes as m3
from m3bayes.cli.calibrate import as_json
from m3bayes.cli.show import json_text
from m3bayes.files import write_text

DESIGNS = {"simulated": m3.data.simulated_runs, "measured": m3.demo_runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--law", default="m3")
    parser.add_argument("--design", choices=DESIGNS, default="simulated")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/calibration"))
    arguments = parser.parse_args()
    out = arguments.out / f"{arguments.design}-{arguments.law}.json"
    with tqdm(total=arguments.tables, unit="fit", file=sys.stderr) as line:
        found = m3.calibrate(
            m3.laws.named(arguments.law),
            DESIGNS[arguments.design](),
            simulations=arguments.tables,
            folder=out.with_suffix(".simulations"),
            report=lambda done, _: line.update(done - line.n),
        )
    result = json_text(
        {
            "law": arguments.law,
            "design": arguments.design,
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "m3bayes": m3.__version__,
            **as_json(found),
        }
    )
    write_text(out, result + "\n")
    m3.plots.save_figure(m3.plots.calibrated(found), out.with_suffix(".png"))
    print(result)


if __name__ == "__main__":
    main()
