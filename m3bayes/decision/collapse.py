"""Do best epochs, and best model size, depend on scarcity alone?

At P = 0, C = 6 N D and without bounds, every optimum of M3 depends on U and C only through x = U / D*(C).
Elsewhere it is a question, answered here by numbers with intervals.

| symbol | meaning | unit |
|---|---|---|
| C, U = D_T | compute, unique target tokens | FLOP, table's |
| D*(C), N*(C) | compute-optimal tokens and size of monolingual training without repetition | table's |
| x = D_T / D*(C) | scarcity | - |
| k*, N* | epochs, parameters of a draw's best recipe over all regimes | -, table's |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    request,
)
from m3bayes.decision.constraints import Constraint
from m3bayes.decision.regret import Interval, best_regime, interval, optimum_columns
from m3bayes.decision.space import ROUNDING, Bounds, check_numbers
from m3bayes.errors import Note, RecipeError, unique_notes
from m3bayes.inference.posterior import Posterior

# points of the scarcity axis at which curves of different compute are compared
COMMON = 33
# draws: spreads and ratios need fewer than probabilities
DRAWS = 256


@dataclass(frozen=True, eq=False)
class Collapse:
    """Best epochs against scarcity over a grid of C (FLOP) and D_T (table's unit).

    ``epochs``     (draw, compute, text) best k of each draw, NaN where no recipe is feasible
    ``scarcity``   (draw, compute, text) x = D_T / D*(C), D* the draw's own
    ``spread``     root mean square, over x, of the standard deviation of log k* over C at equal x, as a share
                   of the range of log k*: 0 = one curve. None where no x is common to all C of a draw
    ``rule_error`` root mean square of log(k* D_T / D*(C)): how far the rule k* = D*(C) / D_T is off
    ``at_bound``   share of the optima whose k is at a bound on k, which breaks any law of its own
    ``table``      one row a cell: compute, target_tokens, scarcity and epochs (median, lower, upper), rule
    """

    compute: Float[np.ndarray, " compute"]
    target_tokens: Float[np.ndarray, " text"]
    epochs: Float[np.ndarray, "draw compute text"] = field(repr=False)
    scarcity: Float[np.ndarray, "draw compute text"] = field(repr=False)
    spread: Interval | None
    rule_error: Interval
    at_bound: float
    table: pd.DataFrame
    ci: float
    notes: tuple[Note, ...]


@dataclass(frozen=True, eq=False)
class ModelSize:
    """Best model size as a share of the monolingual compute-optimal N*(C), over a grid.

    ``ratio``      (draw, compute, text), NaN where no recipe is feasible
    ``at_bound``   share of the optima whose N is at a bound on N
    ``table``      one row a cell: compute, target_tokens, scarcity (median), ratio (median, lower, upper)
    """

    compute: Float[np.ndarray, " compute"]
    target_tokens: Float[np.ndarray, " text"]
    ratio: Float[np.ndarray, "draw compute text"] = field(repr=False)
    at_bound: float
    table: pd.DataFrame
    ci: float
    notes: tuple[Note, ...]


def epochs(
    post: Posterior,
    compute: Grid,
    target_tokens: Grid,
    *,
    ci: float = 0.9,
    bounds: Bounds | None = None,
    cost: CostLike | None = None,
    freeze: Mapping[str, Number] | None = None,
    constraints: Sequence[Constraint] = (),
) -> Collapse:
    """Best epochs against x = D_T / D*(C), how well they lie on one curve, and the rule k* = D*(C) / D_T.

    Arguments as in :func:`m3bayes.decision.guidelines.regimes`; every cell is optimised, in at most 256 draws.
    Raises RecipeError for grids that do not increase, InfeasibleError where no cell has a feasible recipe.
    """
    cells = _cells(post, compute, target_tokens, ci, bounds, cost, freeze, constraints)
    k, x = cells.best["epochs"], cells.target_tokens / cells.fresh[0][:, :, None]
    spread = _spread(np.log(x), np.log(k))
    table = cells.table(scarcity=x, epochs=k)
    table["rule"] = 1 / table["scarcity"]
    error = np.sqrt(np.nanmean(np.log(k * x) ** 2, axis=(1, 2)))
    return Collapse(
        compute=cells.compute,
        target_tokens=cells.target_tokens,
        epochs=k,
        scarcity=x,
        spread=None if np.isnan(spread).any() else interval(spread, ci),
        rule_error=interval(error, ci),
        at_bound=cells.at_bound("epochs"),
        table=table,
        ci=ci,
        notes=cells.notes,
    )


def model_size(
    post: Posterior,
    compute: Grid,
    target_tokens: Grid,
    *,
    ci: float = 0.9,
    bounds: Bounds | None = None,
    cost: CostLike | None = None,
    freeze: Mapping[str, Number] | None = None,
    constraints: Sequence[Constraint] = (),
) -> ModelSize:
    """Is the best N the monolingual compute-optimal N*(C), whatever D_T? Their ratio, with its interval.

    Arguments and errors as in :func:`epochs`.
    """
    cells = _cells(post, compute, target_tokens, ci, bounds, cost, freeze, constraints)
    D_star, N_star = cells.fresh
    ratio = cells.best["params"] / N_star[:, :, None]
    return ModelSize(
        compute=cells.compute,
        target_tokens=cells.target_tokens,
        ratio=ratio,
        at_bound=cells.at_bound("params"),
        table=cells.table(scarcity=cells.target_tokens / D_star[:, :, None], ratio=ratio),
        ci=ci,
        notes=cells.notes,
    )


@dataclass(frozen=True, eq=False)
class _Cells:
    """``best`` {params, epochs: (draw, compute, text)} of each draw's best recipe; ``fresh`` D* and N*,
    (draw, compute) each; ``ends`` {variable: (low, high)}."""

    compute: np.ndarray
    target_tokens: np.ndarray
    best: Mapping[str, np.ndarray]
    fresh: tuple[np.ndarray, np.ndarray]
    ends: Mapping[str, tuple[float, float]]
    ci: float
    notes: tuple[Note, ...]

    def at_bound(self, name: str) -> float:
        values, (low, high) = self.best[name], self.ends[name]
        there = (values <= low * (1 + 1e3 * ROUNDING)) | (values >= high * (1 - 1e3 * ROUNDING))
        return float(np.mean(there[~np.isnan(values)]))

    def table(self, **columns: np.ndarray) -> pd.DataFrame:
        """Median and interval of each (draw, compute, text) column, a row a cell; the median has its name."""
        C, U = (grid.ravel() for grid in np.meshgrid(self.compute, self.target_tokens, indexing="ij"))
        table = pd.DataFrame({"compute": C, "target_tokens": U})
        for name, values in columns.items():
            probabilities = [0.5, (1 - self.ci) / 2, (1 + self.ci) / 2]
            quantiles = np.quantile(values, probabilities, axis=0).reshape(3, -1)
            table[name], table[f"{name}_lower"], table[f"{name}_upper"] = quantiles
        return table


def _cells(
    post: Posterior,
    compute: Grid,
    target_tokens: Grid,
    ci: float,
    bounds: Bounds | None,
    cost: CostLike | None,
    freeze: Mapping[str, Number] | None,
    constraints: Sequence[Constraint],
) -> _Cells:
    C, U = increasing("compute", compute), increasing("target_tokens", target_tokens)
    check_numbers(ci=ci)
    if not 0 < ci < 1:
        raise RecipeError(f"ci is {ci}; expected a probability between 0 and 1")
    asked = request(post, cost, bounds, freeze, DRAWS, constraints)
    check_feasible(asked, C, U)
    found = [[_best(asked, cell) for cell in along_text(asked, compute, U)] for compute in C]
    best = {
        name: np.moveaxis(np.array([[cell[name] for cell in row] for row in found]), -1, 0)
        for name in ("params", "epochs")
    }
    D_star, N_star = (np.stack(values, axis=1) for values in zip(*(fresh(asked, c) for c in C), strict=True))
    space = asked.at(C[0], U[0])
    return _Cells(
        compute=C,
        target_tokens=U,
        best=best,
        fresh=(D_star, N_star),
        ends={name: (space[name].low, space[name].high) for name in best},
        ci=ci,
        notes=unique_notes(asked.notes(C, U)),
    )


def _best(asked: Request, found: Found) -> dict[str, np.ndarray]:
    if not found:
        nothing = np.full(len(next(iter(asked.coefficients.values()))), np.nan)
        return {"params": nothing, "epochs": nothing}
    return optimum_columns(found, best_regime(found))


def _spread(log_x: np.ndarray, log_k: np.ndarray) -> Float[np.ndarray, " draw"]:
    """Of each draw, from (draw, compute, text); NaN where its curves have no x in common."""
    from scipy.interpolate import PchipInterpolator  # slow to import

    result = np.full(len(log_k), np.nan)
    for draw, (x, k) in enumerate(zip(log_x, log_k, strict=True)):
        fine = [~np.isnan(row) for row in k]
        if min(map(np.sum, fine)) < 2:
            continue
        low = max(row[inside][0] for row, inside in zip(x, fine, strict=True))
        high = min(row[inside][-1] for row, inside in zip(x, fine, strict=True))
        if low >= high:
            continue
        common = np.linspace(low, high, COMMON)
        curves = np.stack(
            [PchipInterpolator(x[i][inside], k[i][inside])(common) for i, inside in enumerate(fine)]
        )
        size = np.ptp(curves.mean(axis=0))
        result[draw] = np.sqrt(np.mean(curves.std(axis=0) ** 2)) / size if size > 0 else 0.0
    return result
