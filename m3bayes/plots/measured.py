"""Predicted against measured: does the law describe the runs, and do new-run intervals hold them?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import predict
from m3bayes.plots.style import (
    BLUE,
    GREY,
    LIGHT,
    LOSS,
    VERMILLION,
    legend_above,
    log_axis,
    new_figure,
    percent,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def predicted_against_measured(post: Posterior, ci: float | int = 0.9) -> Figure:
    """Each run's measured loss against its interval for a new run of the same recipe, and the residuals.

    The title gives R2 in log loss (of the mean surface) and the share of runs inside their interval; runs
    outside are drawn apart. Raises M3BayesError unless 0 < ci < 1.
    """
    found = predict(post, post.runs, ci=ci)
    measured, predicted = np.asarray(post.runs["loss"]), found.loss_mean
    assert found.new_run_lower is not None and found.new_run_upper is not None
    inside = (found.new_run_lower <= measured) & (measured <= found.new_run_upper)
    total = np.sum((np.log(measured) - np.log(measured).mean()) ** 2)
    r2 = 1 - np.sum(np.log(measured / predicted) ** 2) / total if total > 0 else np.nan

    figure = new_figure(7.0, 4.0)
    left, right = figure.subplots(1, 2)
    lower, upper = found.new_run_lower, found.new_run_upper
    right.vlines(
        predicted, _percent_of(lower, predicted), _percent_of(upper, predicted), color=LIGHT, linewidth=2
    )
    groups = (
        (inside, "o", BLUE, f"inside the {percent(ci)} interval of a new run"),
        (~inside, "D", VERMILLION, "outside"),
    )
    for rows, marker, color, label in groups:
        if rows.any():
            left.vlines(measured[rows], lower[rows], upper[rows], color=color, linewidth=0.7)
            left.plot(measured[rows], predicted[rows], marker, color=color, markersize=3, label=label)
            right.plot(
                predicted[rows], _percent_of(measured, predicted)[rows], marker, color=color, markersize=3
            )
    shown = np.concatenate([measured, lower, upper])
    span = [shown.min() * 0.99, shown.max() * 1.01]
    left.plot(span, span, color=GREY, linewidth=1, linestyle=":", label="predicted = measured")
    right.axhline(0, color=GREY, linewidth=1, linestyle=":")
    left.set_xlim(span)
    left.set_ylim(span)
    right.set_xlim(predicted.min() * 0.97, predicted.max() * 1.03)
    for axes in (left, right):
        tidy(axes)
        log_axis(axes, "x")
    log_axis(left, "y")
    left.set_xlabel(f"measured {LOSS}", fontsize=9)
    left.set_ylabel(f"predicted {LOSS}", fontsize=9)
    right.set_xlabel(f"predicted {LOSS}", fontsize=9)
    right.set_ylabel("measured above predicted [%]; bars: new run", fontsize=9)
    legend_above(figure, left)
    left.set_title(f"R2 in log loss {r2:.4f}", fontsize=9)
    right.set_title(f"{inside.sum()} of {len(inside)} runs ({percent(inside.mean())}) inside", fontsize=9)
    return figure


def _percent_of(loss: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return 100 * (loss / predicted - 1)
