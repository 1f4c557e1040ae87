"""Which law describes, and which foresees, the measured pilot runs? Every law, every language.

    python -m benchmarks.measured_surface [--languages de,ja,fr] [--draws 500] [--out FILE]

Leave-one-out densities of M3, its nested forms and its rivals; and three predictions of runs that were not
fitted: those of the largest compute, those of the largest N, and two-stage recipes of which no other seed was
seen. Laws without r are shown with D = target tokens and with D = all tokens. What is finished is kept beside
the result, so that a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import m3bayes as m3
from benchmarks.report import machine
from m3bayes.evaluation.compare import compare
from m3bayes.evaluation.rollout import rollout
from m3bayes.evaluation.splits import Split, mixtures
from m3bayes.files import write_text

laws = m3.laws
NESTED = (
    *(laws.m3(drop=(name,)) for name in ("P", "gamma", "tau", "eta", "lambda", "omega")),
    laws.m3(floor=True),
    laws.m3(penalty_tokens="target+source"),
    laws.staged(drop=("xi",)),
    laws.staged(drop=("chi",)),
)
RIVALS = (
    laws.m3(),
    laws.staged(),
    laws.chinchilla(),
    laws.chinchilla(tokens="all"),
    laws.data_constrained(),
    laws.target_ratio(repetition=True),
    laws.target_ratio(),
    laws.atlas(),
    laws.prescriptive(),
    laws.practical(),
    laws.farseer(),
    laws.dcpt(),
)
SHARE = 0.2  # of the runs to hold out, at least


def extrapolations(runs: m3.Runs) -> tuple[Split, ...]:
    """Largest compute, largest N, unseen two-stage recipes: what a decision asks of a law."""
    compute, N = runs.compute, runs["params"]
    # runs of one budget differ by rounding of their windows: none of a budget is on both sides
    ordered = np.sort(np.log(compute))
    gaps = np.flatnonzero(np.diff(ordered) > 0.05)
    least = np.exp(ordered[gaps[gaps < (1 - SHARE) * len(ordered)][-1]] + 0.01)
    sizes = np.unique(N)
    largest = next(size for size in sizes[::-1] if np.mean(size <= N) >= SHARE / 2)
    two_stage = runs["final_ratio"] > runs["target_ratio"] * (1 + 1e-6)
    mixture = np.where(two_stage, mixtures(runs), -1)
    found = np.unique(mixture[two_stage])
    held = np.isin(mixture, np.random.default_rng(0).permutation(found)[: len(found) // 2])
    masks = {
        "largest compute": compute > least,
        "largest N": largest <= N,
        "unseen two-stage recipes": held,
    }
    return tuple(Split(name, ~test, test) for name, test in masks.items())


def compared(runs: m3.Runs, law: m3.Law, draws: int) -> list[dict]:
    found = compare(runs, law, draws=draws)
    row = found.table.iloc[0].to_dict()
    # what a sum over languages and a difference between laws need
    row["pointwise"] = [round(value, 4) for value in found.pointwise["elpd"]]
    return [row]


def foreseen(runs: m3.Runs, law: m3.Law, draws: int) -> list[dict]:
    return rollout(runs, law, splits=extrapolations(runs), draws=draws).table.to_dict("records")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--languages", default="de,ja,fr")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/measured_surface.json"))
    arguments = parser.parse_args()
    kept = arguments.out.with_suffix(".rows.json")
    done: dict[str, list[dict]] = json.loads(kept.read_text()) if kept.exists() else {}
    work: tuple[tuple[str, tuple[m3.Law, ...], Callable], ...] = (
        ("rollout", RIVALS, foreseen),
        ("compare", (*RIVALS, *NESTED), compared),
    )
    tables = {
        language: m3.data.pilot_runs().where(f"language == '{language}'")
        for language in arguments.languages.split(",")
    }
    for what, candidates, function in work:
        for number, law in enumerate(candidates):
            for language, runs in tables.items():
                key = f"{what} {language} {len(runs)} {number} {law.name} {dict(law.options)}"
                if key in done:
                    continue
                begun = time.perf_counter()
                done[key] = [{"language": language, "runs": len(runs), **row} for row in
                             function(runs, law, arguments.draws)]  # fmt: skip
                write_text(kept, json.dumps(done))
                print(f"{key}: {time.perf_counter() - begun:.0f} s", flush=True)
    result = {
        "machine": machine(),
        "draws": arguments.draws,
        **{
            what: [row for key, rows in done.items() if key.startswith(what) for row in rows]
            for what, _, _ in work
        },
    }
    write_text(arguments.out, json.dumps(result, indent=1) + "\n")
    kept.unlink()
    table = pd.DataFrame(result["rollout"])
    print(table[["language", "law", "split", "test", "R2", "RMSE", "coverage_90", "crps"]].to_string())


if __name__ == "__main__":
    main()
