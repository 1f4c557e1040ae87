"""Writes the plans beside the pilot's: learning rates by size, how the rate should fall, and scarce text.

    python data/side_plans.py        writes learning_rate_plan.csv, decay_plan.csv and scarcity_plan.csv in data/

Learning rates: one pass over 800 kB of German, for four sizes and rates a factor 2 apart about the best one.
Decay: three recipes of equal compute, one a regime, with the pilot's own decay and with a cosine.
Scarcity: cells of equal compute like the pilot's ``epochs`` block, with three times its largest budget and less
target text, where repetition costs most; ``first_stage``, two-stage recipes there with target text in both stages or
source text in both; and ``range``, one recipe a regime at the least and at the most compute.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from m3bayes.files import write_text
from m3bayes.pilot.designs import rounded
from m3bayes.pilot.plan import plan_from_frame
from m3bayes.recipe import Recipe
from m3bayes.table_checks import VARIABLES

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
LANGUAGES = ("de", "ja", "fr")
SCARCE_COMPUTE = 8e11  # FLOP, 6ND
SCARCE_TOKENS = (20_000, 80_000, 40_000, 10_000)
SCARCE_PARAMS = 83_280  # of the mixtures
SCARCE_RATIOS = (0.3, 0.1, 0.6, 0.9, 0.03)
OTHER_PARAMS = (55_536, 147_904)  # the target language alone at equal compute, beside SCARCE_PARAMS
# r, r_f, r_1 at the first of SCARCE_TOKENS: target text in both stages, or source text in both
GENTLE = ((0.3, 1.0, 0.15), (0.1, 1.0, 0.05), (0.3, 0.6, 0.0), (0.3, 0.6, 0.15))
# params, D, U of the runs at the ends of the range of compute
RANGE = ((24_736, 32_768, 20_000), (443_232, 1_880_000, 200_000))


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


def scarcity_plan() -> pd.DataFrame:
    least, most = RANGE
    recipes = [("range", recipe) for recipe in _three_regimes(*least)]
    for number, U in enumerate(SCARCE_TOKENS):
        recipes += [("epochs", recipe) for recipe in _scarce_cell(U)]
        if number == 0:
            recipes += [("range", recipe) for recipe in _three_regimes(*most)]
    U, D = SCARCE_TOKENS[0], SCARCE_COMPUTE / (6 * SCARCE_PARAMS)
    recipes += [
        ("first_stage", Recipe(SCARCE_PARAMS, U, rounded(r * D / U), r, r_f, r_1)) for r, r_f, r_1 in GENTLE
    ]
    rows = [
        {
            "run": f"{language}-scarce-{number:03d}",
            "block": block,
            "language": language,
            "subset": 0,
            "seed": 0,
        }
        | {name: getattr(recipe, name) for name in VARIABLES}
        for number, (block, recipe) in enumerate(recipes, start=1)
        for language in LANGUAGES
    ]
    return plan_from_frame(pd.DataFrame(rows))


def _scarce_cell(U: int) -> list[Recipe]:
    """Runs of one compute and one U: each ratio with one stage and with two, and the target language alone."""
    D = SCARCE_COMPUTE / (6 * SCARCE_PARAMS)
    cell = [Recipe(N, U, rounded(SCARCE_COMPUTE / (6 * N * U))) for N in (SCARCE_PARAMS, *OTHER_PARAMS)]
    for r in SCARCE_RATIOS:
        k = rounded(r * D / U)
        cell += [Recipe(SCARCE_PARAMS, U, k, r, 1.0, 0.0), Recipe(SCARCE_PARAMS, U, k, r, r)]
    return cell


def _three_regimes(N: int, D: float, U: int, r: float = 0.4) -> list[Recipe]:
    k = rounded(r * D / U)
    return [Recipe(N, U, rounded(D / U)), Recipe(N, U, k, r, 1.0, 0.0), Recipe(N, U, k, r, r)]


if __name__ == "__main__":
    plans = {"learning_rate": learning_rate_plan(), "decay": decay_plan(), "scarcity": scarcity_plan()}
    for name, plan in plans.items():
        write_text(FOLDER / f"{name}_plan.csv", plan.to_csv(index=False, lineterminator="\n"))
