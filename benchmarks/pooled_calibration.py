"""Are pooled posteriors right? Ranks of the truth on tables of several languages simulated from the prior.

    python -m benchmarks.pooled_calibration [--law chinchilla] [--tables 200] [--languages 6] [--out FOLDER]

Languages have from 4 to 40 runs. Ranked are means and spreads between languages, shared coefficients, sigma, the
coefficients of the languages with the most and the fewest runs, and the log likelihood. The result is
FOLDER/pooled-LAW.json and, of the ranks, pooled-LAW.png; finished tables are kept beside them, from which a killed run
goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from tqdm import tqdm

import m3bayes as m3
from benchmarks.calibration import keep
from m3bayes.cli.options import named_law
from m3bayes.evaluation.calibrate import ranked, summary
from m3bayes.files import append_line
from m3bayes.inference.pooled import Pooled
from m3bayes.inference.pooled_simulate import simulate_pooled

FEWEST, MOST = 4, 40


def design(languages: int) -> m3.Runs:
    """Recipes of several languages, with from FEWEST to MOST runs each; losses are placeholders."""
    random = np.random.default_rng(11)
    parts = []
    for language, runs in enumerate(np.geomspace(FEWEST, MOST, languages).round().astype(int)):
        r = np.where(random.random(runs) < 0.4, 1.0, np.exp(random.uniform(np.log(0.05), 0, runs)))
        r_f = np.where(random.random(runs) < 0.3, np.minimum(1, 2 * r), r)
        table = {
            "params": np.exp(random.uniform(np.log(1e7), np.log(1e9), runs)),
            "target_tokens": np.exp(random.uniform(np.log(1e8), np.log(1e10), runs)),
            "epochs": np.exp(random.uniform(np.log(0.5), np.log(16), runs)),
            "target_ratio": r,
            "final_ratio": r_f,
            "first_ratio": np.where(r_f == r, np.nan, 0.0),
            "loss": 3.0,
            "language": f"l{language}",
        }
        parts.append(pd.DataFrame(table))
    return m3.runs_from_frame(pd.concat(parts, ignore_index=True), name=f"{languages} languages")


def quantities(pooled: Pooled) -> dict[str, np.ndarray]:
    """{quantity: (draw,)}"""
    found = {f"mean of {name}": values for name, values in pooled.means.items()}
    found |= {f"spread of {name}": values for name, values in pooled.spreads.items()}
    found |= pooled.shared
    for group in (pooled.groups[0], pooled.groups[-1]):
        index = pooled.groups.index(group)
        found |= {
            f"{name}[{group}]": pooled.draws[name][..., index]
            for name, kind in pooled.pooling.items()
            if kind != "shared"
        }
    found |= {name: pooled.draws[name] for name in ("sigma", "nu") if name in pooled.draws}
    return {name: values.reshape(-1) for name, values in found.items()}


def row(number: int, law: m3.Law, recipes: m3.Runs) -> dict:
    key = jax.random.fold_in(jax.random.key(0), number)
    truth = simulate_pooled(law, recipes, "language", key)
    begun = time.perf_counter()
    post = m3.fit(
        truth.runs,
        law,
        pool="language",
        seed=number,
        constants=truth.constants,
        allow="flagged",
        progress=False,
    )
    random = np.random.default_rng([0, number])
    true, found = quantities(truth), quantities(post)
    ranks = {name: ranked(values, float(true[name][0]), random) for name, values in found.items()}
    return {
        "number": number,
        "verdict": post.verdict,
        "attempts": int(post.settings["attempts"]),
        "seconds": time.perf_counter() - begun,
        "divergences": int(post.sample_stats["diverging"].sum()),
        "notes": ";".join(sorted({note.code for note in post.notes})),
        "ranks": {name: rank for name, (rank, _) in ranks.items()},
        "places": {name: place for name, (_, place) in ranks.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--law", default="chinchilla")
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--languages", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/calibration"))
    arguments = parser.parse_args()
    out = arguments.out / f"pooled-{arguments.law}.json"
    kept = out.with_suffix(".rows.json")
    rows = {}
    if kept.exists():
        rows = {row["number"]: row for row in map(json.loads, kept.read_text().splitlines())}
    law, recipes = named_law(arguments.law), design(arguments.languages)
    for number in tqdm(range(arguments.tables), unit="fit", file=sys.stderr):
        if number not in rows:
            rows[number] = row(number, law, recipes)
            append_line(kept, json.dumps(rows[number]))
    found = summary([rows[number] for number in range(arguments.tables)])
    counts = recipes.frame()["language"].value_counts().to_dict()
    keep(out, {"law": arguments.law, "design": recipes.name, "runs": counts}, found)


if __name__ == "__main__":
    main()
