"""Which runs to train on and which to predict: the ways to hold out runs that a decision would have to foresee.

| by | test runs |
|---|---|
| compute, tokens, target_tokens, a column of numbers | the larger ones, past a share of the runs |
| params | those of the largest N, of the two largest, ... |
| mixture | recipes (r, r_f, r_1) that no training run had, in seeded folds |
| random | a seeded share of the runs |
| a column of labels | each label in turn |

| symbol | meaning |
|---|---|
| N, U, D | parameters, unique target tokens, all tokens |
| r, r_f, r_1 | target ratio of all tokens, of the last stage, before it |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from m3bayes.errors import RunTableError
from m3bayes.evaluation.candidates import counts
from m3bayes.evaluation.given import check_runs, check_whole, is_share
from m3bayes.runs import Runs

CUTS = (0.5, 0.7, 0.85)
FOLDS = 5
LARGEST = 3  # held-out sizes at most
FEWEST_TRAIN, FEWEST_TEST = 8, 3
ATLAS = ("all", "largest N", "most tokens", "most compute", "unseen mixtures")
ATLAS_SHARE = 0.8  # of the runs to train on
NEAR = 0.15  # of the runs: a cut may be so far from the share that was asked for
RATIO_DECIMALS = 6  # ratios that agree to so many are one mixture

Mask = Bool[np.ndarray, " run"]


@dataclass(frozen=True, eq=False)
class Split:
    """Masks over the runs of a table; no run is in both, and one of weight 0 in none."""

    name: str
    train: Mask
    test: Mask


def splits(
    runs: Runs, by: str, cuts: Sequence[float] = CUTS, folds: int = FOLDS, seed: int = 0
) -> tuple[Split, ...]:
    """The splits of a table ``by`` what the module's table says.

    ``cuts`` are shares of the runs to train on: in order of size, or at random for "random". In order of size the
    cut is at the widest gap within .15 of the runs, so that runs of one size stay together and every training
    run is smaller than every test run; two cuts may then be one. ``folds`` and ``seed`` are for
    "mixture" (and "random"). Runs of weight 0 are in no part. Raises RunTableError where the runs do not differ in
    ``by``, a value is blank, or fewer than 8 training or 3 test runs would be left.
    """
    check_runs(runs)
    _check_cuts(cuts)
    check_whole("seed", seed, 0)
    if not isinstance(by, str):
        raise RunTableError(f'by is {by!r}; give one name, as "compute" or a column')
    if by in runs.columns and runs[by].dtype != object:
        blank = np.isnan(runs[by]) & counts(runs)
        if blank.any():
            raise RunTableError(
                f"{runs.name}: row {int(np.argmax(blank)) + 1}, column {by}: blank, expected a number to split by; "
                "fill it in or leave the run out"
            )
    return _of_counted(runs, lambda counted: _splits(counted, by, cuts, folds, seed))


def _of_counted(runs: Runs, make: Callable[[Runs], tuple[Split, ...]]) -> tuple[Split, ...]:
    """The splits of the runs whose weight is not 0, as masks over all of them."""
    counted = counts(runs)

    def over_all(mask: np.ndarray) -> np.ndarray:
        whole = np.zeros(len(runs), bool)
        whole[counted] = mask
        return whole

    made = make(runs if counted.all() else runs.select(counted))
    return tuple(Split(split.name, over_all(split.train), over_all(split.test)) for split in made)


def _splits(runs: Runs, by: str, cuts: Sequence[float], folds: int, seed: int) -> tuple[Split, ...]:
    if by == "params":
        return _largest_sizes(runs)
    if by == "mixture":
        return _unseen_mixtures(runs, folds, seed)
    if by == "random":
        return tuple(_random(runs, share, seed) for share in cuts)
    values = _SIZES[by](runs) if by in _SIZES else runs[by]
    if values.dtype == object:
        return _left_out_labels(runs, by, values)
    found = (_past_share(runs, by, values, share) for share in sorted(cuts))
    return tuple({split.name: split for split in found}.values())  # ties may make one split of two cuts


def atlas_splits(runs: Runs, seed: int = 0) -> dict[str, Split | RunTableError]:
    """The five splits of the ATLAS protocol (arXiv 2510.22037) by name, or why the table cannot give one.

    The paper does not publish its split of "all"; here it and the unseen mixtures hold out a fifth; the most
    tokens (D) and the most compute hold out what lies beyond the widest gap, a fifth give or take .15 of the runs;
    "largest N" holds out the largest N, with as many of the next as it takes for 3 test runs.
    """
    check_runs(runs)
    check_whole("seed", seed, 0)
    wanted: dict[str, Callable[[Runs], tuple[Split, ...]]] = {
        "all": lambda counted: (_random(counted, ATLAS_SHARE, seed),),
        "largest N": _largest_sizes,
        "most tokens": lambda counted: _splits(counted, "tokens", (ATLAS_SHARE,), FOLDS, seed),
        "most compute": lambda counted: _splits(counted, "compute", (ATLAS_SHARE,), FOLDS, seed),
        "unseen mixtures": lambda counted: _unseen_mixtures(counted, FOLDS, seed),
    }
    found: dict[str, Split | RunTableError] = {}
    for name in ATLAS:
        try:
            split = _of_counted(runs, wanted[name])[0]
            found[name] = Split(name, split.train, split.test)
        except RunTableError as error:
            found[name] = error
    return found


_SIZES: dict[str, Callable[[Runs], Float[np.ndarray, " run"]]] = {
    "compute": lambda runs: runs.compute,
    "tokens": lambda runs: runs.tokens,
    "target_tokens": lambda runs: runs["target_tokens"],
}


def _past_share(runs: Runs, by: str, values: np.ndarray, share: float) -> Split:
    """Train on the smaller runs: cut at the widest gap near ``share`` of the runs.

    Runs of one planned size differ a little once they are counted, by whole batches or documents; the widest
    gap keeps them on one side.
    """
    ordered = np.sort(values)
    # sizes that were computed may differ in their last bits
    ends = np.flatnonzero(ordered[1:] > ordered[:-1] + 1e-9 * np.abs(ordered[:-1]))
    if not len(ends):
        raise _alike(runs, by)
    off = np.abs(ends + 1 - share * len(values))
    enough = (
        (ends + 1 >= FEWEST_TRAIN) & (len(values) - ends - 1 >= FEWEST_TEST) & (off <= NEAR * len(values))
    )
    if enough.any():
        ends, off = ends[enough], off[enough]
    scale = np.log(ordered) if ordered[0] > 0 else ordered
    gap = np.where(off <= max(NEAR * len(values), off.min()), scale[ends + 1] - scale[ends], 0.0)
    wide = gap >= 0.99 * gap.max()  # of equally wide ones the nearest
    end = ends[wide][np.argmin(off[wide])]
    last, first = ordered[end], ordered[end + 1]
    split = Split(f"{by} >= {first:.4g}", values <= last, values >= first)
    return _checked(runs, split, f"give other cuts, or more runs that differ in {by}")


def _largest_sizes(runs: Runs) -> tuple[Split, ...]:
    sizes = np.unique(runs["params"])
    if len(sizes) == 1:
        raise _alike(runs, "params")
    found = []
    for size in sizes[:0:-1]:
        test = runs["params"] >= size
        if test.sum() >= FEWEST_TEST and (~test).sum() >= FEWEST_TRAIN:
            found.append(Split(f"params >= {size:.4g}", ~test, test))
    if not found:
        smallest = runs["params"] >= sizes[1]
        split = Split(f"params >= {sizes[1]:.4g}", ~smallest, smallest)
        _checked(runs, split, "split by something else, or give more runs of other sizes")
    return tuple(found[:LARGEST])


def _unseen_mixtures(runs: Runs, folds: int, seed: int) -> tuple[Split, ...]:
    _check_folds(folds)
    mixture = mixtures(runs)
    total = int(mixture.max()) + 1
    if total == 1:
        raise _alike(runs, "mixture (target_ratio, final_ratio, first_ratio)")
    folds = min(folds, total)
    fold_of_mixture = np.random.default_rng(seed).permutation(np.arange(total) % folds)
    fold = fold_of_mixture[mixture]
    return tuple(
        _checked(
            runs, Split(f"unseen mixtures {i + 1}", fold != i, fold == i), "give fewer folds, or more runs"
        )
        for i in range(folds)
    )


def mixtures(runs: Runs) -> Int[np.ndarray, " run"]:
    """The number of each run's combination of r, r_f and r_1, from 0."""
    r, r_f = runs["target_ratio"], runs["final_ratio"]
    first = runs.columns["first_ratio"] if "first_ratio" in runs.columns else np.full(len(runs), np.nan)
    blank = np.where(r == r_f, r, 0.0)  # one stage has one ratio, of two stages the first has no target text
    ratios = np.stack([r, r_f, np.where(np.isnan(first), blank, first)], axis=1)
    return np.unique(np.round(ratios, RATIO_DECIMALS), axis=0, return_inverse=True)[1].reshape(-1)


def _random(runs: Runs, share: float, seed: int) -> Split:
    train = np.zeros(len(runs), bool)
    train[np.random.default_rng(seed).permutation(len(runs))[: round(share * len(runs))]] = True
    return _checked(runs, Split(f"random {1 - share:.0%}", train, ~train), "give another cut, or more runs")


def _left_out_labels(runs: Runs, by: str, values: np.ndarray) -> tuple[Split, ...]:
    labels = sorted({str(value) for value in values})
    if len(labels) == 1:
        raise _alike(runs, by)
    masks = {label: np.array([str(value) == label for value in values]) for label in labels}
    return tuple(
        _checked(
            runs,
            Split(f"{by} {label or '(blank)'}", ~test, test),
            "leave out rare labels, or split by something else",
        )
        for label, test in masks.items()
    )


def _checked(runs: Runs, split: Split, mend: str) -> Split:
    train, test = int(split.train.sum()), int(split.test.sum())
    if train < FEWEST_TRAIN or test < FEWEST_TEST:
        raise RunTableError(
            f"{runs.name}: split {split.name!r} has {train} training and {test} test runs, expected at least "
            f"{FEWEST_TRAIN} and {FEWEST_TEST}; {mend}"
        )
    return split


def _alike(runs: Runs, by: str) -> RunTableError:
    return RunTableError(
        f"{runs.name}: all runs have one {by}, expected several to split by it; split by something else"
    )


def check_masks(split: Split, runs: Runs) -> None:
    """Raise RunTableError where a split's masks are not over these runs."""
    masks = [np.asarray(mask) for mask in (split.train, split.test)]
    if any(mask.shape != (len(runs),) or mask.dtype != bool for mask in masks):
        given = " and ".join(f"{mask.dtype} {mask.shape}" for mask in masks)
        raise RunTableError(
            f"split {split.name!r} has masks {given}, expected bool ({len(runs)},), a mask over the runs of {runs.name}"
        )


def _check_cuts(cuts: Sequence[float]) -> None:
    if isinstance(cuts, str) or not isinstance(cuts, Sequence | np.ndarray) or not len(cuts):
        raise RunTableError(f"cuts: {cuts!r}, expected shares of the runs to train on, as (.5, .7)")
    for cut in cuts:
        if not is_share(cut):
            raise RunTableError(
                f"cuts: {cut!r}, expected shares of the runs to train on, between 0 and 1, as .7"
            )


def _check_folds(folds: int) -> None:
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise RunTableError(f"folds is {folds!r}, expected a whole number of 2 or more")
