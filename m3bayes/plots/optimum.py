"""Where the draws' own optima lie, and the recipe that was recommended for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m3bayes.plots.style import (
    AXES,
    GREY,
    SKY,
    VERMILLION,
    legend_above,
    log_axis,
    new_figure,
    percent,
    set_axis,
    short_number,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from m3bayes.decision import Recommendation
    from m3bayes.runs import Runs

VARIABLES = ("params", "epochs", "target_ratio", "final_ratio")
BINS = 30
ONE_POINT = 1e-6  # draws this close together (relatively) are one point, a corner or a bound
NOTEWORTHY = 0.02  # share of the draws from which on such a point is named


def optimum_posterior(recommendation: Recommendation) -> Figure:
    """Marginals of the per-draw optimal N, k, r and r_f, with the recommended recipe marked.

    Optima pile up exactly at corners (k = 1, r = 1) and bounds; the share of the draws there is written.
    """
    figure = new_figure(7.0, 5.0)
    panels = figure.subplots(2, 2).ravel()
    for axes, name in zip(panels, VARIABLES, strict=True):
        draw_marginal(axes, name, recommendation)
    legend_above(figure, panels[0])
    return figure


def draw_marginal(axes: Axes, name: str, recommendation: Recommendation, runs: Runs | None = None) -> None:
    """Histogram of the draws' optimal ``name``, the recommended value as a line; ``runs`` know the unit."""
    draws = np.asarray(recommendation.optimum.draws[name])
    chosen = float(getattr(recommendation.recipe, name))
    log = AXES[name][2]
    tidy(axes)
    axes.grid(False, axis="y")
    axes.hist(
        draws, _bins(np.append(draws, chosen), log), weights=np.full(len(draws), 1 / len(draws)),
        color=SKY, edgecolor="white", linewidth=0.3, label="each draw's own optimum",
    )  # fmt: skip
    axes.axvline(chosen, color=VERMILLION, linewidth=2, label="recommended for all draws")
    axes.set_ylabel("share of the draws", fontsize=9)
    set_axis(axes, "x", name, runs)
    if log:
        log_axis(axes, "x")
    value, share = _heaviest_point(draws)
    if share >= NOTEWORTHY:
        text = f"{percent(share)} at {short_number(value)}"
        axes.set_title(text, fontsize=8, color=GREY, loc="right")


def _bins(values: np.ndarray, log: bool) -> list[float]:
    low, high = values.min(), values.max()
    if log:
        low, high = (low, high) if high > 1.02 * low else (low / 1.2, high * 1.2)
        return np.geomspace(low, high * (1 + 1e-12), BINS + 1).tolist()
    low, high = (low, high) if high - low > 0.01 else (max(low - 0.1, 0.0), min(high + 0.1, 1.0))
    return np.linspace(low, high, BINS + 1).tolist()


def _heaviest_point(draws: np.ndarray) -> tuple[float, float]:
    """The value that most draws share, and their share."""
    ordered = np.sort(draws)
    starts = np.flatnonzero(np.append(True, np.diff(ordered) > ONE_POINT * np.abs(ordered[1:])))
    counts = np.diff(np.append(starts, len(ordered)))
    heaviest = int(np.argmax(counts))
    return float(ordered[starts[heaviest]]), float(counts[heaviest] / len(draws))
