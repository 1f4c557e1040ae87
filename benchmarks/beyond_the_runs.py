"""Do 90 % intervals hold 90 % of larger runs? With the law taken to hold, and with a discrepancy.

    python -m benchmarks.beyond_the_runs [--tables ../shared/data] [--laws m3,prescriptive] [--out FILE]

Every table is cut by compute (at about .5, .7 and .85 of the runs) and by N (the largest one to three); the smaller
runs are fitted, the larger ones predicted. The discrepancy is learned from the smaller runs alone. The measured
tables are the project's own, the public ones are used where they are there; of the data-constrained runs those of
at most 60 epochs and loss below 4.5, since the others overfit beyond what laws describe. Beside it, on the public
tables, all nine published laws at the compute cut nearest to .7, with the law taken to hold. What is finished is kept
beside the result, so that a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pandas as pd

import m3bayes as m3
from benchmarks.report import machine
from m3bayes.evaluation.rollout import rollout
from m3bayes.evaluation.scores import binomial_range
from m3bayes.evaluation.splits import Split, splits
from m3bayes.files import write_text

PUBLIC = {
    "size and tokens": ("size_and_tokens.csv", None),
    "data-constrained": ("data_constrained.csv", "in_authors_fit == 1 and epochs <= 60 and loss < 4.5"),
}
KEPT = ["law", "split", "train", "test", "verdict", "compute_ratio", "R2", "RMSE_log", "coverage_50", "coverage_90",
        "coverage_90_low", "coverage_90_high", "width_90", "crps", "elpd"]  # fmt: skip
LEAST_TEST = 5


def tables(folder: Path) -> dict[str, m3.Runs]:
    measured = m3.data.pilot_runs()
    found = {
        name: measured.where(f"language == '{code}'")
        for name, code in (("German", "de"), ("French", "fr"), ("Japanese", "ja"))
    }
    for name, (file, where) in PUBLIC.items():
        if (folder / file).exists():
            runs = m3.read_runs(folder / file)
            found[name] = runs.where(where) if where else runs
    return found


def cuts(runs: m3.Runs) -> list[Split]:
    return [s for by in ("compute", "params") for s in splits(runs, by) if s.test.sum() >= LEAST_TEST]


def pooled(rows: pd.DataFrame) -> list[dict]:
    """Coverage over all splits of each law, and of each law and table."""
    result = []
    for law, of_law in rows.groupby("law", sort=False):
        groups = [("all", of_law), *of_law.groupby("table", sort=False)]
        for name, part in groups:
            row = {"law": law, "table": name, "splits": len(part) // 2, "runs": int(part["test"].sum() / 2)}
            for with_it, half in part.groupby("discrepancy"):
                held = (half["coverage_90"] * half["test"]).sum() / half["test"].sum()
                inside = half["coverage_90"].between(half["coverage_90_low"], half["coverage_90_high"])
                key = "discrepancy" if with_it else "law_holds"
                row |= {
                    f"{key}_coverage_90": round(float(held), 4),
                    f"{key}_mean_of_splits": round(float(half["coverage_90"].mean()), 4),
                    f"{key}_splits_in_range": int(inside.sum()),
                    f"{key}_elpd": round(float(half["elpd"].sum()), 1),
                }
            row["range_of_90"] = binomial_range(row["runs"], 0.9)
            result.append(row)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=Path, default=Path("../shared/data"))
    parser.add_argument("--laws", default="m3,prescriptive")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/beyond_the_runs.json"))
    arguments = parser.parse_args()
    kept = arguments.out.with_suffix(".rows.json")
    done: dict[str, list[dict]] = json.loads(kept.read_text()) if kept.exists() else {}

    def once(key: str, make) -> None:
        if key not in done:
            begun = time.perf_counter()
            done[key] = make()
            write_text(kept, json.dumps(done))
            print(f"{key}: {time.perf_counter() - begun:.0f} s", flush=True)

    found = tables(arguments.tables)
    for law in map(m3.laws.named, arguments.laws.split(",")):
        for name, runs in found.items():
            for split in cuts(runs):
                for with_it in (False, True):

                    def both(runs=runs, law=law, split=split, with_it=with_it, name=name) -> list[dict]:
                        table = rollout(runs, law, splits=(split,), draws=250, discrepancy=with_it).table
                        return [{"table": name, "discrepancy": with_it, **row} for row in
                                table[KEPT].to_dict("records")]  # fmt: skip

                    once(f"beyond|{law.name}|{name}|{len(runs)}|{split.name}|{with_it}", both)
    for name in PUBLIC.keys() & found.keys():
        runs = found[name]
        for law in m3.laws.all_laws():
            if law.name in ("staged", "multilingual", "continued"):
                continue

            def side_by_side(runs=runs, law=law, name=name) -> list[dict]:
                table = rollout(runs, law, "compute", cuts=(0.7,), draws=500).table
                return [{"table": name, **row} for row in table[KEPT].to_dict("records")]

            once(f"laws|{law.name}|{name}|{len(runs)}", side_by_side)
    parts = {
        what: [row for key, rows in done.items() if key.startswith(f"{what}|") for row in rows]
        for what in ("beyond", "laws")
    }
    summary = pooled(pd.DataFrame(parts["beyond"]))
    result = {"machine": machine(), "pooled": summary, **parts}
    write_text(arguments.out, json.dumps(result, indent=1) + "\n")
    print(pd.DataFrame(summary).to_string())


if __name__ == "__main__":
    main()
