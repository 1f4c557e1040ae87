"""Held-out runs: predicted against measured law by law, and whether the intervals hold what they say."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from m3bayes.evaluation.rollout import Rollout
from m3bayes.evaluation.scores import BINOMIAL, binomial_range
from m3bayes.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LIGHT,
    LOSS,
    ORANGE,
    SKY,
    VERMILLION,
    log_axis,
    new_figure,
    percent,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# colour and marker or dashes, so that neither has to be told apart by colour alone
COLORS = (BLUE, VERMILLION, GREEN, ORANGE, SKY, BLACK)
MARKERS, DASHES = ("o", "s", "^", "D", "v", "P"), ("-", "--", "-.", ":")
ACROSS = 3  # panels in a row
PANEL = 2.6  # inches
LEVELS = np.linspace(0.02, 0.98, 49)


def rolled_out(result: Rollout) -> Figure:
    """Above, a panel a law: each held-out run's measured loss against its predicted one, with the interval of a
    new run. Below, a panel a split: the share of the runs inside their interval against its level.

    The grey band holds that share with 95 % probability where the intervals are right. Loss axes show all
    measured and predicted losses; bars may leave them.
    """
    laws, names = list(dict.fromkeys(result.runs["law"])), list(dict.fromkeys(result.runs["split"]))
    above, below = (-(-len(panels) // ACROSS) for panels in (laws, names))
    across = min(max(len(laws), len(names)), ACROSS)
    figure = new_figure(PANEL * across + 0.8, PANEL * (above + below) + 1.2)
    top, bottom = (
        figure.add_subfigure(part) for part in figure.add_gridspec(2, 1, height_ratios=[above, below])
    )
    markers = _styles(names, MARKERS)
    dashes = _styles(laws, DASHES)
    for axes, law in _panels(top, laws, across):
        _draw_losses(axes, result, law, markers)
    for axes, name in _panels(bottom, names, across):
        _draw_coverage(axes, result.runs, name, dashes)
    _legend(top, across)
    _legend(bottom, across)
    return figure


def coverage(probability_below: Float[np.ndarray, " run"]) -> Float[np.ndarray, " level"]:
    """Share of the runs inside their equal-tailed interval of each of the LEVELS."""
    return np.mean(np.abs(probability_below[:, None] - 0.5) <= LEVELS / 2, axis=0)


def _draw_losses(axes: Axes, result: Rollout, law: str, markers: dict[str, tuple[str, str]]) -> None:
    mine = result.runs[result.runs["law"] == law]
    for name, (color, marker) in markers.items():
        rows = mine[mine["split"] == name]
        axes.vlines(rows["loss"], rows["new_run_lower"], rows["new_run_upper"], color=color, linewidth=0.7)
        axes.plot(rows["loss"], rows["loss_mean"], marker, color=color, markersize=3, label=name)
    shown = result.runs[["loss", "loss_mean"]].to_numpy()
    span = (shown.min() * 0.97, shown.max() * 1.03)
    label = f"equal; bars: {percent(result.ci)} of new runs"
    axes.plot(span, span, color=GREY, linewidth=1, linestyle=":", label=label)
    axes.set_xlim(span)
    axes.set_ylim(span)
    tidy(axes)
    log_axis(axes, "x")
    log_axis(axes, "y")
    axes.set_title(law, fontsize=9)
    axes.set_xlabel(f"measured {LOSS}", fontsize=8)
    axes.set_ylabel(f"predicted {LOSS}", fontsize=8)


def _draw_coverage(axes: Axes, runs: pd.DataFrame, name: str, dashes: dict[str, tuple[str, str]]) -> None:
    below = {law: runs["pit"].to_numpy()[(runs["split"] == name) & (runs["law"] == law)] for law in dashes}
    count = max(map(len, below.values()))
    ends = np.array([binomial_range(count, level) for level in LEVELS])
    axes.fill_between(
        LEVELS,
        ends[:, 0],
        ends[:, 1],
        color=LIGHT,
        step="mid",
        label=f"{percent(BINOMIAL)} if the intervals are right",
    )
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    for law, (color, dash) in dashes.items():
        if len(below[law]):
            axes.plot(LEVELS, coverage(below[law]), dash, color=color, linewidth=1.5, label=law)
    tidy(axes)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_title(f"{name}: {count} runs", fontsize=9)
    axes.set_xlabel("level of the interval [probability]", fontsize=8)
    axes.set_ylabel("runs inside [share]", fontsize=8)


def _styles(names: list[str], shapes: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """{name: (colour, shape)}: all colours with the first shapes, then with the next ones."""
    turned = [
        (color, shapes[(i + turn) % len(shapes)])
        for turn, (i, color) in product(range(len(shapes)), enumerate(COLORS))
    ]
    return dict(zip(names, turned * (1 + len(names) // len(turned)), strict=False))


def _panels(figure: SubFigure, names: list[str], across: int) -> list[tuple[Axes, str]]:
    rows = -(-len(names) // across)
    grid = np.atleast_1d(figure.subplots(rows, across, squeeze=False)).ravel()
    for unused in grid[len(names) :]:
        unused.remove()
    return list(zip(grid, names, strict=False))


def _legend(figure: SubFigure, across: int) -> None:
    """Above the panels, an entry a panel's width: names are long."""
    found = {}
    for axes in figure.get_axes():
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(
        found.values(), found.keys(), loc="outside upper center", ncols=across, frameon=False, fontsize=7
    )
