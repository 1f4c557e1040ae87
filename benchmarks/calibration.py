"""Are the posteriors of M3 right? Ranks of the truth on tables simulated from the prior.

    python -m benchmarks.calibration [--tables 100] [--law m3] [--out benchmarks/results/calibration.json]

Coefficients are drawn from the prior, losses are simulated for the recipes of the embedded table, and the
law is fitted back with the same prior. The rank of each true coefficient among (nearly independent) posterior
draws is then uniform. Tested: Kolmogorov-Smirnov on the ranks, Bonferroni over coefficients. Finished tables
are kept beside the result, so that a killed run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from datetime import date
from pathlib import Path

import jax
import numpy as np
from scipy import stats

import m3bayes as m3
from m3bayes.files import write_text
from m3bayes.inference.simulate import simulate

RANKED = 99  # draws a truth is ranked among


def one_table(law: m3.Law, design: m3.Runs, number: int) -> dict:
    """Simulate table ``number``, fit it, and rank the truth."""
    simulated = simulate(law, design, jax.random.key(number))
    begun = time.perf_counter()
    post = m3.fit(
        simulated.runs, law, seed=number, allow="flagged", constants=simulated.constants, progress=False
    )
    seconds = time.perf_counter() - begun
    ranks = {}
    for name, draws in post.quantities.items():
        flat = np.asarray(draws).reshape(-1)
        kept = flat[np.linspace(0, flat.size - 1, RANKED).astype(int)]
        ranks[name] = int((kept < simulated.truth[name]).sum())
    return {
        "table": number,
        "verdict": post.verdict,
        "attempts": post.settings["attempts"],
        "seconds": seconds,
        "divergences": int(post.sample_stats["diverging"].sum()),
        "notes": sorted({note.code for note in post.notes}),
        "ranks": ranks,
    }


def summary(rows: list[dict]) -> dict:
    """The rank tests and the gate's verdicts over all tables, none left out."""
    rng = np.random.default_rng(0)
    tests = {}
    for name in rows[0]["ranks"]:
        ranks = np.array([row["ranks"][name] for row in rows])
        uniform = (ranks + rng.uniform(size=ranks.size)) / (RANKED + 1)
        tests[name] = float(stats.kstest(uniform, "uniform").pvalue)
    passed = sum(row["verdict"] == "passed" for row in rows)
    return {
        "tables": len(rows),
        "passed": passed,
        "flagged": len(rows) - passed,
        "passed_at_first_attempt": sum(row["verdict"] == "passed" and row["attempts"] == 1 for row in rows),
        "p_values": tests,
        "smallest_p_times_coefficients": min(1.0, min(tests.values()) * len(tests)),
        "median_seconds": float(np.median([row["seconds"] for row in rows])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--law", default="m3")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/calibration.json"))
    arguments = parser.parse_args()
    law, design = m3.laws.named(arguments.law), m3.demo_runs()
    kept = arguments.out.with_suffix(".rows.json")
    rows = json.loads(kept.read_text()) if kept.exists() else []
    for number in range(len(rows), arguments.tables):
        rows.append(one_table(law, design, number))
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(rows))
        print(f"{number}: {rows[-1]['verdict']} in {rows[-1]['seconds']:.1f} s", flush=True)
    result = {
        "law": arguments.law,
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "m3bayes": m3.__version__,
        **summary(rows),
    }
    write_text(arguments.out, json.dumps(result, indent=1) + "\n")
    kept.unlink()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
