"""One look for all figures: colours that colour-blind readers tell apart (Okabe and Ito), sizes, labels.

matplotlib is imported where a figure is made, so that importing m3bayes stays fast.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3bayes.errors import M3BayesError
from m3bayes.files import write_atomically
from m3bayes.runs import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

BLUE, ORANGE, GREEN, VERMILLION, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"
BLACK, GREY, LIGHT = "#000000", "#6B6B6B", "#D9D9D9"

# regime: colour and dashes, so that the lines differ without colour too
REGIMES: dict[str, dict[str, Any]] = {
    "monolingual": {"color": BLUE, "linestyle": "-"},
    "single-stage": {"color": ORANGE, "linestyle": "--"},
    "two-stage": {"color": GREEN, "linestyle": "-."},
}
REGIME_NAMES = {
    "monolingual": "monolingual",
    "single-stage": "multilingual, one stage",
    "two-stage": "multilingual, two stages",
}
BAND = 0.12  # opacity

# column: axis label without unit, its unit, whether powers live there
AXES: dict[str, tuple[str, str, bool]] = {
    "params": ("model size N", "parameters", True),
    "target_tokens": ("unique target text U", "tokens", True),
    "epochs": ("passes over the target text k", "epochs", True),
    "target_ratio": ("target ratio r", "target / all tokens", False),
    "final_ratio": ("last-stage target ratio r_f", "target / all tokens", False),
}
SYMBOLS = {"params": "N", "target_tokens": "U", "epochs": "k", "target_ratio": "r", "final_ratio": "r_f"}
LOSS = "loss [unit of the table]"
FORMATS = (".png", ".pdf", ".svg")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, laid out so that nothing overlaps."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, PDF or SVG (by the path's ending) in one step: the old file or the new one.

    Raises M3BayesError for another ending or a place that cannot be written.
    """
    check_format(path)
    suffix = Path(path).suffix.lower()
    write_atomically(path, lambda temporary: figure.savefig(temporary, format=suffix[1:], dpi=200))


def check_format(path: str | os.PathLike[str]) -> None:
    """Raise M3BayesError unless the name ends as one that :func:`save_figure` writes."""
    if Path(path).suffix.lower() not in FORMATS:
        raise M3BayesError(f"{path} cannot be written: expected a name that ends in {', '.join(FORMATS)}")


def tidy(axes: Axes) -> None:
    """Only the lines that carry something."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(True, color=LIGHT, linewidth=0.5)
    axes.set_axisbelow(True)


def legend_above(figure: Figure | SubFigure, axes: Axes) -> None:
    """The legend of ``axes`` in a row above the figure, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=8)


def set_axis(axes: Axes, which: str, column: str, runs: Runs | None = None) -> None:
    """Scale and label of the ``which`` ("x" or "y") axis for a column of recipes; ``runs`` know its unit."""
    name, unit, log = AXES[column]
    if unit in ("parameters", "tokens"):
        multiple = (
            None if runs is None else {"parameters": runs.unit_params, "tokens": runs.unit_tokens}[unit]
        )
        unit = f"{unit}, table's unit" if multiple is None else unit
        unit = f"{short_number(multiple)} {unit}" if multiple not in (None, 1) else unit
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(f"{name} [{unit}]", fontsize=9)
    if log:
        log_axis(axes, which)


def log_axis(axes: Axes, which: str) -> None:
    """A log axis whose labels neither crowd nor vanish: even steps, then 1 2 5, 1 3 or whole decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low)
    digits = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.6 else (1.0, 2.0, 5.0)
    if decades < 0.7:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(10, subs=digits, numticks=9))
    axis.set_major_formatter(FuncFormatter(short_number))
    axis.set_minor_formatter(NullFormatter())


def short_number(value: float | int, _position: object = None) -> str:
    """1e9 as 1e9, .02 as 0.02, 40 as 40."""
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        mantissa, _, exponent = f"{value:.3g}".partition("e")
        if not exponent:
            mantissa, _, exponent = f"{value:.2e}".partition("e")
            mantissa = f"{float(mantissa):g}"
        return f"{mantissa}e{int(exponent)}"
    return f"{value:g}"


def percent(share: float) -> str:
    """.9 as 90 %, .98333 as 98.3 %."""
    return f"{100 * share:.3g} %"


def check_level(ci: float | int) -> None:
    if not 0 < ci < 1:
        raise M3BayesError(f"ci is {ci}; give the share of draws in the interval, between 0 and 1, as .9")
