"""The block of a plan that spreads over everything: a Sobol sequence over recipes (symbols: m3bayes.recipe)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
from scipy.stats import qmc

from m3bayes.errors import RecipeError
from m3bayes.pilot.designs import REGIMES, Limits, regime, rounded
from m3bayes.pilot.model import Shape
from m3bayes.recipe import Number, Recipe

SHARES = (0.3, 0.3, 0.4)  # of the recipes, by regime
EPOCHS = (0.5, 64.0)
RATIO = (0.03, 1.0)
LAST_STAGE_SHARE = (0.05, 0.9)

_CANDIDATES = 2**16  # points to look at before giving up
_BATCH = 256  # a power of 2, as the sequence wants


def sobol_block(
    language: str,
    count: int,
    shapes: Sequence[Shape],
    target_tokens: Sequence[Number],
    limits: Limits,
    seed: int,
) -> dict[str, list[Recipe]]:
    """``count`` recipes by regime, along a scrambled Sobol sequence of the language's own.

    log N (its nearest shape), log U (from the least to the most of ``target_tokens``), log k, log r, r_f and
    the last stage's share are spread evenly, points outside the limits passed over. Raises RecipeError where
    too few are within.
    """
    wanted = dict(zip(REGIMES, _whole_shares(count, SHARES), strict=True))
    found: dict[str, list[Recipe]] = {name: [] for name in REGIMES}
    sizes = sorted(shape.params for shape in shapes)
    generator = np.random.default_rng([seed, zlib.crc32(language.encode())])
    sequence = qmc.Sobol(8, rng=generator)
    for _ in range(_CANDIDATES // _BATCH):
        if all(len(found[name]) == wanted[name] for name in REGIMES):
            return found
        for point in sequence.random(_BATCH).tolist():
            recipe = _sobol_recipe(point, sizes, target_tokens, limits)
            if recipe is not None:
                name = regime(recipe)
                if len(found[name]) < wanted[name]:
                    found[name].append(recipe)
    missed = ", ".join(f"{len(found[name])} of {wanted[name]} {name}" for name in REGIMES)
    raise RecipeError(
        f"plan: {missed} recipes found in {_CANDIDATES} points, expected {count} with "
        f"{limits.compute[0]:.3g} to {limits.compute[1]:.3g} FLOP, {limits.tokens[0]:.3g} to "
        f"{limits.tokens[1]:.3g} tokens and at most {limits.source_tokens:.3g} source tokens; "
        "widen these limits, or give smaller shapes or other target_tokens"
    )


def _sobol_recipe(
    point: Sequence[float], sizes: Sequence[int], target_tokens: Sequence[Number], limits: Limits
) -> Recipe | None:
    """The recipe at a point of the unit cube; None outside the limits or where its stages would be none."""
    sort, u_N, u_U, u_k, u_r, u_f, u_share, half = point
    N = _nearest(_between((sizes[0], sizes[-1]), u_N), sizes)
    U = round(_between((min(target_tokens), max(target_tokens)), u_U))
    k = rounded(_between(EPOCHS, u_k))
    r = 1.0 if sort < SHARES[0] else rounded(_between(RATIO, u_r))
    if not limits.hold(N, U, k, r):
        return None
    if sort < SHARES[0]:
        return Recipe(N, U, k)
    if sort < SHARES[0] + SHARES[1]:
        return Recipe(N, U, k, r, r) if r < 1 else None
    stages = _two_stages(r, u_f, u_share, half < 0.5)
    return None if stages is None else Recipe(N, U, k, r, *stages)


def _two_stages(r: float, u_f: float, u_share: float, from_nothing: bool) -> tuple[float, float] | None:
    """r_f > r and r_1 < r, ``from_nothing`` r_1 = 0; None where the last stage's share would be out of range."""
    shortest, longest = LAST_STAGE_SHARE
    if r >= longest:
        return None
    if from_nothing:  # the share is r / r_f
        share = _between((max(shortest, r), longest), u_share)
        r_f, r_1 = min(rounded(r / share), 1.0), 0.0
    else:
        r_f = min(rounded(_between((r / longest, 1.0), u_f)), 1.0)
        if r / r_f <= shortest:
            return None
        share = _between((shortest, r / r_f), u_share)
        r_1 = max(rounded((r - share * r_f) / (1 - share)), 0.0)
    return (r_f, r_1) if r_1 < r < r_f else None


def _whole_shares(count: int, shares: Sequence[float]) -> list[int]:
    """``count`` in whole parts nearest to the shares; the last takes what is left over."""
    parts = [round(count * share) for share in shares[:-1]]
    return [*parts, count - sum(parts)]


def _between(range_: tuple[Number, Number], u: float) -> float:
    """The point at u in [0, 1] of a range, on a log scale."""
    low, high = map(math.log, range_)
    return math.exp(low + u * (high - low))


def _nearest(value: float, sizes: Sequence[int]) -> int:
    return min(sizes, key=lambda N: abs(math.log(N / value)))
