"""Many languages: factors at equal loss, where training from scratch overtakes a checkpoint, transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from m3bayes.languages.draws import span
from m3bayes.languages.finetune import Crossover
from m3bayes.languages.matrix import TransferMatrix
from m3bayes.languages.multilinguality import EqualLoss, published_equal_loss
from m3bayes.languages.transfer import PairScores, TransferScore
from m3bayes.plots.style import (
    BAND,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    legend_above,
    log_axis,
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

# factor: its name, colour and dashes
FACTORS = {
    "compute": ("compute", GREEN, "-."),
    "tokens": ("tokens of all languages", ORANGE, "--"),
    "params": ("model size", BLUE, "-"),
}


def equal_loss_factors(result: EqualLoss) -> Figure:
    """What more languages take at equal loss, with bands, beside the published factors."""
    figure = new_figure(6.0, 4.4)
    axes = figure.subplots()
    tidy(axes)
    times = result.table["times"].to_numpy()
    reported = published_equal_loss(times)
    for name, (label, colour, dashes) in FACTORS.items():
        _band(axes, times, result.table, name, colour)
        axes.plot(times, result.table[name], color=colour, linestyle=dashes, linewidth=1.8, label=label)
        axes.plot(times, reported[name], color=colour, linestyle=":", linewidth=1.2)
    axes.plot([], [], color=GREY, linestyle=":", linewidth=1.2, label="published")
    axes.fill_between([], [], [], color=GREY, alpha=2 * BAND, label=f"{percent(result.ci)} of the draws")
    axes.set_xlabel("times as many languages [-]", fontsize=9)
    axes.set_ylabel("factor at equal loss [-]", fontsize=9)
    for which in ("x", "y"):
        log_axis(axes, which)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def crossover_line(result: Crossover, runs: Runs) -> Figure:
    """Tokens and compute at which training from scratch overtakes a checkpoint, against model size.

    ``runs`` know the units. Shaded is what was not measured both from scratch and from the checkpoint.
    """
    figure = new_figure(8.0, 4.0)
    left, right = figure.subplots(1, 2, sharex=True)
    N = result.table["params"].to_numpy()
    smallest, largest = span(runs["params"])
    measured = (smallest <= N) & (largest >= N)
    flops = 6 * N * runs.unit_params * runs.unit_tokens
    sides, found = ((0.95, "from scratch is better"), (0.05, "the checkpoint is better")), result.exponent
    crosses = True
    title = f"C* grows as N^{found.median:.3g} ({found.lower:.3g} to {found.upper:.3g})"
    if np.all(result.table["never"].to_numpy() == 1):  # there is no line that they are the sides of
        sides, title, crosses = ((0.5, "the checkpoint is better in every draw"),), "", False
    for axes, name, unit in ((left, "tokens", np.ones(len(N))), (right, "compute", flops)):
        tidy(axes)
        if crosses:
            _band(axes, N, result.table, name, BLUE, f"{percent(result.ci)} of the draws")
            drawn = result.table[name].replace(np.inf, np.nan)
            axes.plot(N, drawn, color=BLUE, linewidth=1.8, label="crossover, median")
        least, most = (end * unit for end in result.tokens_range)
        shown = np.concatenate(
            [*(result.table[c] for c in (name, f"{name}_lower", f"{name}_upper")), least, most]
        )
        shown = shown[np.isfinite(shown) & (shown > 0)]
        low, high = (shown.min() / 3, shown.max() * 3) if len(shown) else (1.0, 10.0)
        label: str | None = "not measured both ways"
        for ends in ((low, np.minimum(least, high)), (np.maximum(most, low), high)):
            axes.fill_between(N, *ends, where=measured, color=GREY, alpha=BAND, linewidth=0, label=label)
            label = None
        for ends in ((N.min() / 1.1, smallest), (largest, N.max() * 1.1)):
            if ends[0] < ends[1]:
                axes.axvspan(*ends, color=GREY, alpha=BAND, linewidth=0)
        axes.set_ylim(low, high)
        axes.set_xlim(N.min() / 1.1, N.max() * 1.1)
        for place, said in sides:
            axes.text(0.05, place, said, transform=axes.transAxes, va="center", fontsize=8, color=BLACK)
        log_axis(axes, "y")
        set_axis(axes, "x", "params", runs)
    unit = "" if runs.unit_tokens == 1 else f"{short_number(runs.unit_tokens)} "
    left.set_ylabel(f"target tokens D* [{unit}tokens]", fontsize=9)
    right.set_ylabel("compute C* [FLOP]", fontsize=9)
    right.set_title(title, fontsize=9)
    legend_above(figure, left)
    return figure


def transfer_scores(result: PairScores | TransferScore) -> Figure:
    """Scores with their intervals, a row a pair and number of tokens; an arrow where an end is infinite."""
    table = result.table
    names = [_row_name(row) for row in table.to_dict("records")]
    figure = new_figure(6.0, 0.32 * len(table) + 1.5)
    axes = figure.subplots()
    tidy(axes)
    place = -np.arange(len(table))
    values = table[["score_lower", "score", "score_upper"]].to_numpy()
    finite = values[np.isfinite(values)]
    low, high = min(0.0, *finite, 0.0), max(0.0, *finite, 0.0)
    margin = 0.08 * (high - low or 1.0)
    edge = low - margin
    drawn = np.where(np.isfinite(values), values, edge)
    axes.hlines(
        place, drawn[:, 0], drawn[:, 2], color=BLUE, linewidth=1.5, label=f"{percent(result.ci)} of the draws"
    )
    inside = np.isfinite(values[:, 1])
    axes.plot(values[inside, 1], place[inside], "o", color=BLUE, markersize=5, label="median")
    never = ~np.isfinite(values[:, 0])
    if never.any():
        axes.plot(
            np.full(never.sum(), edge), place[never], "<", color=BLUE, markersize=5, label="never reached"
        )
    axes.axvline(0, color=GREY, linewidth=1, linestyle=":", label="neither help nor harm")
    axes.set_xlim(edge - margin / 2, high + margin)
    axes.set_ylim(-len(table) + 0.4, 0.6)
    axes.set_yticks(place, names, fontsize=8)
    axes.set_xlabel("bilingual transfer score [-]: below 0 harm, above 0 help", fontsize=9)
    legend_above(figure, axes)
    return figure


def transfer_heat_map(result: TransferMatrix) -> Figure:
    """What a token of each source is worth in each target: medians as colours, with their intervals; blank where a
    pair was not measured."""
    tau, lower, upper = (result.matrix(f"tau{end}") for end in ("", "_lower", "_upper"))
    targets, sources = (list(names) for names in (tau.index, tau.columns))
    figure = new_figure(max(1.3 * len(sources), 2.6) + 2.2, max(0.6 * len(targets), 1.8) + 1.6)
    axes = figure.subplots()
    values = tau.to_numpy()
    edge = max(0.1, float(np.nanmax(np.abs(values))))
    # red and blue differ to readers who do not tell red from green
    image = axes.imshow(values, cmap="RdBu", vmin=-edge, vmax=edge, aspect="auto")
    for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True):
        ends = f"{lower.iat[row, column]:.2g} to {upper.iat[row, column]:.2g}"
        axes.text(
            column, row, f"{values[row, column]:.2g}\n{ends}", ha="center", va="center", fontsize=8,
            color="white" if abs(values[row, column]) > 0.6 * edge else BLACK,
        )  # fmt: skip
    axes.set_xticks(range(len(sources)), sources, fontsize=9)
    axes.set_yticks(range(len(targets)), targets, fontsize=9)
    axes.set_xlabel("source language", fontsize=9)
    axes.set_ylabel("target language", fontsize=9)
    axes.set_xticks(np.arange(1, len(sources)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(targets)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("worth of a source token\n[target tokens]", fontsize=9)
    figure.suptitle(f"medians and {percent(result.ci)} intervals; blue helps, red harms", fontsize=9)
    return figure


def _row_name(row: dict) -> str:
    tokens = f"d = {short_number(row['tokens'])}"
    return f"{row['source']} to {row['target']}, {tokens}" if "source" in row else tokens


def _band(
    axes: Axes, x: np.ndarray, table: pd.DataFrame, name: str, colour: str, label: str | None = None
) -> None:
    """The interval, where its lower end is a number; an infinite upper end goes out of the picture."""
    lower, upper = table[f"{name}_lower"].to_numpy(), table[f"{name}_upper"].to_numpy()
    axes.fill_between(
        x, lower, np.minimum(upper, 1e300), where=np.isfinite(lower), color=colour, alpha=2 * BAND,
        linewidth=0, label=label,
    )  # fmt: skip
