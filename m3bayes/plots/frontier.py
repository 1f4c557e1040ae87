"""The mean-CVaR frontier: what the worst draws gain by caution, and what that costs on average."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m3bayes.plots.style import BLUE, GREY, new_figure, short_number, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from m3bayes.decision.frontier import Frontier


# labels are kept this share of the figure apart
APART = 0.08


def mean_cvar_frontier(frontier: Frontier) -> Figure:
    """CVaR of the regret against its mean, a point a recipe, each with its weight of the tail, N and k."""
    figure = new_figure(5.5, 4.0)
    axes = figure.subplots()
    tidy(axes)
    table = frontier.table
    axes.plot(
        table["mean"],
        table["cvar"],
        color=BLUE,
        marker="o",
        markersize=5,
        label="recipes that none beats in both",
    )
    for i in labelled(table[["mean", "cvar"]].to_numpy()):
        row = table.iloc[i]
        label = f"w = {row['weight']:g}: N = {row['params']:.3g}, k = {row['epochs']:.3g}"
        place = (row["mean"], row["cvar"])
        axes.annotate(label, place, (6, 4), textcoords="offset points", fontsize=7, color=GREY)
    axes.margins(x=0.12, y=0.12)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.4 * (high - low))  # room for the last label
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("mean regret [unit of the table's loss]", fontsize=9)
    axes.set_ylabel(f"mean of the worst {1 - frontier.level:.0%} of the draws [same unit]", fontsize=9)
    budget = f"{short_number(frontier.compute)} FLOP, U = {short_number(frontier.target_tokens)}"
    axes.set_title(f"{budget} target tokens (table's unit)", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    return figure


def labelled(points: np.ndarray) -> list[int]:
    """Rows (x, y) that can have a label without covering the one before: the ends, and what is far enough from them
    and from each other, as a share of the whole extent."""
    scaled = points / np.maximum(np.ptp(points, axis=0), 1e-300)
    last, kept = len(points) - 1, [0]
    for i in range(1, last + 1):
        beside = [kept[-1]] if i == last else [kept[-1], last]
        if i == last or min(np.abs(scaled[i] - scaled[j]).max() for j in beside) > APART:
            kept.append(i)
    return kept
