"""A posterior predictive check: PIT values of the runs, and residuals against what they may depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m3bayes.evaluation.checks import ALPHA, LARGEST_K_HAT, LOGS, Check
from m3bayes.evaluation.uniformity import POINTS, band, ecdf
from m3bayes.plots.style import (
    AXES,
    BLUE,
    GREY,
    LIGHT,
    VERMILLION,
    legend_above,
    log_axis,
    new_figure,
    percent,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVEL = 0.95
TESTS = {"trend": "trend", "trend of spread": "spread"}
LABELS = {
    **{name: f"{label} [{unit}{', table' if name in ('params', 'target_tokens') else ''}]"
       for name, (label, unit, _) in AXES.items()},
    "last_stage_share": "last stage [share of all tokens]",
    "compute": "compute C [FLOP]",
}  # fmt: skip


def checked(check: Check) -> Figure:
    """ECDF of the PIT values with its simultaneous band, and residuals against the variables, the ones with the
    smallest p of their trend or of their spread's first; what is off is in red. Runs that lead the fit (Pareto k above
    .7) are drawn apart."""
    tests = check.table.query("test in @TESTS and about in @LABELS").sort_values(by="p")
    shown = list(tests["about"].unique())[:5]
    columns = min(3, 1 + len(shown))
    rows = -(-(1 + len(shown)) // columns)
    figure = new_figure(2.5 * columns + 0.4, 2.3 * rows + 0.3)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    _pit(axes[0], check.runs["pit"].to_numpy())
    for panel, name in zip(axes[1:], shown, strict=False):
        _residuals(panel, check, name)
        found = tests[tests["about"] == name]
        p = dict(zip(found["test"], found["adjusted"], strict=True))
        said = ", ".join(f"{word} {p[test]:.2g}" for test, word in TESTS.items() if test in p)
        color = VERMILLION if min(p.values()) < ALPHA else "black"
        panel.set_title(f"adjusted p: {said}", fontsize=8, color=color)
    for panel in axes[1 + len(shown) :]:
        panel.set_visible(False)
    legend_above(figure, axes[1] if shown else axes[0])
    return figure


def _pit(axes: Axes, pit: np.ndarray) -> None:
    expected = band(len(pit), LEVEL)
    axes.fill_between(POINTS, expected.lower - POINTS, expected.upper - POINTS, color=LIGHT)
    axes.plot(POINTS, ecdf(pit) - POINTS, color=BLUE, linewidth=1.2)
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    tidy(axes)
    axes.set_xlabel("PIT [share of predictions below]", fontsize=8)
    axes.set_ylabel("share of runs below, minus PIT", fontsize=8)
    axes.set_title(f"grey: {percent(LEVEL)} band, all points together", fontsize=8)


def _residuals(axes: Axes, check: Check, name: str) -> None:
    x, z = check.runs[name].to_numpy(), check.runs["residual"].to_numpy()
    leads = check.runs["pareto_k"].to_numpy() > LARGEST_K_HAT
    axes.axhspan(-1.96, 1.96, color=LIGHT, zorder=0, label="95 % of the runs")
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    axes.plot(x[~leads], z[~leads], "o", color=BLUE, markersize=2.5, label="runs")
    if leads.any():
        axes.plot(x[leads], z[leads], "D", color=VERMILLION, markersize=3, label="leads the fit")
    tidy(axes)
    if name in LOGS:
        log_axis(axes, "x")
    axes.set_xlabel(LABELS[name], fontsize=8)
    axes.set_ylabel("residual [normal units]", fontsize=8)
