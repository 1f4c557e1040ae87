"""P4: how long simulation-based calibration takes, of Chinchilla's law.

    python -m benchmarks.sbc [--simulations 200]

Prints a table, then one line of JSON. Times of `calibrate` with so many simulations are scaled up to 1000; what is
compiled is compiled before. Designs:

- "well identified": 200 recipes over three decades of N and of D, normal noise.
- "wide prior": the 170 recipes of the embedded table, with little text, much of it repeated; Student-t noise.
"""

from __future__ import annotations

import argparse
import json

import m3bayes as m3
from benchmarks.many_fits import timed
from benchmarks.posterior import data_set
from m3bayes.inference.noise import normal, student_t

WHOLE = 1000
TARGETS = {"well identified": 180.0, "wide prior": 1200.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=200)
    count = parser.parse_args().simulations
    cases = {"well identified": (data_set(0), normal()), "wide prior": (m3.demo_runs(), student_t())}
    rows = []
    for name, (design, noise) in cases.items():
        m3.calibrate(m3.laws.chinchilla(), design, simulations=4, noise=noise, seed=1)
        seconds, found = timed(m3.calibrate, m3.laws.chinchilla(), design, simulations=count, noise=noise)
        row = {
            "design": name,
            "simulations": count,
            "seconds_for_1000": seconds.wall * WHOLE / count,
            "target_seconds": TARGETS[name],
            "verdict": found.verdict,
            "fits": found.fits["verdict"].value_counts().to_dict(),
        }
        rows.append(row)
        print(
            f"{name:<18}{row['seconds_for_1000']:>7.0f} s for {WHOLE}, {row['fits']}, {found.verdict}",
            flush=True,
        )
    print(json.dumps({"P4": rows}))


if __name__ == "__main__":
    main()
