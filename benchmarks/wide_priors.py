"""How often does a fit pass the gate, and is a fit that passes ever wrong in silence?

    python -m benchmarks.wide_priors [--tables 50] [--laws chinchilla,m3] [--out FILE]

Tables are simulated from a law's wide prior for the recipes of the measured German runs, and fitted as a user fits a
table: the prior's reference loss is the median loss of the table itself. (`benchmarks.calibration` has to keep the
reference of the design, so that a truth can lie at the very end of its prior; there a few fits more are flagged.)

Every table is fitted twice, with other random numbers. A fit that found only a part of its posterior, and passed, is
silent; it would disagree with the other. For each coefficient and the noise the shares of the two fits' draws below
their common median are compared, in Monte Carlo standard errors: the largest difference of all tables is beside what
the largest of as many normal numbers stays below with a probability of 95 %.

Kept for each law beside FILE, in a folder, while the rest goes on: a killed run goes on from there.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections import Counter
from datetime import date
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from scipy.stats import norm
from tqdm import tqdm

import m3bayes as m3
from m3bayes.cli.options import named_law
from m3bayes.cli.show import json_text
from m3bayes.files import write_text
from m3bayes.inference.diagnostics import mean_ess
from m3bayes.inference.many import Fits
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.simulate import simulate

LAWS = "m3,chinchilla,data_constrained,target_ratio,atlas,prescriptive,practical,farseer,dcpt,staged"
SEEDS = (0, 1)
LIMIT = 0.95  # probability that no difference is above the bound where all fits are right


def differences(one: Posterior, other: Posterior) -> np.ndarray:
    """(quantity,) by what the shares below the median of both differ, in Monte Carlo standard errors."""
    draws = [np.stack(list(post.quantities.values())) for post in (one, other)]
    medians = np.median(np.concatenate(draws, axis=2), axis=(1, 2), keepdims=True)
    below = [(values < medians).astype(float) for values in draws]
    variance = sum(values.var(axis=(1, 2)) / mean_ess(values) for values in below)
    return (below[0].mean(axis=(1, 2)) - below[1].mean(axis=(1, 2))) / np.sqrt(variance)


def measure(law: m3.Law, design: m3.Runs, tables: int, folder: Path) -> dict[str, object]:
    def fitted(seed: int) -> Fits:
        with tqdm(total=tables, desc=f"{law.name}, seed {seed}", unit="fit", file=sys.stderr) as line:

            def report(done: int, _: str) -> None:
                line.update(done - line.n)

            simulated = (simulate(law, design, jax.random.key(number)).runs for number in range(tables))
            kept = folder / f"{law.name}-{seed}"
            return m3.fit_many(simulated, law, seed=seed, folder=kept, log_likelihood=False, report=report)

    first, second = (fitted(seed) for seed in SEEDS)
    both = [
        name
        for name in first.table.index
        if first.table.loc[name, "verdict"] == second.table.loc[name, "verdict"] == "passed"
    ]
    found = np.array([differences(first[name], second[name]) for name in both])
    rows = pd.concat([fits.table for fits in (first, second)])
    verdicts = Counter(rows["verdict"])
    attempts = Counter(rows.loc[rows["verdict"] == "passed", "attempts"])
    return {
        "law": law.name,
        "tables": tables,
        "fits": len(rows),
        **{verdict: verdicts[verdict] for verdict in ("passed", "flagged", "failed")},
        "passed_at_attempt": {str(number): count for number, count in sorted(attempts.items())},
        "pairs": len(both),
        "largest_difference": float(np.abs(found).max()),
        "bound": float(norm.isf((1 - LIMIT ** (1 / found.size)) / 2)),
        "median_seconds": float(np.median(rows["seconds"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=50)
    parser.add_argument("--laws", default=LAWS, help="NAME,NAME,... (default: all for these recipes)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/wide_priors.json"))
    arguments = parser.parse_args()
    found = []
    for name in arguments.laws.split(","):
        folder = arguments.out.with_suffix(".fits")
        found.append(measure(named_law(name), m3.demo_runs(), arguments.tables, folder))
        r = found[-1]
        print(
            f"{r['law']:<18}{r['passed']:>4} of {r['fits']} passed, {r['flagged']} flagged, {r['failed']} failed; "
            f"two fits of a table differ by {r['largest_difference']:.1f} standard errors at most "
            f"(bound {r['bound']:.1f}); {r['median_seconds']:.1f} s a fit"
        )
        made = {"date": date.today().isoformat(), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
        write_text(arguments.out, json_text({**made, "laws": found}) + "\n")


if __name__ == "__main__":
    main()
