"""Are numbers uniform on (0, 1)? Simultaneous bands for their empirical distribution (ECDF), and a p value.

| symbol | meaning |
|---|---|
| n | how many numbers |
| z_j = j / 100 | points at which the ECDF is looked at |
| R_j | how many of the numbers are at most z_j; Binomial(n, z_j) where they are uniform |
| gamma | smallest two-sided tail probability of any R_j |

The band has at every point the same pointwise probability 1 - gamma; gamma is chosen by simulation so that
all points together lie inside with the probability asked for (Säilynoja, Bürkner and Vehtari 2022, arXiv
2103.10522, sections 2.1 and 2.2). Ranks among 99 draws are exact on these points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy import special

CELLS = 100
POINTS = np.arange(1, CELLS) / CELLS
SIMULATIONS = 20_000


@dataclass(frozen=True, eq=False)
class Band:
    """Where the ECDF of uniform numbers stays, all ``points`` together, with probability ``level``."""

    level: float
    points: Float[np.ndarray, " point"]
    lower: Float[np.ndarray, " point"]
    upper: Float[np.ndarray, " point"]


def ecdf(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " point"]:
    """Share of the values that are at most each of ``POINTS``."""
    return _counts(values) / len(values)


def band(n: int, level: float) -> Band:
    """The simultaneous band for n numbers."""
    gamma = np.quantile(_null(n), 1 - level)
    ends = [binomial_quantile(q, n, POINTS) / n for q in (gamma / 2, 1 - gamma / 2)]
    return Band(level, POINTS, *ends)


def smallest_tail(values: Float[np.ndarray, " n"]) -> float:
    """gamma of the values: small where their ECDF leaves the band."""
    return float(_gamma(_counts(values)[None], len(values))[0])


def p_value(values: Float[np.ndarray, " n"]) -> float:
    """Probability that n independent uniform numbers have a gamma this small; at least 1 / 20,001."""
    below = np.searchsorted(_null(len(values)), smallest_tail(values), side="right")
    return float((1 + below) / (1 + SIMULATIONS))


def binomial_quantile(q: float | np.ndarray, n: int, p: float | np.ndarray) -> np.ndarray:
    """Smallest count that a Binomial(n, p) does not exceed with probability q; as scipy.stats has it, which
    takes half a second to import."""
    count = np.ceil(special.bdtrik(q, n, p))
    lower = np.maximum(count - 1, 0)
    return np.where(special.bdtr(lower, n, p) >= q, lower, count)


def _counts(values: Float[np.ndarray, " n"]) -> Int[np.ndarray, " point"]:
    return np.searchsorted(np.sort(values), POINTS, side="right")


@lru_cache(maxsize=64)
def _null(n: int) -> Float[np.ndarray, " simulation"]:
    """gamma of simulated uniform numbers, sorted."""
    cells = np.random.default_rng(n).multinomial(n, np.full(CELLS, 1 / CELLS), size=SIMULATIONS)
    return np.sort(_gamma(np.cumsum(cells, axis=1)[:, :-1], n))


def _gamma(counts: Int[np.ndarray, "sample point"], n: int) -> Float[np.ndarray, " sample"]:
    below = special.bdtr(np.arange(n + 1.0)[:, None], n, POINTS)
    below = np.vstack([np.zeros(len(POINTS)), below])  # (count + 1, point)
    place = np.arange(len(POINTS))
    tails = np.minimum(below[counts + 1, place], 1 - below[counts, place])
    return np.minimum(2 * tails.min(axis=1), 1.0)
