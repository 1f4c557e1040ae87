"""Are posteriors right? Ranks of the truth on tables simulated from a law's prior.

    python -m benchmarks.calibration [--law m3] [--design DESIGN] [--tables 100] [--out FOLDER]

:func:`m3bayes.calibrate` on the recipes of the simulated table (DESIGN simulated), on those of the measured German
runs (measured), or on ones with two named source languages (trilingual, for --law atlas:sources=en+fr). The result
is FOLDER/DESIGN-LAW.json and, of the ranks, DESIGN-LAW.png; beside them a folder with the simulations finished so
far, from which a killed run goes on; it can be removed afterwards.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

import m3bayes as m3
from m3bayes.cli.calibrate import as_json
from m3bayes.cli.options import named_law
from m3bayes.cli.show import json_text
from m3bayes.files import write_text


def trilingual(runs: int = 120) -> m3.Runs:
    """Recipes of small models with English and French beside the target.

    A sixth has neither, a third one of the two, the rest both in all proportions; source text is seen up to four
    times in half of the runs, once in the others. Losses are placeholders, of which the prior takes the median.
    """
    random = np.random.default_rng(7)

    def between(low: float, high: float) -> np.ndarray:
        return np.exp(random.uniform(np.log(low), np.log(high), runs))

    kind = np.arange(runs) % 6
    share = np.select([kind == 1, kind == 2], [1.0, 0.0], random.uniform(0.05, 0.95, runs))
    r = np.where(kind == 0, 1.0, random.uniform(0.05, 0.8, runs))
    U, k = between(1e6, 3e7), between(0.5, 12)
    S = U * k * (1 - r) / r
    table = {
        "params": between(2e5, 2e7),
        "target_tokens": U,
        "epochs": k,
        "target_ratio": r,
        "final_ratio": r,
    }
    for source, D in (("en", S * share), ("fr", S * (1 - share))):
        repeats = np.where(random.random(runs) < 0.5, between(1, 4), 1.0)
        table |= {f"{source}_tokens": D, f"{source}_unique_tokens": D / repeats}
    return m3.runs_from_frame(pd.DataFrame(table).assign(loss=1.5), name="trilingual")


DESIGNS = {"simulated": m3.data.simulated_runs, "measured": m3.demo_runs, "trilingual": trilingual}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--law", default="m3", help="NAME or NAME:option=value, as `m3bayes fit` takes it")
    parser.add_argument("--design", choices=DESIGNS, default="simulated")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/calibration"))
    arguments = parser.parse_args()
    law = named_law(arguments.law)
    out = arguments.out / f"{arguments.design}-{re.sub(r'[^.a-zA-Z0-9_-]+', '-', arguments.law)}.json"
    with tqdm(total=arguments.tables, unit="fit", file=sys.stderr) as line:
        found = m3.calibrate(
            law,
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
