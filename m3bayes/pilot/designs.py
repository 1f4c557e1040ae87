"""The designed blocks of a plan: which recipes to train to answer one question each.

| symbol | meaning | unit |
|---|---|---|
| N, U, k, r, r_f, r_1 | as in m3bayes.recipe | parameters, tokens |
| D = k U / r | all tokens seen | tokens |
| C = 6 N D | compute | FLOP |

A cell of the epochs block is a budget C and a scarcity U. Its runs have equal FLOP and differ in k: through N
on the target language alone (k = D / U), through r in the two other regimes (r = k U / D at one N).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m3bayes.errors import RecipeError
from m3bayes.pilot.model import Shape
from m3bayes.recipe import Number, Recipe

REGIMES: tuple[str, ...] = ("monolingual", "single-stage", "two-stage")

CELL_EPOCHS = (0.25, 128.0)
USUAL_EPOCHS = 0.5  # the least k of a cell where U is scarce enough
CELL_RATIO = (0.02, 0.9)
CELL_VALUES = 4  # of k
LINE_RATIO = (0.03, 1.0)
LINE_VALUES = 6  # of r
PAIRS = ((0.1, 0.5), (0.1, 1.0), (0.3, 0.6), (0.3, 1.0))  # r, r_f


@dataclass(frozen=True)
class Limits:
    """What a run may take. ``tokens`` are the least and most of all tokens seen, D; ``compute`` likewise 6ND."""

    tokens: tuple[Number, Number]
    source_tokens: Number
    compute: tuple[Number, Number] = (0, math.inf)

    def hold(self, N: Number, U: Number, k: Number, r: Number) -> bool:
        D = k * U / r
        return (
            self.tokens[0] <= D <= self.tokens[1]
            and self.compute[0] <= 6 * N * D <= self.compute[1]
            and D * (1 - r) <= self.source_tokens
        )


@dataclass(frozen=True)
class PlannedRun:
    """``draw`` numbers its choice of text, weights and order: runs that share it differ in the recipe alone."""

    block: str
    recipe: Recipe
    draw: int


def regime(recipe: Recipe) -> str:
    """One of REGIMES."""
    if recipe.first_ratio is not None:
        return "two-stage"
    return "monolingual" if recipe.target_ratio == 1 else "single-stage"


def designed_runs(
    budgets: Sequence[Number],
    scarcities: Sequence[Number],
    target_tokens: Sequence[Number],
    shapes: Sequence[Shape],
    limits: Limits,
    seeds: int,
    generator: np.random.Generator,
) -> list[PlannedRun]:
    """All designed recipes once, blocks, regimes and cells in turn; then the epochs block with further draws."""
    regimes = []
    for cells in epochs_block(budgets, scarcities, shapes, limits).values():
        mixed = [[cell[i] for i in generator.permutation(len(cell))] for cell in cells]
        regimes.append(interleave([mixed[i] for i in generator.permutation(len(mixed))]))
    epochs = interleave(regimes)
    once = {
        "epochs": epochs,
        "ratio": ratio_block(max(budgets), target_tokens, shapes, limits),
        "first_stage": first_stage_block(max(budgets), target_tokens, shapes, limits),
    }
    first = interleave([[PlannedRun(block, recipe, 0) for recipe in rows] for block, rows in once.items()])
    return first + [PlannedRun("epochs", recipe, draw) for draw in range(1, seeds) for recipe in epochs]


def epochs_block(
    budgets: Sequence[Number], scarcities: Sequence[Number], shapes: Sequence[Shape], limits: Limits
) -> dict[str, list[list[Recipe]]]:
    """By regime, the recipes of each cell, all of one C and one U; cells in which no k fits are left out."""
    cells: dict[str, list[list[Recipe]]] = {name: [] for name in REGIMES}
    for C in budgets:
        for U in scarcities:
            U = round(U)
            several = _mixed(C, U, shapes, limits)
            recipes = {
                "monolingual": _monolingual(C, U, shapes, limits),
                "single-stage": [Recipe(N, U, k, r, r) for N, k, r in several],
                "two-stage": [Recipe(N, U, k, r, 1.0, 0.0) for N, k, r in several],
            }
            for name, cell in recipes.items():
                within = [recipe for recipe in cell if recipe.source_tokens <= limits.source_tokens]
                if within:
                    cells[name].append(within)
    return cells


def _monolingual(C: Number, U: int, shapes: Sequence[Shape], limits: Limits) -> list[Recipe]:
    """Each shape that C trains within the limits: k = D / U."""
    recipes = [Recipe(N, U, rounded(C / (6 * N) / U)) for N in _sizes_at(C, shapes, limits)]
    return [recipe for recipe in recipes if CELL_EPOCHS[0] <= recipe.epochs <= CELL_EPOCHS[1]]


def _mixed(C: Number, U: int, shapes: Sequence[Shape], limits: Limits) -> list[tuple[int, float, float]]:
    """N, k and r = k U / D: CELL_VALUES values of k at one N, from USUAL_EPOCHS up to the greatest r.

    N is the one nearest the middle of those that C trains at which k then spans a factor of 4. Where U is too
    large for that, it is the least N, with k from the least of all where it spans a factor of 2; else none.
    """

    def most(N: int) -> float:
        return min(CELL_RATIO[1] * C / (6 * N) / U, CELL_EPOCHS[1])

    sizes = _sizes_at(C, shapes, limits)
    wide = [N for N in _from_the_middle(sizes) if most(N) >= 4 * USUAL_EPOCHS]
    if wide:
        N, start = wide[0], USUAL_EPOCHS
    elif sizes and most(sizes[0]) >= 2 * CELL_EPOCHS[0]:
        N, start = sizes[0], CELL_EPOCHS[0]
    else:
        return []
    D = C / (6 * N)
    least = max(start, CELL_RATIO[0] * D / U)
    values = [rounded(k) for k in np.geomspace(least, most(N), CELL_VALUES)]
    return [(N, k, min(max(rounded(k * U / D), CELL_RATIO[0]), CELL_RATIO[1])) for k in values]


def ratio_block(
    C: Number, target_tokens: Sequence[Number], shapes: Sequence[Shape], limits: Limits
) -> list[Recipe]:
    """Six values of r at one N and D, with the least U at which r = 1 takes at most 4 epochs."""
    N = _middle(C, shapes, limits)
    D = C / (6 * N)
    U = round(min((tokens for tokens in target_tokens if 4 * tokens >= D), default=D / 4))
    ratios = [rounded(r) for r in np.geomspace(*LINE_RATIO, LINE_VALUES)]
    recipes = [Recipe(N, U, rounded(r * D / U), r, r) for r in ratios]
    return [recipe for recipe in recipes if recipe.source_tokens <= limits.source_tokens]


def first_stage_block(
    C: Number, target_tokens: Sequence[Number], shapes: Sequence[Shape], limits: Limits
) -> list[Recipe]:
    """Pairs, one after the other, that share all but the ratio before the last stage: 0, then r / 2."""
    N = _middle(C, shapes, limits)
    U = round(min(target_tokens))
    values = [(rounded(r * C / (6 * N) / U), r, r_f) for r, r_f in PAIRS]
    recipes = [Recipe(N, U, k, r, r_f, r_1) for k, r, r_f in values for r_1 in (0.0, r / 2)]
    return [recipe for recipe in recipes if recipe.source_tokens <= limits.source_tokens]


# ---- small parts -------------------------------------------------------------------------------


def interleave[Item](groups: Sequence[Sequence[Item]]) -> list[Item]:
    """The items of all groups, each group's in its order, so that every prefix holds each in proportion."""
    order = sorted(
        ((place + 0.5) / len(group), number, place)
        for number, group in enumerate(groups)
        for place in range(len(group))
    )
    return [groups[number][place] for _, number, place in order]


def _sizes_at(C: Number, shapes: Sequence[Shape], limits: Limits) -> list[int]:
    """N, rising, of the shapes that C trains on a number of tokens within the limits."""
    sizes = sorted(shape.params for shape in shapes)
    return [N for N in sizes if limits.tokens[0] <= C / (6 * N) <= limits.tokens[1]]


def _from_the_middle(sizes: Sequence[int]) -> list[int]:
    """Nearest the geometric middle of the range first; the smaller of two as near."""

    def distance(N: int) -> float:
        return round(abs(2 * math.log(N) - math.log(sizes[0] * sizes[-1])), 6)

    return sorted(sizes, key=lambda N: (distance(N), N))


def _middle(C: Number, shapes: Sequence[Shape], limits: Limits) -> int:
    sizes = _sizes_at(C, shapes, limits)
    if not sizes:
        raise RecipeError(
            f"plan: budgets: {C:.3g} FLOP trains none of the shapes on {limits.tokens[0]:.3g} to "
            f"{limits.tokens[1]:.3g} tokens (6ND); give a larger budget, a smaller shape or other limits"
        )
    return _from_the_middle(sizes)[0]


def rounded(value: float) -> float:
    """To four digits: moves 6ND by 0.1 % at most and keeps a plan readable."""
    return float(f"{value:.4g}")
