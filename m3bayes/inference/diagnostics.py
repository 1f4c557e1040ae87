"""R-hat and effective sample sizes of chains, all quantities at once (Vehtari et al. 2021, arXiv 1903.08008).

Draws are (quantity, chain, draw). Every chain is split into halves, so that one that wanders disagrees with
itself. Many short chains have the nested R-hat (Margossian et al. 2024, arXiv 2110.13017) instead. All of them
give NaN where there are fewer than four draws or one is not finite. The definitions are those of ArviZ, which
the tests compare with; it takes one quantity at a time, and longer to import than many a fit takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

Draws = Float[np.ndarray, "quantity chain draw"]
Values = Float[np.ndarray, " quantity"]

TAILS = (0.05, 0.95)
FEWEST_DRAWS = 4
# chains too short to be told apart one by one start, and are judged, in groups
SHORT, SUPERCHAINS = 200, 16


def _where_possible(measure: Callable[[Draws], Values]) -> Callable[[Draws], Values]:
    @wraps(measure)
    def measured(draws: Draws) -> Values:
        result = np.full(len(draws), np.nan)
        finite = np.isfinite(draws).all(axis=(1, 2))
        if draws.shape[2] >= FEWEST_DRAWS:
            result[finite] = measure(draws[finite])
        return result

    return measured


@_where_possible
def r_hat(draws: Draws) -> Values:
    """The larger of the R-hats of normal scores and of scores of the distance from the median.

    NaN where a quantity never moves, and for a single chain.
    """
    if draws.shape[1] < 2:
        return np.full(len(draws), np.nan)
    halves = _halves(draws)
    away = np.abs(halves - np.median(halves, axis=(1, 2), keepdims=True))
    return np.maximum(_r_hat(_normal_scores(halves)), _r_hat(_normal_scores(away)))


def superchains_of(chains: int, draws: int) -> int:
    """The number of groups of neighbouring chains that start together; 0 where every chain starts by itself."""
    return SUPERCHAINS if chains >= 2 * SUPERCHAINS and draws < SHORT else 0


def nested_r_hat(draws: Draws, superchains: int) -> Values:
    """R-hat of superchains, each of which is equally many neighbouring chains that started in one place: the larger of
    those of normal scores and of scores of the distance from the median.

    Chains may be far too short to be told apart one by one. NaN where a quantity never moves.
    """

    @_where_possible
    def measure(draws: Draws) -> Values:
        away = np.abs(draws - np.median(draws, axis=(1, 2), keepdims=True))
        return np.maximum(*(_nested_r_hat(_normal_scores(one), superchains) for one in (draws, away)))

    return measure(draws)


@_where_possible
def bulk_ess(draws: Draws) -> Values:
    """Effective sample size of the normal scores."""
    return _ess(_normal_scores(_halves(draws)))


@_where_possible
def mean_ess(draws: Draws) -> Values:
    """Effective sample size for the mean."""
    return _ess(_halves(draws))


@_where_possible
def tail_ess(draws: Draws) -> Values:
    """The smaller of the effective sample sizes of "below the 5 % quantile" and "below the 95 % quantile"."""
    ends = np.quantile(draws, TAILS, axis=(1, 2), keepdims=True)
    return np.min([_ess(_halves((draws <= end).astype(float))) for end in ends], axis=0)


def _halves(draws: Draws) -> Float[np.ndarray, "quantity half place"]:
    half = draws.shape[2] // 2
    return np.concatenate([draws[:, :, :half], draws[:, :, -half:]], axis=1)


def _normal_scores(draws: Draws) -> Draws:
    """Normal quantiles of the ranks over all chains; ties share the mean of their ranks."""
    ranks = np.empty(draws.shape)
    for row, values in zip(ranks, draws, strict=True):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        row[...] = (np.cumsum(counts) - (counts - 1) / 2)[place].reshape(row.shape)
    return ndtri((ranks - 3 / 8) / (ranks[0].size + 1 / 4))


def _r_hat(draws: Draws) -> Values:
    n = draws.shape[2]
    between = n * draws.mean(axis=2).var(axis=1, ddof=1)
    within = draws.var(axis=2, ddof=1).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((between / within + n - 1) / n)


def _nested_r_hat(draws: Draws, superchains: int) -> Values:
    grouped = draws.reshape(
        len(draws), superchains, -1, draws.shape[2]
    )  # (quantity, superchain, chain, draw)
    means = grouped.mean(axis=3)
    between = means.mean(axis=2).var(axis=1, ddof=1)
    within = (means.var(axis=2, ddof=1) + grouped.var(axis=3, ddof=1).mean(axis=2)).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(1 + between / within)


def _ess(draws: Draws) -> Values:
    _, chains, n = draws.shape
    centred = draws - draws.mean(axis=2, keepdims=True)
    # padded, so that a chain's end does not meet its start
    transformed = np.fft.rfft(centred, 1 << (2 * n - 1).bit_length())
    covariance = np.fft.irfft(np.abs(transformed) ** 2)[:, :, :n].mean(axis=1) / n
    within = covariance[:, :1] * n / (n - 1)
    variance = covariance[:, :1] + draws.mean(axis=2).var(axis=1, ddof=1)[:, None] * (chains > 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = 1 - (within - covariance) / variance
    correlation[:, 0] = 1.0
    total = chains * n
    shortest = 1 / math.log10(total)  # antithetic chains are worth more than independent draws, to a point
    lengths = np.array([max(_correlation_length(row), shortest) for row in correlation])
    moves = np.ptp(draws, axis=(1, 2)) >= np.finfo(float).resolution
    return np.where(moves, total / lengths, float(total))


def _correlation_length(correlation: Float[np.ndarray, " lag"]) -> float:
    """1 + 2 sum of the autocorrelations, by Geyer's initial monotone sequence: sums of neighbours (0 + 1, 2 + 3,
    ...) are taken while they are positive, none as larger than the one before."""
    last = max((len(correlation) - 3) // 2, 0)
    pairs = correlation[: 2 * last + 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(~(pairs > 0))
    end = int(ends[0]) if len(ends) else last
    # the even one of the pair that ends it still helps
    return float(-1 + 2 * np.minimum.accumulate(pairs[:end]).sum() + max(correlation[2 * end], 0.0))
