"""Coefficient forest: one row a coefficient, each on an axis of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpyro.distributions import constraints

from m3bayes.inference.posterior import Posterior
from m3bayes.plots.style import (
    BLUE,
    GREY,
    check_level,
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

OUTER = 0.99  # the thin line
LOG_BEYOND = 4.0  # upper / lower end from which on a positive coefficient is drawn on a log axis


def coefficient_forest(post: Posterior, ci: float | int = 0.9) -> Figure:
    """Median (dot), interval of level ``ci`` (thick) and of 99 % (thin) of each coefficient, sigma and nu.

    Coefficients have units of their own, so every row has its own axis. Raises M3BayesError unless
    0 < ci < 1.
    """
    check_level(ci)
    quantities = post.quantities
    figure = new_figure(7.0, 0.45 * len(quantities) + 0.9)
    rows = np.atleast_1d(figure.subplots(len(quantities), 1))
    for axes, (name, draws) in zip(rows, quantities.items(), strict=True):
        unit, meaning = post.described(name)
        signed = name in post.law.names and post.law[name].prior.support is constraints.real
        _row(axes, draws.reshape(-1), ci, signed)
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        unit = "" if unit in ("1", "") else f"\n[{unit}]"
        axes.text(
            1.02, 0.5, f"{meaning}{unit}", transform=axes.transAxes, va="center", fontsize=7, color=GREY
        )
    legend_above(figure, rows[0])
    figure.supxlabel("value of the coefficient [its unit, at the right]", fontsize=9)
    return figure


def _row(axes: Axes, draws: np.ndarray, ci: float | int, signed: bool) -> None:
    low, lower, median, upper, high = np.quantile(
        draws, [(1 - OUTER) / 2, (1 - ci) / 2, 0.5, (1 + ci) / 2, (1 + OUTER) / 2]
    )
    axes.plot([low, high], [0, 0], color=BLUE, linewidth=1, label=percent(OUTER))
    axes.plot([lower, upper], [0, 0], color=BLUE, linewidth=4, solid_capstyle="butt", label=percent(ci))
    axes.plot([median], [0], "o", color="white", markeredgecolor=BLUE, markersize=5, label="median")
    tidy(axes)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.set_ylim(-1, 1)
    axes.tick_params(labelsize=7, pad=1)
    if not signed and low > 0 and high > LOG_BEYOND * low:
        log_axis(axes, "x")
    else:
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(short_number)
