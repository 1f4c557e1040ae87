"""Which windows of text a run reads, in which order.

A window is L + 1 tokens: L to read, each followed by one to predict. A stage of n windows of which m are target
text spreads the m evenly among the n. Target windows are reshuffled passes over one subset of U tokens,
each pass cut at an offset of its own; source windows are read once each, in an order drawn by the seed. Several
source texts lie end to end, and their windows are spread evenly among the source windows.

| symbol | meaning | unit |
|---|---|---|
| U, T, D | unique target tokens, target tokens seen, all tokens seen | tokens |
| L, B | context, windows a step | tokens, windows |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Integer

from m3bayes.errors import RecipeError
from m3bayes.recipe import Number, Recipe, Schedule, Stage, schedule


@dataclass(frozen=True)
class StageWindows:
    """A stage of ``windows``, ``target`` of them target text."""

    windows: int
    target: int


@dataclass(frozen=True)
class SourceText:
    """A source text of ``windows``, from token ``start`` of all source text on; ``share`` weighs what is read."""

    windows: int
    start: int = 0
    share: Number = 1.0


@dataclass(frozen=True, eq=False)
class Stream:
    """``is_target`` and ``start`` (first token in the target or in all source text) of every window, in order."""

    is_target: Bool[np.ndarray, " window"]
    start: Int[np.ndarray, " window"]

    def __len__(self) -> int:
        return len(self.start)


def stage_windows(recipe: Recipe, context: int, batch: int) -> tuple[StageWindows, ...]:
    """The stages of a recipe in whole windows, all of them a whole number of steps.

    Raises RecipeError where a stage would have no window or the last one no target text.
    """
    stages = schedule(recipe).stages
    tokens = sum(stage.tokens for stage in stages)
    total = batch * max(1, round(tokens / (context * batch)))
    ends = np.cumsum([stage.tokens for stage in stages]) / tokens * total
    counts = np.diff(np.rint(ends).astype(int), prepend=0)
    found = tuple(
        StageWindows(int(count), round(stage.target_ratio * int(count)))
        for count, stage in zip(counts, stages, strict=True)
    )
    if min(stage.windows for stage in found) == 0 or found[-1].target == 0:
        raise RecipeError(
            f"recipe: {tokens:.6g} tokens are too few for its stages in windows of {context}: more epochs, "
            "more target text, or a longer last stage"
        )
    return found


def realised(recipe: Recipe, stages: Sequence[StageWindows], context: int) -> Schedule:
    """The schedule that ``stages`` carry out, in tokens."""
    done = [Stage(stage.windows * context, stage.target / stage.windows) for stage in stages]
    return Schedule(recipe.params, recipe.target_tokens, done, recipe.extra)


def shared(windows: int, shares: Sequence[Number]) -> list[int]:
    """``windows`` source windows by source, in proportion to ``shares`` as near as whole numbers allow."""
    if windows == 0:
        return [0] * len(shares)
    ends = np.cumsum(shares)
    return np.diff(np.rint(windows * ends / ends[-1]).astype(int), prepend=0).tolist()


def stream(
    stages: Sequence[StageWindows],
    unique_tokens: int,
    sources: Sequence[SourceText],
    context: int,
    seed: int,
) -> Stream:
    """The windows of a run.

    Raises RecipeError where the stages ask for more of a source text than there is, or ``unique_tokens`` is less
    than a window.
    """
    is_target = np.concatenate([spread(stage.windows, stage.target) for stage in stages])
    target = int(is_target.sum())
    source = len(is_target) - target
    counts = shared(source, [text.share for text in sources])
    for count, text in zip(counts, sources, strict=True):
        if count > text.windows:
            raise RecipeError(
                f"recipe: {count * context:,} source tokens asked for, {text.windows * context:,} there are; "
                "source text is never repeated: fewer epochs, a higher target_ratio, or more source text"
            )
    if unique_tokens < context:
        raise RecipeError(
            f"recipe: target_tokens is {unique_tokens}, expected at least {context}: one window"
        )
    # each text has an order of its own, whatever else is mixed in
    start = np.empty(len(is_target), np.int64)
    start[is_target] = passes(target, unique_tokens, context, np.random.default_rng([seed, 1]))
    read = np.empty(source, np.int64)
    turn = turns(counts)
    for number, (count, text) in enumerate(zip(counts, sources, strict=True)):
        order = np.random.default_rng([seed, 2 + number]).permutation(text.windows)
        read[turn == number] = text.start + context * order[:count]
    start[~is_target] = read
    return Stream(is_target, start)


def spread(windows: int, target: int) -> Bool[np.ndarray, " window"]:
    """``target`` of ``windows`` positions, as evenly as whole numbers allow."""
    marks = np.arange(windows + 1, dtype=np.int64) * target // max(windows, 1)
    return np.diff(marks) > 0


def turns(counts: Sequence[int]) -> Int[np.ndarray, " window"]:
    """Which source each source window is of, so that every stretch holds all of them in proportion."""
    number = np.repeat(np.arange(len(counts)), counts)
    place = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in counts])
    return number[np.argsort(place, kind="stable")]


def passes(
    windows: int, unique_tokens: int, context: int, random: np.random.Generator
) -> Int[np.ndarray, " window"]:
    """Starts of so many windows: shuffled passes, the text closed to a ring and cut anew for each."""
    a_pass = unique_tokens // context
    starts = [
        (random.integers(unique_tokens) + context * random.permutation(a_pass)) % unique_tokens
        for _ in range(-(-windows // a_pass))
    ]
    return np.concatenate([np.empty(0, np.int64), *starts])[:windows]


def gather(
    order: Stream, target: np.ndarray, source: np.ndarray, context: int, first: int, last: int
) -> Integer[np.ndarray, "window token"]:
    """The tokens of windows ``first`` to ``last``, context + 1 each; target text is a ring."""
    start, is_target = order.start[first:last], order.is_target[first:last]
    places = start[:, None] + np.arange(context + 1)
    tokens = np.empty(places.shape, np.result_type(target, source))
    tokens[is_target] = target[places[is_target] % len(target)]
    tokens[~is_target] = source[places[~is_target]]
    return tokens
