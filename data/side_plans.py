"""Writes the plans beside the pilot's: learning rates by size, how the rate should fall, scarce text, two sources, and
runs from a checkpoint.

    python data/side_plans.py        writes data/*_plan.csv but for pilot_plan.csv

Learning rates: one pass over 800 kB of German, for four sizes and rates a factor 2 apart about the best one.
Decay: three recipes of equal compute, one a regime, with the pilot's own decay and with a cosine.
Scarcity: cells of equal compute like the pilot's ``epochs`` block, with three times its largest budget and less
target text, where repetition costs most; ``first_stage``, two-stage recipes there with target text in both stages or
source text in both; and ``range``, one recipe a regime at the least and at the most compute.
Trilingual: German beside English and French, one stage; ``alone`` has German alone, ``mix`` the English share of the
source text from 0 to 1 at one recipe, and ``spread`` is spread over N, U, k, r and that share.
Checkpoint: a model a size, trained on Japanese, English and French alike, without German.
Continued: German alone, no text read twice, from scratch and from that checkpoint by the same recipe.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import qmc

from m3bayes.files import write_text
from m3bayes.pilot.designs import interleave, rounded
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


# of the trilingual plan: sizes; U of every block, with k of German alone; U, k and r at which the share is varied
TRILINGUAL_PARAMS = (24_736, 55_536, 83_280)
ALONE = {20_000: (2.0, 8.0), 80_000: (1.0, 4.0), 320_000: (0.5, 2.0)}
MIXED = (
    (24_736, 20_000, 4.0, 0.1),
    (24_736, 80_000, 2.0, 0.25),
    (55_536, 80_000, 1.0, 0.1),
    (55_536, 320_000, 1.0, 0.5),
)
ENGLISH_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SPREAD = 40
SPREAD_RATIO = (0.08, 0.7)
SPREAD_TOKENS = (1e5, 1.2e6)  # D
# of runs from a checkpoint: sizes, all tokens of a checkpoint, D of the runs, and more of it for the least size
CONTINUED_PARAMS = (24_736, 55_536, 83_280)
CHECKPOINT_TOKENS = 3_000_000
CONTINUED_TOKENS = tuple(16_000 * 2**i for i in range(8))
LONGEST = ((24_736, 4_096_000), (24_736, 8_192_000))


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


def trilingual_plan() -> pd.DataFrame:
    alone = [
        ("alone", Recipe(N, U, k), 0.0) for U, ks in ALONE.items() for k in ks for N in TRILINGUAL_PARAMS
    ]
    mix = [("mix", Recipe(N, U, k, r, r), share) for share in ENGLISH_SHARES for N, U, k, r in MIXED]
    runs = interleave([alone, mix, [("spread", *run) for run in _spread_over_sources()]])
    rows = []
    for number, (block, recipe, share) in enumerate(runs, start=1):
        english = round(share * recipe.source_tokens)
        draw = number if block == "spread" else 0
        rows.append(
            {
                "run": f"de-trilingual-{number:03d}",
                "block": block,
                "language": "de",
                "subset": draw,
                "seed": draw,
            }
            | {name: getattr(recipe, name) for name in VARIABLES}
            | {"en_tokens": english, "fr_tokens": round(recipe.source_tokens) - english}
        )
    return plan_from_frame(pd.DataFrame(rows))


def _spread_over_sources() -> list[tuple[Recipe, float]]:
    """Recipes of one stage and the English share of their source text; a third of them have one source alone."""
    runs = []
    for a, b, c, d, e in qmc.Sobol(5, seed=0).random(64)[:SPREAD]:
        N, U = TRILINGUAL_PARAMS[int(3 * a)], tuple(ALONE)[int(3 * b)]
        r = rounded(SPREAD_RATIO[0] * (SPREAD_RATIO[1] / SPREAD_RATIO[0]) ** c)
        D = SPREAD_TOKENS[0] * (SPREAD_TOKENS[1] / SPREAD_TOKENS[0]) ** d
        share = round(float(np.clip(1.5 * e - 0.25, 0, 1)), 3)
        runs.append((Recipe(N, U, rounded(r * D / U), r, r), share))
    return runs


def checkpoint_plan() -> pd.DataFrame:
    """Japanese stands as the target, since a run has one; each language is a third of the tokens, read once."""
    U = CHECKPOINT_TOKENS // 3
    recipes = {N: Recipe(N, U, 1.0, rounded(1 / 3), rounded(1 / 3)) for N in CONTINUED_PARAMS}
    rows = [
        {"run": f"multilingual-{N}", "block": "checkpoint", "language": "ja", "subset": 0, "seed": 0}
        | {name: getattr(recipe, name) for name in VARIABLES}
        | {"en_tokens": round(recipe.source_tokens / 2), "fr_tokens": round(recipe.source_tokens / 2)}
        for N, recipe in recipes.items()
    ]
    return plan_from_frame(pd.DataFrame(rows))


def continued_plan() -> pd.DataFrame:
    """Pairs that differ in where they begin alone, in the order of their compute; the longest ones come last."""
    pairs = sorted(
        ((N, D) for N in CONTINUED_PARAMS for D in CONTINUED_TOKENS), key=lambda pair: pair[0] * pair[1]
    )
    rows = [
        {
            "run": f"de-{start or 'scratch'}-{N}-{D}",
            "block": "continued",
            "language": "de",
            "subset": draw,
            "seed": draw,
        }
        | {name: getattr(Recipe(N, D, 1.0), name) for name in VARIABLES}
        | {"checkpoint": f"multilingual-{N}" if start else ""}
        for draw, (N, D) in enumerate([*pairs, *LONGEST])
        for start in ("", "checkpoint")
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
    plans = {
        "learning_rate": learning_rate_plan(),
        "decay": decay_plan(),
        "scarcity": scarcity_plan(),
        "trilingual": trilingual_plan(),
        "checkpoint": checkpoint_plan(),
        "continued": continued_plan(),
    }
    for name, plan in plans.items():
        write_text(FOLDER / f"{name}_plan.csv", plan.to_csv(index=False, lineterminator="\n"))
