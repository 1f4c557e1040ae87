"""Are posteriors right? Ranks of the truth on tables simulated from a law's prior.

    python -m benchmarks.calibration [--law m3] [--design DESIGN] [--noise NOISE] [--tables 100] [--out FOLDER]

:func:`m3bayes.calibrate` on recipes of

- simulated: the simulated table
- measured: the measured German runs; their blocks serve --noise group:block, and --noise known is told standard errors
  from .5 to 5 % of the loss
- trilingual: two named source languages, for --law atlas:sources=en+fr
- multilingual: 1 to 16 languages trained on alike, for --law multilingual
- continued: the measured runs from scratch and from a checkpoint, for --law continued

Besides what `calibrate` ranks, the compute-optimal N of the law's own A, B, alpha and beta is ranked, at ten times the
largest compute. The result is FOLDER/DESIGN-LAW[-NOISE].json and, of the ranks, the same .png; beside them a folder
with the simulations finished so far, from which a killed run goes on; it can be removed afterwards.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

import m3bayes as m3
from m3bayes.cli.calibrate import as_json
from m3bayes.cli.options import named_law, noise
from m3bayes.cli.show import json_text
from m3bayes.evaluation.calibrate import Calibration
from m3bayes.files import write_text
from tests.languages.designs import multilingual_runs


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


def measured() -> m3.Runs:
    table = m3.demo_runs().frame()
    share = np.random.default_rng(5).uniform(np.log(0.005), np.log(0.05), len(table))
    return m3.runs_from_frame(table.assign(loss_se=table["loss"] * np.exp(share)), name="measured")


DESIGNS: dict[str, Callable[[], m3.Runs]] = {
    "simulated": m3.data.simulated_runs,
    "measured": measured,
    "trilingual": trilingual,
    "multilingual": multilingual_runs,
    "continued": m3.data.continued_runs,
}


def optimal_size(law: m3.Law, design: m3.Runs) -> dict[str, Callable[[Mapping[str, np.ndarray]], np.ndarray]]:
    """The N that is best at 10 x the largest compute, tokens all fresh, for laws that have one in closed form."""
    if law.name in ("practical", "farseer", "dcpt"):  # their A, B, alpha and beta are of other terms
        return {}
    compute = 10 * design.compute.max() / design.unit_params / design.unit_tokens
    return {"optimal N at 10 x compute": lambda c: np.asarray(m3.laws.chinchilla_optimum(c, compute)[0])}


def file_name(*parts: str) -> str:
    return "-".join(re.sub(r"[^.a-zA-Z0-9_-]+", "-", part) for part in parts)


def keep(out: Path, about: Mapping[str, object], found: Calibration) -> None:
    """Print the result, and write it with its figure beside it."""
    made = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "m3bayes": m3.__version__,
    }
    result = json_text({**about, **made, **as_json(found)})
    write_text(out, result + "\n")
    m3.plots.save_figure(m3.plots.calibrated(found), out.with_suffix(".png"))
    print(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--law", default="m3", help="NAME or NAME:option=value, as `m3bayes fit` takes it")
    parser.add_argument("--design", choices=DESIGNS, default="simulated")
    parser.add_argument("--noise", default="student-t", help="as `m3bayes fit` takes it")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/calibration"))
    arguments = parser.parse_args()
    law, design = named_law(arguments.law), DESIGNS[arguments.design]()
    scatter = [arguments.noise] if arguments.noise != parser.get_default("noise") else []
    out = arguments.out / f"{file_name(arguments.design, arguments.law, *scatter)}.json"
    with tqdm(total=arguments.tables, unit="fit", file=sys.stderr) as line:
        found = m3.calibrate(
            law,
            design,
            simulations=arguments.tables,
            noise=noise(arguments.noise),
            quantities=optimal_size(law, design),
            folder=out.with_suffix(".simulations"),
            report=lambda done, _: line.update(done - line.n),
        )
    keep(out, {"law": arguments.law, "design": arguments.design, "noise": arguments.noise}, found)


if __name__ == "__main__":
    main()
