"""P2: from the start of a process to 4000 draws, for the embedded table.

    python -m benchmarks.cold_start [--repeats 3]

Prints a table, then one line of JSON. A fresh Python process imports m3bayes, reads the embedded table and fits
a law with the defaults; the time is wall time, start of the interpreter included, up to the posterior. Once
with an empty JAX compilation cache and once with the cache that this filled, medians. "import" and "fit" are
parts of it, taken inside the process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.report import spread_of

LAWS = ("chinchilla", "m3")
# seconds, by law and state of the cache
TARGETS = {"chinchilla": {"filled": 2.0, "empty": 8.0}, "m3": {"filled": 2.0, "empty": 15.0}}

# The wall clock, since two processes share it. A posterior that is not passed took more than one attempt.
CHILD = """
import time
begun = time.time()
import m3bayes as m3
imported = time.time()
post = m3.fit(m3.data.simulated_runs(), m3.laws.named({law!r}), seed=0, progress=False, allow="flagged")
done = time.time()
draws = post.draws["E"].size
print(begun, imported, done, post.verdict, post.settings["attempts"], draws)
"""


def one_start(law: str, cache: Path) -> dict:
    """A fresh process that fits one law."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    # Python keeps what it compiled of a package, unless told not to
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.time()
    ran = subprocess.run(
        [sys.executable, "-c", CHILD.format(law=law)],
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    begun, imported, done, verdict, attempts, draws = ran.stdout.split()
    return {
        "seconds": float(done) - started,
        "interpreter": float(begun) - started,
        "import": float(imported) - float(begun),
        "fit": float(done) - float(imported),
        "verdict": verdict,
        "attempts": int(attempts),
        "draws": int(draws),
    }


def measure(law: str, repeats: int) -> list[dict]:
    """Median starts with an empty and with a filled cache."""
    starts: dict[str, list[dict]] = {"empty": [], "filled": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for state in starts:
                starts[state].append(one_start(law, Path(folder)))
    return [
        {
            "law": law,
            "cache": state,
            "target_seconds": TARGETS[law][state],
            "seconds_spread": spread_of([start["seconds"] for start in ran]),
            **{
                part: float(np.median([start[part] for start in ran]))
                for part in ("seconds", "interpreter", "import", "fit")
            },
            **{what: ran[0][what] for what in ("verdict", "attempts", "draws")},
        }
        for state, ran in starts.items()
    ]


def main(argv: list[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_start", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(argv)
    print(f"P2: start of a process to the posterior of the embedded table, medians of {given.repeats}")
    print(f"{'law':<12}{'cache':<8}{'s':>7}{'target':>8}{'import':>8}{'fit':>7}  verdict, attempts, draws")
    rows = []
    for law in LAWS:
        for row in measure(law, given.repeats):
            rows.append(row)
            print(
                f"{law:<12}{row['cache']:<8}{row['seconds']:>7.2f}{row['target_seconds']:>8.1f}{row['import']:>8.2f}"
                f"{row['fit']:>7.2f}  {row['verdict']}, {row['attempts']}, {row['draws']}",
                flush=True,
            )
    print(json.dumps({"P2": rows}))
    return rows


if __name__ == "__main__":
    main()
