"""Draws of the coefficients of a law of many languages, and quantiles of what may be infinite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from m3bayes.errors import LawError, M3BayesError
from m3bayes.inference.posterior import Posterior
from m3bayes.laws.law import Law

Number = float | int
Numbers = Number | Sequence[Number] | np.ndarray


def coefficients_of(post: Posterior, full: Law) -> dict[str, Float[np.ndarray, " draw"]]:
    """{coefficient of the full law: (draw,)}, dropped ones at the value that switches them off.

    Raises LawError where the posterior is of another law, or has lost its model or data term.
    """
    if post.law.name != full.name:
        raise LawError(
            f"the posterior is of law {post.law.name}; expected one of law {full.name}: fit that to the runs"
        )
    found = post.coefficients
    if missing := [name for name in ("A", "B") if name not in found]:
        raise LawError(f"law {full.name} was fitted without {missing[0]}; expected both A and B")
    off = {c.name: np.full(len(found["A"]), c.off) for c in full.coefficients if c.off is not None}
    return off | found


def positive_values(name: str, values: Numbers) -> Float[np.ndarray, " value"]:
    """One value or several, as an array. Raises M3BayesError unless all are finite and above 0."""
    try:
        array = np.atleast_1d(np.asarray(values, float))
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 1 or not array.size or not (np.isfinite(array) & (array > 0)).all():
        raise M3BayesError(f"{name} is {values!r}; expected finite numbers above 0")
    return array


def check_share(ci: Number) -> None:
    if not 0 < ci < 1:
        raise M3BayesError(f"ci is {ci}; give the share of draws in the interval, between 0 and 1, as .9")


def banded(name: str, draws: Float[np.ndarray, "draw row"], ci: Number) -> dict[str, np.ndarray]:
    """{name, name_lower, name_upper: (row,)}: median and equal-tailed interval over the draws.

    Each is one of the draws, so that infinite ones count and nothing is interpolated between them.
    """
    levels = [0.5, (1 - ci) / 2, (1 + ci) / 2]
    middle, lower, upper = np.quantile(draws, levels, axis=0, method="inverted_cdf")
    return {name: middle, f"{name}_lower": lower, f"{name}_upper": upper}


def evenly(values: np.ndarray, size: int) -> np.ndarray:
    """``size`` of the rows, evenly spaced."""
    return values[np.arange(size) * len(values) // size]


def span(values: np.ndarray) -> tuple[float, float]:
    """The ends of a range, a hair wider, so that rounding does not put a value outside."""
    return float(values.min()) * (1 - 1e-9), float(values.max()) * (1 + 1e-9)
