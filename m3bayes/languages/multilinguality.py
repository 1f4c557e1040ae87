"""What more languages cost at equal loss.

    from K to rho K languages:  N x rho^(phi / alpha),  all tokens x rho^(1 + psi / beta),  compute x their product

These keep both terms of the multilingual law as they are. The law is the same function of N K^(-phi/alpha) and
D K^(-psi/beta) for any K, so the best split of compute moves by the same factors: they are the cheapest too.
Longpre et al. 2026, arXiv 2510.22037.

| symbol | meaning | unit |
|---|---|---|
| K, rho | languages sampled alike, and how many times as many | - |
| N, D | parameters; tokens of one language, K D of all | table's |
| alpha, beta, phi, psi | exponents of :mod:`m3bayes.laws.multilingual` | - |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from m3bayes.decision.regret import Interval, interval
from m3bayes.errors import M3BayesError, Note
from m3bayes.inference.posterior import Posterior
from m3bayes.languages.draws import (
    Number,
    Numbers,
    banded,
    check_share,
    coefficients_of,
    positive_values,
    span,
)
from m3bayes.laws.multilingual import multilingual
from m3bayes.laws.published import published

QUANTITIES = ("params", "tokens", "compute")


@dataclass(frozen=True, eq=False)
class EqualLoss:
    """What ``times`` as many languages take at equal loss, as factors.

    ``table``   one row each of ``times``: factors of ``params``, of all ``tokens`` and of ``compute`` (medians),
                each with ``_lower`` and ``_upper``, the equal-tailed interval holding ``ci`` of the draws
    ``exponents``  {params, tokens, compute: the power of rho that its factor is}
    """

    table: pd.DataFrame
    exponents: dict[str, Interval]
    ci: Number
    notes: tuple[Note, ...]


def equal_loss(post: Posterior, times: Numbers = 4, *, ci: Number = 0.9) -> EqualLoss:
    """Factors of N, all tokens and compute that ``times`` as many languages take at equal loss.

    ``post`` is of the law ``multilingual``. Notes: EXTRAPOLATION where ``times`` goes beyond the range of
    languages among the runs, and those of the fit about the exponents. Raises LawError for another law,
    M3BayesError for times that are not above 0 or beyond what numbers hold, or a ci that is no share.
    """
    check_share(ci)
    rho = positive_values("times", times)
    c = coefficients_of(post, multilingual())
    size, tokens = c["phi"] / c["alpha"], 1 + c["psi"] / c["beta"]
    exponents = dict(zip(QUANTITIES, (size, tokens, size + tokens), strict=True))
    table = {"times": rho}
    with np.errstate(over="ignore"):
        factors = {name: rho ** exponent[:, None] for name, exponent in exponents.items()}
    for name, factor in factors.items():
        if not np.isfinite(factor).all():
            raise M3BayesError(f"times is {times!r}: the factor of {name} is beyond all numbers; give fewer")
        table |= banded(name, factor, ci)
    about = {"alpha", "beta", "phi", "psi"}
    kept = [note for note in post.notes if about & set(note.about)]
    return EqualLoss(
        table=pd.DataFrame(table),
        exponents={name: interval(exponent, ci) for name, exponent in exponents.items()},
        ci=ci,
        notes=(*_beyond(post, rho), *kept),
    )


def published_equal_loss(times: Numbers = 4) -> pd.DataFrame:
    """The factors as published for 1 to 400 languages: times, params, tokens, compute."""
    rho = positive_values("times", times)
    c = published("atlas_multilinguality").coefficients
    size, tokens = rho ** c["size_exponent"], rho ** c["tokens_exponent"]
    return pd.DataFrame({"times": rho, "params": size, "tokens": tokens, "compute": size * tokens})


def _beyond(post: Posterior, rho: np.ndarray) -> list[Note]:
    low, high = span(post.runs["languages"])
    far = np.maximum(rho, 1 / rho)
    if not (far > high / low).any():
        return []
    message = (
        f"{far.max():.4g} times as many languages, or as few, is more than the runs tell of: they have "
        f"{low:.4g} to {high:.4g}"
    )
    return [Note("EXTRAPOLATION", message, ("languages",))]
