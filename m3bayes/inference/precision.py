"""Chains in float32: rounding the density should move no posterior; where it does, it is told.

Modes, starts, frames and what is read from chains stay in float64. The draws of chains in float32 are weighed with
the ratio of both densities: weighted and unweighted means and standard deviations have to agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, get_args

import jax
import numpy as np
from jaxtyping import Float

from m3bayes.errors import FitError, Note

Precision = Literal["float64", "float32"]

LARGEST_SHIFT = 0.05  # of a mean or standard deviation, in standard deviations

ChainsDraws = Float[np.ndarray, "chain draw"]


def check_precision(precision: str) -> None:
    if precision not in get_args(Precision):
        raise FitError(f'precision is {precision!r}; give "float64" or "float32"')


def computing_in(precision: Precision) -> AbstractContextManager:
    """Within it, jax computes in ``precision`` in this thread."""
    return jax.enable_x64(precision == "float64")


def rounded[Tree](tree: Tree, precision: Precision) -> Tree:
    """The floating-point arrays of a tree in ``precision``, on the host."""

    def one(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        return array.astype(precision) if array.dtype.kind == "f" else array

    return jax.tree.map(one, tree)


def shifted(draws: Mapping[str, ChainsDraws], lp: ChainsDraws, exact_lp: ChainsDraws) -> tuple[Note, ...]:
    """A note where rounding has moved ``draws`` {quantity: (chain, draw)}.

    ``lp`` is the log density that they were drawn from, ``exact_lp`` that in float64.
    """
    change = (exact_lp - lp).ravel()
    weights = np.exp(change - change.max())
    weights /= weights.sum()
    values = np.stack([np.asarray(each, float).ravel() for each in draws.values()])
    mean, sd = values.mean(axis=1), values.std(axis=1)
    weighted_mean = values @ weights
    weighted_sd = np.sqrt(((values - weighted_mean[:, None]) ** 2) @ weights)
    with np.errstate(divide="ignore", invalid="ignore"):  # what never moves has no standard deviation
        shift = np.maximum(abs(weighted_mean - mean), abs(weighted_sd - sd)) / sd
    bad = [
        name for name, value in zip(draws, shift, strict=True) if not value <= LARGEST_SHIFT
    ]  # also where NaN
    if not bad:
        return ()
    return (
        Note(
            "FLOAT32",
            f"rounding to float32 moved the posterior: the mean or standard deviation of {bad[0]} by "
            f"{shift[list(draws).index(bad[0])]:.2f} standard deviations, at most {LARGEST_SHIFT} is tolerated; "
            "sample in float64",
            tuple(bad),
        ),
    )
