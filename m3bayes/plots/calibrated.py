"""A calibration: ranks of the truth among posterior draws, quantity by quantity, and coverage of intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m3bayes.evaluation.calibrate import ALPHA, LEVELS, Calibration
from m3bayes.evaluation.uniformity import CELLS, POINTS, band, ecdf
from m3bayes.plots.style import BLUE, GREY, LIGHT, VERMILLION, legend_above, new_figure, percent, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4


def calibrated(found: Calibration) -> Figure:
    """One panel a quantity: ECDF of the truth's ranks minus that of uniform ranks, with the band that holds all
    quantities together with probability 95 % (Bonferroni); quantities outside in another colour. The last
    panel has the coverage of intervals against their level. Needs at least one fit."""
    names = list(found.table.index)
    rows = -(-(len(names) + 1) // COLUMNS)
    figure = new_figure(8.0, 1.6 * rows + 0.7)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    fitted = int(found.ranks.notna().any(axis=1).sum())
    expected = band(fitted, 1 - ALPHA / len(names))
    for panel, name in zip(axes, names, strict=False):
        ranks = (found.ranks[name].dropna().to_numpy() + 0.5) / CELLS
        fine = bool(found.table.loc[name, "uniform"])
        panel.fill_between(
            POINTS, expected.lower - POINTS, expected.upper - POINTS, color=LIGHT,
            label=f"{percent(1 - ALPHA)} band, all points and quantities together",
        )  # fmt: skip
        panel.plot(
            POINTS, ecdf(ranks) - POINTS, color=BLUE if fine else VERMILLION, linewidth=1.2, label="truths"
        )
        panel.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
        panel.set_title(name, fontsize=8)
        tidy(panel)
    last = axes[len(names)]
    last.fill_between(
        LEVELS, *np.array([found.coverage_range[level] for level in LEVELS]).T - np.array(LEVELS), color=LIGHT
    )
    for name in names:
        held = [found.table.loc[name, f"coverage_{100 * level:.0f}"] - level for level in LEVELS]
        color = BLUE if found.table.loc[name, "covered"] else VERMILLION
        last.plot(LEVELS, held, "o-", color=color, markersize=2.5, linewidth=0.7)
    last.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    last.set_title("intervals, a line a quantity", fontsize=8)
    last.set_xlabel("level [share]", fontsize=8)
    last.set_ylabel("coverage - level", fontsize=8)
    tidy(last)
    for panel in axes[len(names) + 1 :]:
        panel.set_visible(False)
    legend_above(figure, axes[0])
    figure.supxlabel("rank of the truth among 99 posterior draws [share]", fontsize=8)
    figure.supylabel("share of truths below, minus rank", fontsize=8)
    return figure
