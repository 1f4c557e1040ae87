"""Loss at fixed compute: against epochs, and against the final ratio, for the three regimes.

C = 6 N D and D = k U / r, so k and r settle N. At each value of the horizontal axis a regime shows its
best recipe, smallest in mean loss over the grid of what is left free (r, r_f, k), within the range of the
runs in k, r and the last stage's share r / r_f (no target text before the last of two stages).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from m3bayes.errors import InfeasibleError, M3BayesError
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import predict
from m3bayes.plots.style import (
    BAND,
    LOSS,
    REGIME_NAMES,
    REGIMES,
    check_level,
    new_figure,
    percent,
    set_axis,
    short_number,
    tidy,
)
from m3bayes.runs import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Recipes = Mapping[str, np.ndarray]
Number = float | int

ALONG, FREE = 49, 17  # values along the axis, and of each variable that is optimised
EPOCHS = (1.0, 16.0)  # where the runs have one number of epochs only


def loss_against_epochs(
    post: Posterior, compute: Number, target_tokens: Number, ci: float | int = 0.9
) -> Figure:
    """Mean loss and its ``ci`` band against epochs k at ``compute`` FLOP, best r and r_f of each regime.

    ``target_tokens`` is U, in the table's units. Regimes that the runs do not have are left out. Raises
    M3BayesError where compute or target_tokens is not positive or ci not between 0 and 1.
    """
    return _figure(post, "epochs", compute, target_tokens, ci)


def loss_against_final_ratio(
    post: Posterior, compute: Number, target_tokens: Number, ci: float | int = 0.9
) -> Figure:
    """The same against the final ratio r_f, best k and r of each regime; monolingual recipes have r_f = 1.

    Raises InfeasibleError where every run is monolingual, and as :func:`loss_against_epochs`.
    """
    return _figure(post, "final_ratio", compute, target_tokens, ci)


def _figure(post: Posterior, along: str, compute: Number, target_tokens: Number, ci: float | int) -> Figure:
    figure = new_figure(6.0, 4.2)
    draw_budget(figure.subplots(), post, along, compute, target_tokens, ci)
    return figure


def draw_budget(
    axes: Axes, post: Posterior, along: str, compute: Number, target_tokens: Number, ci: float | int
) -> None:
    """One panel of either figure; ``along`` is ``epochs`` or ``final_ratio``."""
    check_level(ci)
    for name, value in (("compute", compute), ("target_tokens", target_tokens)):
        if not (np.isfinite(value) and value > 0):
            raise M3BayesError(f"{name} is {value}; expected a positive number")
    curves = _curves(post, along, compute, target_tokens, ci)
    if along == "final_ratio" and list(curves) == ["monolingual"]:
        raise InfeasibleError("every run has r = r_f = 1: there is no final ratio to draw the loss against")
    tidy(axes)
    for regime, (values, mean, lower, upper) in curves.items():
        style = REGIMES[regime]
        if len(values) == 1:
            ends = [[mean[0] - lower[0]], [upper[0] - mean[0]]]
            axes.errorbar(values, mean, ends, fmt="o", color=style["color"], label=REGIME_NAMES[regime])
        else:
            axes.fill_between(values, lower, upper, color=style["color"], alpha=BAND, linewidth=0)
            for edge in (lower, upper):
                axes.plot(values, edge, linewidth=0.7, **style)
            axes.plot(values, mean, linewidth=1.8, label=REGIME_NAMES[regime], **style)
    # losses of hopeless recipes (hundreds of epochs) must not flatten the rest
    best = min(lower.min() for _, _, lower, _ in curves.values())
    worst = max(upper.max() for _, _, _, upper in curves.values())
    axes.set_ylim(best - 0.03 * (worst - best), min(worst + 0.03 * (worst - best), 2 * best))
    set_axis(axes, "x", along)
    axes.set_ylabel(LOSS, fontsize=9)
    title = (
        f"C = {short_number(compute)} FLOP, U = {short_number(target_tokens * post.runs.unit_tokens)} tokens"
    )
    axes.set_title(f"{title}; bands: {percent(ci)} of the mean surface", fontsize=9)
    axes.legend(frameon=False, fontsize=8)


def _curves(
    post: Posterior, along: str, compute: Number, target_tokens: Number, ci: float | int
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """{regime: (values along, mean, lower, upper)} of each regime's best recipes."""
    result = {}
    for regime, (k, r, *last) in _candidates(post.runs, along).items():
        tokens = k * target_tokens / r
        params = compute / (6 * tokens * post.runs.unit_tokens) / post.runs.unit_params
        recipes = {
            "params": params,
            "target_tokens": np.full_like(k, target_tokens),
            "epochs": k,
            "target_ratio": r,
            "final_ratio": last[0] if last else r,
        }
        found = predict(post, recipes, ci=ci, new_run=False)
        order = np.lexsort((found.loss_mean, recipes[along]))
        values, first = np.unique(recipes[along][order], return_index=True)
        best = order[first]
        result[regime] = (values, found.loss_mean[best], found.loss_lower[best], found.loss_upper[best])
    return result


def _candidates(runs: Runs, along: str) -> dict[str, tuple[np.ndarray, ...]]:
    """{regime: (k, r, r_f)}, or (k, r) where r_f = r: combinations on a grid within the runs' range."""
    low, high = float(runs["epochs"].min()), float(runs["epochs"].max())
    low, high = (low, high) if high > 1.5 * low else EPOCHS
    k = np.geomspace(low, high, ALONG if along == "epochs" else 2 * FREE)
    least = float(runs["target_ratio"].min())
    result = {"monolingual": _combined(k, np.ones(1))}
    if least >= 1:
        return result
    r_f = np.linspace(least, 1.0, ALONG if along == "final_ratio" else FREE)
    result["single-stage"] = _combined(k, r_f[:-1])
    shares = runs.last_stage_share
    if (shares < 1).any():
        k, r_f, part = _combined(k, r_f[1:], np.linspace(0, 1, FREE)[:-1])
        lowest = np.minimum(np.maximum(least, shares.min() * r_f), r_f)
        result["two-stage"] = (k, lowest + part * (r_f - lowest), r_f)
    return result


def _combined(*values: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(grid.ravel() for grid in np.meshgrid(*values, indexing="ij"))
