"""Writes the two small plans beside the pilot's: learning rates by size, and how the rate should fall.

    python data/side_plans.py        writes data/learning_rate_plan.csv and data/decay_plan.csv

Learning rates: one pass over 800 kB of German, for four sizes and rates a factor 2 apart about the best one.
Decay: three recipes of equal compute, one a regime, with the pilot's own decay and with a cosine.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from m3bayes.files import write_text
from m3bayes.pilot.plan import plan_from_frame

FOLDER = Path(__file__).parent
RATES = {
    24_736: (1.5e-3, 3e-3, 6e-3, 1.2e-2),
    83_280: (7.5e-4, 1.5e-3, 3e-3, 6e-3),
    147_904: (7.5e-4, 1.5e-3, 3e-3, 6e-3),
    443_232: (3.75e-4, 7.5e-4, 1.5e-3, 3e-3),
}
# regime: epochs, target_ratio, final_ratio, first_ratio; 5.0e5 tokens each
RECIPES = {
    "monolingual": (6.254, 1.0, 1.0, None),
    "single": (2.51, 0.4014, 0.4014, None),
    "two": (2.51, 0.4014, 1.0, 0.0),
}


def learning_rate_plan() -> pd.DataFrame:
    rows = [
        {"run": f"rate-{N}-{rate:g}", "block": "learning_rate", "language": "de", "params": N, "lr": rate}
        | {"target_tokens": 800_000, "epochs": 1.0, "target_ratio": 1.0, "final_ratio": 1.0}
        | {"subset": 0, "seed": 0}
        for N, rates in RATES.items()
        for rate in rates
    ]
    return plan_from_frame(pd.DataFrame(rows))


def decay_plan() -> pd.DataFrame:
    rows = [
        {"run": f"{regime}-{decay}", "block": "decay", "language": "de", "params": 83_280, "decay": decay}
        | {"target_tokens": 80_000, "epochs": k, "target_ratio": r, "final_ratio": r_f, "first_ratio": r_1}
        | {"subset": 0, "seed": 0}
        for regime, (k, r, r_f, r_1) in RECIPES.items()
        for decay in ("linear", "cosine")
    ]
    return plan_from_frame(pd.DataFrame(rows))


if __name__ == "__main__":
    for name, plan in (("learning_rate", learning_rate_plan()), ("decay", decay_plan())):
        write_text(FOLDER / f"{name}_plan.csv", plan.to_csv(index=False, lineterminator="\n"))
