"""What not knowing the surface costs: regimes and regret, from the draws' own optima.

L_d(x) is the loss of recipe x in draw d, L*_d the smallest of all feasible recipes; regret is L_d(x) - L*_d.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from m3bayes.decision.faces import REGIMES, Regime
from m3bayes.decision.optimize import Optima
from m3bayes.decision.space import RECIPE

# regimes are nested: of those whose losses agree to this share, the simplest counts as best
SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Interval:
    """A quantity over the draws: mean, median, and the equal-tailed interval that was asked for."""

    mean: float
    median: float
    lower: float
    upper: float
    draws: Float[np.ndarray, " draw"] = field(repr=False)


def interval(draws: Float[np.ndarray, " draw"], ci: float) -> Interval:
    lower, median, upper = np.quantile(draws, [(1 - ci) / 2, 0.5, (1 + ci) / 2])
    return Interval(float(np.mean(draws)), float(median), float(lower), float(upper), draws)


def best_regime(found: Mapping[Regime, Optima]) -> np.ndarray:
    """(draw,) name of the simplest regime whose optimum is within SAME of the best."""
    losses = np.stack([optima.loss for optima in found.values()])  # the simplest first
    near = losses <= losses.min(axis=0) * (1 + SAME)
    return np.array(list(found))[np.argmax(near, axis=0)]


def optimum_columns(
    found: Mapping[Regime, Optima], regime: np.ndarray
) -> dict[str, Float[np.ndarray, " draw"]]:
    """N, k, r, r_f, D and the loss at each draw's optimum in its best regime."""
    result = {}
    for name in (*RECIPE, "target_tokens"):
        result[name] = np.select([regime == r for r in found], [found[r].columns[name] for r in found])
    loss = np.select([regime == r for r in found], [found[r].loss for r in found])
    tokens = result["epochs"] * result.pop("target_tokens") / result["target_ratio"]
    return {**result, "tokens": tokens, "loss": loss}


def regime_table(
    found: Mapping[Regime, Optima], excluded: Mapping[Regime, str], margin: float, ci: float
) -> pd.DataFrame:
    """One row a regime. ``probability_best``; ``gain``, the loss that its optimum saves against the simpler
    regimes' (mean and interval); ``probability_gain``, that this is more than the margin; ``excluded``, why
    it has no feasible recipe. NaN where there is nothing to compare."""
    best = best_regime(found)
    rows = {}
    simpler = None
    for regime in REGIMES:
        row = {"probability_best": float(np.mean(best == regime)), "excluded": excluded.get(regime, "")}
        if regime in found:
            loss = found[regime].loss
            if simpler is not None:
                gain = interval(simpler - loss, ci)
                row |= {"gain_mean": gain.mean, "gain_lower": gain.lower, "gain_upper": gain.upper}
                row["probability_gain"] = float(np.mean(gain.draws > margin))
            simpler = loss if simpler is None else np.minimum(simpler, loss)
        rows[regime] = row
    columns = ["probability_best", "gain_mean", "gain_lower", "gain_upper", "probability_gain", "excluded"]
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns).rename_axis("regime")
