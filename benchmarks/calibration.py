"""Are the posteriors of M3 right? Ranks of the truth on tables simulated from the prior.

    python -m benchmarks.calibration [--tables 100] [--law m3] [--out benchmarks/results/calibration.json]

:func:`m3bayes.calibrate` on the recipes of the embedded table. Beside the result: a figure of the ranks, and a
folder with the simulations finished so far, from which a killed run goes on; it can be removed afterwards.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--law", default="m3")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/calibration.json"))
    arguments = parser.parse_args()
    with tqdm(total=arguments.tables, unit="fit", file=sys.stderr) as line:
        found = m3.calibrate(
            m3.laws.named(arguments.law),
            m3.data.simulated_runs(),
            simulations=arguments.tables,
            folder=arguments.out.with_suffix(".simulations"),
            report=lambda done, _: line.update(done - line.n),
        )
    result = json_text(
        {
            "law": arguments.law,
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "m3bayes": m3.__version__,
            **as_json(found),
        }
    )
    write_text(arguments.out, result + "\n")
    m3.plots.save_figure(m3.plots.calibrated(found), arguments.out.with_suffix(".png"))
    print(result)


if __name__ == "__main__":
    main()
