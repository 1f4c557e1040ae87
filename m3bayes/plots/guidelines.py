"""Guidelines over compute and target text: the map of regimes, the collapse of best epochs, best model size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from m3bayes.plots.style import (
    BAND,
    BLACK,
    REGIME_NAMES,
    REGIMES,
    legend_above,
    log_axis,
    new_figure,
    percent,
    short_number,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from m3bayes.decision.guidelines import Collapse, ModelSize, RegimeMap

COMPUTE = "compute C [FLOP]"
SCARCITY = "scarcity D_T / D*(C) [-]"
# compute of a curve, light to dark on a scale that grey printing keeps
CURVES = "viridis_r"


def regime_map(result: RegimeMap) -> Figure:
    """Left, which regime is best: colours mixed by probability, white where nothing is feasible, with the
    threshold below which two-stage training is best. Right, the threshold as D_T / D*(C)."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    figure = new_figure(9.0, 4.2)
    left, right = figure.subplots(1, 2, sharex=True)
    probability = np.stack([result.probability[regime] for regime in REGIMES], axis=-1)
    colours = np.array([to_rgb(style["color"]) for style in REGIMES.values()])
    mixed = np.nan_to_num(0.25 + 0.75 * (probability @ colours), nan=1.0)
    left.pcolormesh(
        result.compute, result.target_tokens, mixed.transpose(1, 0, 2), shading="nearest", rasterized=True
    )
    found, level = result.threshold, percent(result.ci)
    # quantiles outside the range asked for are no numbers: there the band goes to its edge
    first, last = (
        np.full(len(result.compute), end) for end in (result.target_tokens[0], result.target_tokens[-1])
    )
    with np.errstate(invalid="ignore"):
        to_scarcity = found.scarcity / found.target_tokens
    curves = (
        (left, found.target_tokens, found.lower, found.upper, first, last),
        (
            right, found.scarcity, found.scarcity_lower, found.scarcity_upper,
            first * to_scarcity, last * to_scarcity,
        ),
    )  # fmt: skip
    for axes, middle, lower, upper, least, most in curves:
        band = axes.fill_between(
            result.compute, np.where(lower > 0, lower, least), np.where(np.isfinite(upper), upper, most),
            where=(lower < np.inf) & (upper > 0), color=BLACK, alpha=BAND, linewidth=0,
            label=f"its {level} interval, as far as the range shown",
        )  # fmt: skip
        drawn = np.where(np.isfinite(middle) & (middle > 0), middle, np.nan)
        (line,) = axes.plot(
            result.compute, drawn, color=BLACK, linewidth=1.8, label="threshold: two stages are best below"
        )
        log_axis(axes, "x")
        axes.set_xlabel(COMPUTE, fontsize=9)
    left.set_xlim(result.compute[0], result.compute[-1])
    left.set_ylim(result.target_tokens[0], result.target_tokens[-1])
    left.set_ylabel(_tokens("unique target text D_T", result.unit_tokens), fontsize=9)
    left.tick_params(labelsize=8)
    tidy(right)
    right.set_ylabel(f"{SCARCITY.removesuffix(' [-]')} at the threshold [-]", fontsize=9)
    for axes in (left, right):
        log_axis(axes, "y")
    patches = [
        Patch(color=0.25 + 0.75 * c, label=REGIME_NAMES[name])
        for name, c in zip(REGIMES, colours, strict=True)
    ]
    figure.legend(
        handles=[*patches, line, band], loc="outside upper center", ncols=3, frameon=False, fontsize=8,
        title="best regime, colours mixed by probability", title_fontsize=8,
    )  # fmt: skip
    return figure


def epochs_collapse(result: Collapse) -> Figure:
    """Best epochs against scarcity, a curve each compute, beside the rule k* = D*(C) / D_T."""
    figure = new_figure(6.0, 4.4)
    axes = figure.subplots()
    tidy(axes)
    _curves(figure, axes, result.table, "epochs", result.ci)
    x = np.sort(result.table["scarcity"].to_numpy())
    axes.plot(x, 1 / x, color=BLACK, linestyle="--", linewidth=1.2, label="rule: k* = D*(C) / D_T")
    k = result.table.filter(like="epochs").to_numpy()
    axes.set_ylim(0.8 * np.nanmin(k), 1.25 * np.nanmax(k))
    _finish(figure, axes, "best epochs k* [-]")
    if result.spread is not None:
        said = " to ".join(percent(end) for end in (result.spread.lower, result.spread.upper))
        axes.set_title(f"spread over C at equal scarcity: {said} of the range of log k*", fontsize=9)
    return figure


def model_size(result: ModelSize) -> Figure:
    """Best model size over the monolingual compute-optimal N*(C), against scarcity, a curve each compute."""
    figure = new_figure(6.0, 4.4)
    axes = figure.subplots()
    tidy(axes)
    _curves(figure, axes, result.table, "ratio", result.ci)
    axes.axhline(1.0, color=BLACK, linestyle="--", linewidth=1.2, label="N* of monolingual training")
    _finish(figure, axes, "best model size / N*(C) [-]")
    return figure


def _curves(figure: Figure, axes: Axes, table: pd.DataFrame, name: str, ci: float) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    compute = np.unique(table["compute"])
    # a single curve is not at the pale end
    norm = LogNorm(compute[0] / 1.5, compute[-1] * 1.5)
    for C in compute:
        rows = table[table["compute"] == C]
        colour = colormaps[CURVES](norm(C))
        level = f"{percent(ci)} of the draws" if compute[-1] == C else None
        axes.fill_between(
            rows["scarcity"], rows[f"{name}_lower"], rows[f"{name}_upper"], color=colour, alpha=BAND,
            linewidth=0, label=level,
        )  # fmt: skip
        median = "median" if compute[-1] == C else None
        axes.plot(rows["scarcity"], rows[name], color=colour, marker="o", markersize=2.5, label=median)
    bar = figure.colorbar(ScalarMappable(norm, CURVES), ax=axes)
    bar.set_label(COMPUTE, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _finish(figure: Figure, axes: Axes, label: str) -> None:
    axes.set_xlabel(SCARCITY, fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    for which in ("x", "y"):
        log_axis(axes, which)
    legend_above(figure, axes)


def _tokens(name: str, unit: float) -> str:
    return f"{name} [{'' if unit == 1 else short_number(unit) + ' '}tokens]"
