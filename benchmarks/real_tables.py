"""Public tables through the command line: fit, then predict the same runs.

    python -m benchmarks.real_tables [--tables ../shared/data] [--out benchmarks/results/real_tables.json]

For each table: the gate's verdict, what was noted, and R2, mean relative error and the coverage of the 90 %
new-run interval on the runs that were fitted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from m3bayes.files import write_text

FITS = (
    ("two_phase_code_web.csv", "m3", None),
    ("data_constrained.csv", "m3", "in_authors_fit == 1"),
    ("size_and_tokens.csv", "m3", None),
    ("size_and_tokens.csv", "chinchilla", None),
)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "m3bayes", *arguments], capture_output=True, text=True)


def one(table: Path, law: str, where: str | None, folder: Path) -> dict:
    post, recipes, out = folder / "post.nc", folder / "recipes.csv", folder / "predicted.csv"
    begun = time.perf_counter()
    chosen = ["--where", where] if where else []
    fitted = command("fit", str(table), "--law", law, "--seed", "0", "--json", "--out", str(post), *chosen)
    seconds = time.perf_counter() - begun
    if fitted.returncode not in (0, 3):
        raise SystemExit(fitted.stderr)
    runs = pd.read_csv(table)
    runs = runs.query(where) if where else runs
    runs.to_csv(recipes, index=False)
    allow = ["--allow", "flagged"] if fitted.returncode else []
    predicted = command("predict", str(post), str(recipes), "--out", str(out), *allow)
    if predicted.returncode:
        raise SystemExit(predicted.stderr)
    found = pd.read_csv(out)
    logs, residual = np.log(found["loss"]), np.log(found["loss"] / found["loss_mean"])
    inside = found["loss"].between(found["new_run_lower"], found["new_run_upper"])
    return {
        "table": table.name,
        "law": law,
        "where": where,
        "runs": len(runs),
        "gate": "passed" if fitted.returncode == 0 else "flagged",
        "R2_log_loss": float(1 - (residual**2).sum() / ((logs - logs.mean()) ** 2).sum()),
        "mean_relative_error": float(residual.abs().mean()),
        "coverage_90": float(inside.mean()),
        "seconds_with_process_start": round(seconds, 1),
        "notes": [f"{note['code']}: {note['message']}" for note in json.loads(fitted.stdout)["notes"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/real_tables.json"))
    arguments = parser.parse_args()
    rows = []
    for name, law, where in FITS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(one(arguments.tables / name, law, where, Path(folder)))
        print(json.dumps(rows[-1], indent=1), flush=True)
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "fits": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
