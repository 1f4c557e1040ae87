"""Pooled fits: every group's coefficients beside what the groups have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m3bayes.inference.pooled import Pooled
from m3bayes.plots.style import BAND, BLUE, GREY, ORANGE, log_axis, new_figure, percent, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Number = float | int
COLUMNS = 3


def pooled_coefficients(pooled: Pooled, ci: Number = 0.9) -> Figure:
    """A panel a coefficient that is not shared: each group's median and interval, the table's units; coefficients
    that have no unit also show where a group without runs would lie."""
    names = [name for name, kind in pooled.pooling.items() if kind != "shared"]
    rows = -(-len(names) // COLUMNS)
    height = rows * (1.2 + 0.22 * len(pooled.groups))
    figure = new_figure(8.2, height)
    panels = np.ravel(figure.subplots(rows, COLUMNS, squeeze=False))
    levels = [(1 - ci) / 2, 0.5, (1 + ci) / 2]
    places = np.arange(len(pooled.groups))[::-1]
    for axes, name in zip(panels, names, strict=False):
        tidy(axes)
        values = pooled.draws[name].reshape(-1, len(pooled.groups))
        low, middle, high = np.quantile(values, levels, axis=0)
        if not pooled.law[name].at and not pooled.law[name].of_loss and name in pooled.means:
            new = pooled.new_group().draws[name]
            ends = np.quantile(new, [levels[0], levels[2]])
            axes.axvspan(*ends, color=ORANGE, alpha=BAND, linewidth=0)
        axes.errorbar(
            middle, places, xerr=np.stack([middle - low, high - middle]), fmt="o", color=BLUE, markersize=3.5,
            linewidth=1.3,
        )  # fmt: skip
        axes.set_yticks(places, pooled.groups, fontsize=8)
        unit = pooled.law[name].unit
        axes.set_xlabel(f"{name} [{'-' if unit == '1' else unit}]", fontsize=9)
        if (values > 0).all() and high.max() > 20 * low.min():
            log_axis(axes, "x")
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    last = panels[-1] if len(names) < len(panels) else None
    if last is not None:
        last.errorbar(
            [], [], xerr=[], fmt="o", color=BLUE, label=f"{pooled.by}: median, {percent(ci)} interval"
        )
        last.fill_between([], [], [], color=ORANGE, alpha=BAND, label=f"without runs, {percent(ci)}")
        last.legend(loc="center", fontsize=8, frameon=False)
    else:
        figure.suptitle(
            f"points: median and {percent(ci)} interval of each {pooled.by}; bands: one without runs",
            fontsize=8, color=GREY,
        )  # fmt: skip
    return figure
