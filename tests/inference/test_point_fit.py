"""The point fit, against scipy on the same objective written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special

from m3bayes.errors import FitError
from m3bayes.inference.point_fit import point_fit
from m3bayes.laws import chinchilla
from tests.inference import simulated

HUBER = 1e-3


def by_hand(v: np.ndarray, runs) -> float:
    """Hoffmann et al.'s objective of (a, b, e, alpha, beta)."""
    a, b, e, alpha, beta = v
    log_terms = [
        a - alpha * np.log(runs["params"]),
        b - beta * np.log(runs.target_tokens_seen),
        np.full(len(runs), e),
    ]
    return special.huber(HUBER, np.log(runs["loss"]) - special.logsumexp(log_terms, axis=0)).sum()


def test_never_worse_than_scipy_from_many_starts():
    random = np.random.default_rng(0)
    for seed in range(3):
        recipes = simulated.monolingual(50, seed)
        runs = simulated.measured(chinchilla(), simulated.CHINCHILLA, recipes, sigma=0.02, seed=seed)
        found = point_fit(runs, chinchilla())
        c = found.coefficients
        ours = by_hand(
            np.array([np.log(c["A"]), np.log(c["B"]), np.log(c["E"]), c["alpha"], c["beta"]]), runs
        )
        assert ours == pytest.approx(found.objective, rel=1e-8)
        assert found.objective == pytest.approx(special.huber(HUBER, found.residuals).sum(), rel=1e-8)
        starts = random.uniform([2, 2, -1, 0.1, 0.1], [12, 12, 1, 0.9, 0.9], (12, 5))
        best = min(optimize.minimize(by_hand, start, args=(runs,), method="L-BFGS-B").fun for start in starts)
        assert ours <= best * (1 + 1e-6)


def test_a_width_that_is_not_positive_is_refused():
    runs = simulated.measured(chinchilla(), simulated.CHINCHILLA, simulated.monolingual(20))
    with pytest.raises(FitError, match=r"huber is 0\.0"):
        point_fit(runs, chinchilla(), huber=0.0)
