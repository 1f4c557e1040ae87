"""``m3bayes calibrate``: are a law's posteriors right on tables like this one?"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

from m3bayes.cli.options import add_json, add_table_options, named_law, names, table_of_runs, whole
from m3bayes.cli.show import frame_table, json_text, message, notes, progress
from m3bayes.cli.stopping import stopped_at_once
from m3bayes.errors import M3BayesError
from m3bayes.evaluation.calibrate import Calibration, calibrate
from m3bayes.files import write_text

DESCRIPTION = """\
Simulation-based calibration. Coefficients are drawn from the law's prior, losses are simulated for the recipes of
RUNS, and the law is fitted back. Ranks of the truth among posterior draws must then be uniform, and intervals must
hold the truth as often as they say. A killed run goes on with the same --out.
"""


def add(commands) -> None:
    parser = commands.add_parser(
        "calibrate", help="fit a law back to tables simulated from its prior", description=DESCRIPTION
    )
    parser.add_argument(
        "--design",
        type=Path,
        required=True,
        metavar="RUNS",
        help="table whose recipes are used, CSV or parquet",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder for calibration.json, calibration.png and the simulations finished so far",
    )
    parser.add_argument(
        "--law",
        default="m3",
        metavar="LAW",
        help="NAME or NAME:option=value, as in chinchilla:tokens=all; see `m3bayes laws` (default: m3)",
    )
    parser.add_argument(
        "--drop", type=names, default=(), metavar="NAMES", help="coefficients to switch off, as in P,tau"
    )
    add_table_options(parser)
    parser.add_argument(
        "--simulations", type=whole(1), default=1000, metavar="COUNT", help="tables (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=whole(0), default=0, metavar="SEED", help="of truths and losses (default: %(default)s)"
    )
    parser.add_argument(
        "--chains", type=whole(1), default=4, metavar="COUNT", help="chains a fit (default: %(default)s)"
    )
    parser.add_argument(
        "--draws", type=whole(100), default=1000, metavar="COUNT", help="draws a chain (default: %(default)s)"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    from m3bayes.plots import calibrated, save_figure

    law = named_law(arguments.law, arguments.drop)
    design = table_of_runs(arguments.design, arguments)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise M3BayesError(f"--out {arguments.out} is a file: give the path of a folder")
    kept = f"the same command goes on with the simulations in {arguments.out}"
    with stopped_at_once(lambda: kept), progress("fit") as report:
        found = calibrate(
            law,
            design,
            simulations=arguments.simulations,
            noise=arguments.noise,
            seed=arguments.seed,
            chains=arguments.chains,
            draws=arguments.draws,
            folder=arguments.out,
            report=report,
        )
    if found.table.empty:
        raise M3BayesError(found.notes[0].message)
    content = {"law": law.name, "options": law.options, "design": design.name, **as_json(found)}
    write_text(arguments.out / "calibration.json", json_text(content) + "\n")
    save_figure(calibrated(found), arguments.out / "calibration.png")
    if arguments.json:
        print(json_text(content))
    else:
        counts = ", ".join(f"{count} {name}" for name, count in content["fits"].items())
        print(
            f"{law.name} on {arguments.simulations} tables like {design.name}: {found.verdict} ({counts})\n"
        )
        print(frame_table(found.table.reset_index(), digits=3))
        notes(found.notes)
    message(f"wrote {arguments.out / 'calibration.json'} and {arguments.out / 'calibration.png'}")
    return 0


def as_json(found: Calibration) -> dict:
    """What a calibration found, without its single simulations."""
    fits = found.fits
    first = (fits["verdict"] == "passed") & (fits["attempts"] == 1)
    return {
        "simulations": len(fits),
        "verdict": found.verdict,
        "notes": found.notes,
        "fits": fits["verdict"].value_counts().to_dict(),
        "passed_at_first_attempt": int(np.sum(first)),
        "median_seconds": float(np.median(fits["seconds"])),
        "quantities": found.table.reset_index().to_dict("records"),
        "coverage_range": {f"{level:g}": ends for level, ends in found.coverage_range.items()},
    }
