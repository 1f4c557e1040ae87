"""Guidelines: which regime is best at which budget, how many epochs, and what model size.

Bounds shape every one of them: where the runs' range ends, the optimum does. Widen bounds to ask the law
beyond the runs; a note then says so.

| symbol | meaning | unit |
|---|---|---|
| C, U = D_T | compute, unique target tokens | FLOP, table's |
| x = D_T / D*(C) | scarcity: target text over the compute-optimal amount of fresh text | - |
| f, g | by what two-stage, and monolingual training, win over the others: > 0 where they do | table's loss |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from m3bayes.decision.budgets import (
    CostLike,
    Found,
    Grid,
    Number,
    Request,
    along_text,
    check_feasible,
    fresh,
    increasing,
    regime_optima,
    request,
)
from m3bayes.decision.collapse import Collapse, ModelSize, epochs, model_size
from m3bayes.decision.constraints import Constraint
from m3bayes.decision.faces import REGIMES
from m3bayes.decision.regret import SAME
from m3bayes.decision.space import Bounds, check_numbers
from m3bayes.decision.thresholds import at, last_fall, refined, signed_distance
from m3bayes.errors import Note, RecipeError, unique_notes
from m3bayes.inference.posterior import Posterior

__all__ = ["Collapse", "ModelSize", "RegimeMap", "Threshold", "epochs", "model_size", "regimes"]

# nodes along log C and log D_T where optima are computed, and halvings of the gaps where a regime takes over
COMPUTE_NODES, TEXT_NODES, HALVINGS = 13, 7, 3
# share of the draws that change regime more than once, from which on a note says so
SEVERAL = 0.1
# points along log D_T at which regimes are told apart
FINE = 193


@dataclass(frozen=True, eq=False)
class Threshold:
    """D_T below which two-stage training is best, at each compute: medians and equal-tailed intervals.

    ``draws``  (draw, compute), 0 where two-stage is best nowhere in the range asked for, inf where it is at
               its upper end; quantiles are draws, so that they may be 0 or inf too
    ``scarcity*``  the same as D_T / D*(C), D* the draw's own
    ``below``, ``above``  share of the draws whose threshold is below, above the range
    ``one_crossing``  share of the draws with a single change of regime inside the range
    """

    target_tokens: Float[np.ndarray, " compute"]
    lower: Float[np.ndarray, " compute"]
    upper: Float[np.ndarray, " compute"]
    scarcity: Float[np.ndarray, " compute"]
    scarcity_lower: Float[np.ndarray, " compute"]
    scarcity_upper: Float[np.ndarray, " compute"]
    below: Float[np.ndarray, " compute"]
    above: Float[np.ndarray, " compute"]
    one_crossing: Float[np.ndarray, " compute"]
    draws: Float[np.ndarray, "draw compute"] = field(repr=False)


@dataclass(frozen=True, eq=False)
class RegimeMap:
    """Which regime is best over a grid of C (FLOP) and D_T (table's unit).

    ``probability``  {regime: (compute, target_tokens)}, NaN where no recipe is feasible there or beside it
    ``threshold``    where two-stage training stops being best
    """

    compute: Float[np.ndarray, " compute"]
    target_tokens: Float[np.ndarray, " text"]
    probability: Mapping[str, Float[np.ndarray, "compute text"]]
    threshold: Threshold
    unit_tokens: float
    margin: float
    ci: float
    notes: tuple[Note, ...]

    def frame(self) -> pd.DataFrame:
        """One row a cell: compute, target_tokens, probability_monolingual, _single_stage, _two_stage, and
        the threshold at that compute with its interval."""
        C, U = (grid.ravel() for grid in np.meshgrid(self.compute, self.target_tokens, indexing="ij"))
        table = pd.DataFrame({"compute": C, "target_tokens": U})
        for regime, probability in self.probability.items():
            table[f"probability_{regime.replace('-', '_')}"] = probability.ravel()
        repeated = {
            name: np.repeat(values, len(self.target_tokens)) for name, values in self._curve().items()
        }
        return table.assign(**repeated)

    def threshold_frame(self) -> pd.DataFrame:
        """One row a compute: the threshold, in tokens and as scarcity, with its interval."""
        return pd.DataFrame({"compute": self.compute, **self._curve()})

    def _curve(self) -> dict[str, np.ndarray]:
        found = self.threshold
        return {
            "threshold": found.target_tokens,
            "threshold_lower": found.lower,
            "threshold_upper": found.upper,
            "scarcity": found.scarcity,
            "scarcity_lower": found.scarcity_lower,
            "scarcity_upper": found.scarcity_upper,
            "below": found.below,
            "above": found.above,
        }


def regimes(
    post: Posterior,
    compute: Grid,
    target_tokens: Grid,
    *,
    ci: float = 0.9,
    bounds: Bounds | None = None,
    cost: CostLike | None = None,
    freeze: Mapping[str, Number] | None = None,
    constraints: Sequence[Constraint] = (),
    margin: Number = 0.0,
    report: Callable[[int, int], None] | None = None,
) -> RegimeMap:
    """The probability of each regime to be best over a grid, and the D_T below which two stages are.

    ``compute``        FLOP, increasing
    ``target_tokens``  D_T in the table's unit of tokens, increasing
    ``bounds``, ``cost``, ``freeze``, ``constraints``   as in :func:`m3bayes.recommend`; by default the range of the
                       runs, which shapes the map: a regime is best where the bounds leave it the most room.
                       Further budgets take longer, compiled anew for every compute; D*(C) is without them
    ``margin``         loss that a regime must save against the simpler ones to be best, in the table's unit
    ``report``         called with (values of compute done, all)

    Best is the simplest regime within the margin of the lowest loss, each regime at its own optimum, in each
    of at most 1000 draws. Optima are computed at up to 13 values of C and 7 of D_T, and between those of D_T
    where a regime takes over; where it does is interpolated, in logs. Without a feasible recipe a regime loses.

    Notes as in :func:`m3bayes.recommend`, and SEVERAL_CROSSINGS. Raises RecipeError for grids that do not
    increase, InfeasibleError where no cell has a feasible recipe.
    """
    C, U = increasing("compute", compute), increasing("target_tokens", target_tokens)
    check_numbers(ci=ci, margin=margin)
    if not (0 < ci < 1 and 0 <= margin < math.inf):
        raise RecipeError(f"ci is {ci} and margin {margin}; expected 0 < ci < 1 and a loss, 0 or more")
    asked = request(post, cost, bounds, freeze, constraints=constraints)
    check_feasible(asked, C, U)
    log_C, log_U = np.log(C), np.log(U)
    nodes = log_C if len(C) <= COMPUTE_NODES else np.linspace(log_C[0], log_C[-1], COMPUTE_NODES)
    log_D = np.stack([np.log(fresh(asked, math.exp(node))[0]) for node in nodes])
    # what enters the range between two nodes must be seen before it does
    beyond = np.max(np.diff(np.median(log_D, axis=1)), initial=0.0)
    ends = log_U[0] - beyond, log_U[-1] + beyond
    fine = np.union1d(np.linspace(*ends, FINE), log_U) if ends[0] < ends[1] else log_U
    of_nodes = []
    for node in nodes:
        of_nodes.append(_distances_at(asked, math.exp(node), fine, float(margin)))
        if report is not None:
            report(len(of_nodes), len(nodes))
    distances = np.stack(of_nodes)
    cells = np.searchsorted(fine, log_U)
    probability = np.full((3, len(C), len(U)), np.nan)
    threshold = np.empty((distances.shape[-1], len(C)))
    crossings = np.empty((distances.shape[-1], len(C)), int)
    for i, node in enumerate(log_C):
        f, g = np.moveaxis(at(nodes, distances, np.array([node]))[0, cells[0] : cells[-1] + 1], 1, 0)
        threshold[:, i], crossings[:, i] = last_fall(fine[cells[0] : cells[-1] + 1], f)
        f, g = f[cells - cells[0]], g[cells - cells[0]]
        feasible = ~np.isnan(f).any(axis=1)
        two, alone = np.mean(f > 0, axis=1), np.mean(g > 0, axis=1)
        probability[:, i, feasible] = np.stack([alone, 1 - alone - two, two])[:, feasible]
    D_star = np.exp(at(nodes, log_D, log_C)).T
    return RegimeMap(
        compute=C,
        target_tokens=U,
        probability=dict(zip(REGIMES, probability, strict=True)),
        threshold=_threshold(np.exp(threshold), crossings, D_star, ci),
        unit_tokens=float(post.runs.unit_tokens),
        margin=float(margin),
        ci=ci,
        notes=unique_notes([*asked.notes(C, U), *_several(C, crossings)]),
    )


def _several(compute: np.ndarray, crossings: np.ndarray) -> list[Note]:
    """A note where many draws change between two stages and simpler regimes more than once."""
    share = np.mean(crossings > 1, axis=0)
    if not np.any(share > SEVERAL):
        return []
    worst = int(np.argmax(share))
    said = (
        f"in {share[worst]:.0%} of the draws at {compute[worst]:.3g} FLOP two stages are not best everywhere below the "
        "threshold, which is the highest D_T at which they stop being best: see the probabilities"
    )
    return [Note("SEVERAL_CROSSINGS", said, ("target_tokens",))]


def _distances_at(
    asked: Request, compute: float, fine: Float[np.ndarray, " fine"], margin: float
) -> Float[np.ndarray, "fine function draw"]:
    """How far along log D_T each point lies inside (> 0) or outside where two-stage, and monolingual, are best."""
    coarse = np.linspace(fine[0], fine[-1], TEXT_NODES) if len(fine) > 1 else fine
    known = dict(zip(coarse, along_text(asked, compute, np.exp(coarse)), strict=True))
    draws = len(next(iter(asked.coefficients.values())))

    def between(u: float) -> np.ndarray:
        near = [known[max(v for v in known if v < u)], known[min(v for v in known if v > u)]]
        known[u] = regime_optima(asked, asked.at(compute, math.exp(u)), near)
        return _wins(known[u], draws, margin)

    values = np.stack([_wins(found, draws, margin) for found in known.values()])
    return signed_distance(fine, at(*refined(between, coarse, values, HALVINGS), fine))


def _wins(found: Found, draws: int, margin: float) -> Float[np.ndarray, "function draw"]:
    """f, by what two-stage saves more than the margin against the simpler regimes, and g, by what
    monolingual loses less than the margin against the others; NaN where nothing is feasible."""
    if not found:
        return np.full((2, draws), np.nan)
    lost = np.full(draws, np.inf)
    alone, single, two = (found[regime].loss if regime in found else lost for regime in REGIMES)
    best = np.minimum(np.minimum(alone, single), two)
    slack = margin + SAME * best
    with np.errstate(invalid="ignore"):
        f = np.minimum(alone, single) - two - slack
        g = np.minimum(single, two) + slack - alone
    # a tenth of the loss stands in for what infeasible regimes lose by
    most = 0.1 * np.abs(best)
    return np.clip(np.stack([f, g]), -most, most)


def _threshold(draws: np.ndarray, crossings: np.ndarray, D_star: np.ndarray, ci: float) -> Threshold:
    """``draws``, ``crossings`` and ``D_star`` are (draw, compute)."""
    probabilities = [0.5, (1 - ci) / 2, (1 + ci) / 2]
    quantiles, scarcity = (
        np.quantile(values, probabilities, axis=0, method="inverted_cdf")
        for values in (draws, draws / D_star)
    )
    return Threshold(
        *quantiles,
        *scarcity,
        below=np.mean(draws == 0, axis=0),
        above=np.mean(np.isinf(draws), axis=0),
        one_crossing=np.mean(crossings == 1, axis=0),
        draws=draws,
    )
