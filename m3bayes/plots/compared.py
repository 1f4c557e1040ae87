"""Laws compared: how far each is behind the best in predicting runs that were left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m3bayes.evaluation.compare import TIE, Comparison
from m3bayes.plots.style import BLUE, GREY, legend_above, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compared(result: Comparison) -> Figure:
    """Difference in elpd to the best law with its standard error, best on top; stacking weights at the right.

    A hollow dot is within two standard errors of the best. Laws whose fit failed are named and have no dot.
    """
    table = result.table
    figure = new_figure(6.4, 0.4 * len(table) + 1.4)
    axes = figure.subplots()
    place = -np.arange(len(table))
    difference, error = table["difference"].to_numpy(), table["difference_se"].to_numpy()
    behind = (difference < 0) & ~(difference >= -TIE * error)
    axes.hlines(
        place, difference - error, difference + error, color=BLUE, linewidth=1.2, label="1 standard error"
    )
    for rows, fill, label in (
        (~behind, "white", f"best, or within {TIE:g} standard errors of it"),
        (behind, BLUE, "behind"),
    ):
        if rows.any():
            axes.plot(
                difference[rows],
                place[rows],
                "o",
                color=BLUE,
                markerfacecolor=fill,
                markersize=5,
                label=label,
            )
    axes.axvline(0, color=GREY, linewidth=1, linestyle=":")
    tidy(axes)
    names = [
        law if verdict == "passed" else f"{law} ({verdict})"
        for law, verdict in zip(table["law"], table["verdict"], strict=True)
    ]
    axes.set_yticks(place, names, fontsize=8)
    axes.set_ylim(-len(table) + 0.4, 0.6)
    right = axes.get_yaxis_transform()
    for y, weight in zip(place, table["weight"], strict=True):
        if np.isfinite(weight):
            axes.text(1.02, float(y), f"{weight:.2f}", transform=right, va="center", fontsize=8, color=GREY)
    axes.text(1.02, 0.6, "stacking\nweight", transform=right, va="bottom", fontsize=7, color=GREY)
    axes.set_xlabel(f"elpd above that of {table['law'][0]} [nats]\n{result.method}", fontsize=9)
    axes.set_ylabel("law [by elpd]", fontsize=9)
    legend_above(figure, axes)
    return figure
