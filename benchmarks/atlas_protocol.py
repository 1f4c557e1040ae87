"""The five splits of the ATLAS paper on the measured pairs: which law foresees what was held out?

    python -m benchmarks.atlas_protocol [--languages de,fr,ja] [--draws 500]

Chinchilla, target ratio, ATLAS and M3 are fitted to German, French and Japanese runs of the pilot, each language by
itself, and predict the runs that a split held out. A row a split and law: R2 of log loss over all languages' held-out
runs about each language's mean, share of losses that 90 % intervals of new runs hold (the law taken to hold), and
CRPS of log loss. Prints the table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd

import m3bayes as m3
from benchmarks.report import keep

LAWS = (m3.laws.chinchilla(), m3.laws.target_ratio(), m3.laws.atlas(), m3.laws.m3())


def summed(runs: pd.DataFrame) -> dict[str, float]:
    """Scores of the held-out runs of all languages together."""
    log_loss, expected = np.log(runs["loss"].to_numpy()), np.log(runs["loss_mean"].to_numpy())
    language = runs["language"].to_numpy()
    mean = np.array([log_loss[language == one].mean() for one in language])
    held = (runs["new_run_lower"] <= runs["loss"]) & (runs["loss"] <= runs["new_run_upper"])
    squares = np.sum((log_loss - expected) ** 2)
    return {
        "runs": len(runs),
        "r2": float(1 - squares / np.sum((log_loss - mean) ** 2)),
        "rmse": float(np.sqrt(squares / len(runs))),
        "coverage_90": float(held.to_numpy().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--languages", default="de,fr,ja")
    parser.add_argument("--draws", type=int, default=500)
    arguments = parser.parse_args()
    parts = []
    verdicts: list[str] = []
    for language in arguments.languages.split(","):
        runs = m3.data.pilot_runs().where(f"language == '{language}'")
        found = m3.rollout(runs, LAWS, by="atlas", draws=arguments.draws)
        verdicts += list(found.table["verdict"])
        parts.append(found.runs.assign(language=language))
        print(found.table[["law", "split", "train", "test", "verdict", "R2"]].to_string(), flush=True)
    of_runs = pd.concat(parts, ignore_index=True)
    kinds = of_runs[["split", "law"]].drop_duplicates().itertuples(index=False, name=None)
    rows = [
        {
            "split": split,
            "law": law,
            **summed(of_runs.loc[(of_runs["split"] == split) & (of_runs["law"] == law)]),
        }
        for split, law in kinds
    ]
    print(pd.DataFrame(rows).to_string())
    result = {
        "rows": rows,
        "verdicts": {name: verdicts.count(name) for name in sorted(set(verdicts))},
    }
    keep("atlas_protocol", "ATLAS", result, 0.0)
    print(json.dumps({"ATLAS": result}))


if __name__ == "__main__":
    main()
