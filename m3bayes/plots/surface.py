"""Loss surface over two variables of a recipe, with how wide its interval is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from m3bayes.errors import M3BayesError
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import predict
from m3bayes.laws.law import RECIPE_COLUMNS
from m3bayes.plots.style import AXES, BLACK, LOSS, SYMBOLS, new_figure, percent, set_axis, short_number
from m3bayes.runs import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import QuadContourSet
    from matplotlib.figure import Figure

RATIOS = ("target_ratio", "final_ratio")
POINTS = 61  # along each axis
WIDEN = 1.5  # a size that never varied is drawn from value / 1.5^4 to value x 1.5^4
LEVELS = 8  # about
EXTREME = 0.98  # quantile above which values share one colour, or a corner would take all of them


def loss_surface(
    post: Posterior,
    x: str = "params",
    y: str = "epochs",
    at: Mapping[str, float | int] | None = None,
    ci: float | int = 0.9,
) -> Figure:
    """Mean loss and width of its ``ci`` interval over columns ``x`` and ``y``, all others held still.

    ``at`` gives what is held still, in the table's units (default: medians over the runs; the two ratios
    equal where one is an axis, so that recipes have one stage). Axes span the runs, which are marked.
    Raises M3BayesError where ``x``, ``y`` or ``at`` name no variable or the same one, or 0 < ci < 1 fails.
    """
    _check(x, y, at or {})
    across, up = _span(post.runs, x), _span(post.runs, y)
    grid = dict(zip((x, y), (values.ravel() for values in np.meshgrid(across, up)), strict=True))
    held = _held(post.runs, (x, y), at or {})
    # a ratio that is neither follows the other one
    follows = {a: b for a, b in (RATIOS, RATIOS[::-1]) if a not in grid and a not in held}
    recipes = {**grid, **{name: np.full(POINTS**2, value) for name, value in held.items()}}
    recipes |= {name: recipes[other] for name, other in follows.items()}
    legal = recipes["final_ratio"] >= recipes["target_ratio"]
    found = predict(post, {name: values[legal] for name, values in recipes.items()}, ci=ci, new_run=False)

    def on_grid(values: np.ndarray) -> np.ma.MaskedArray:
        whole = np.full(POINTS**2, np.nan)
        whole[legal] = values
        return np.ma.masked_invalid(whole.reshape(POINTS, POINTS))

    figure = new_figure(8.0, 3.9)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    width = 100 * (found.loss_upper - found.loss_lower) / found.loss_mean
    panels = (
        (left, found.loss_mean, f"mean {LOSS}", "cividis"),
        (right, width, f"width of the {percent(ci)} interval [% of the loss]", "magma_r"),
    )
    for axes, values, label, colours in panels:
        filled = _contours(axes, across, up, on_grid(values), colours)
        bar = figure.colorbar(filled, ax=axes, location="top", shrink=0.9, format=short_number)
        bar.set_label(label, fontsize=9)
        bar.ax.tick_params(labelsize=7)
        axes.plot(
            post.runs[x], post.runs[y], "o", markersize=4, markerfacecolor="white", markeredgecolor=BLACK,
            markeredgewidth=0.7, linestyle="none", label="runs (at any value of what is held)",
        )  # fmt: skip
        axes.set_xlim(across[0], across[-1])
        axes.set_ylim(up[0], up[-1])
        set_axis(axes, "x", x, post.runs)
        set_axis(axes, "y", y, post.runs)
        axes.tick_params(labelsize=8)
    right.set_ylabel("")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=8)
    stated = [f"{SYMBOLS[name]} = {short_number(float(f'{value:.3g}'))}" for name, value in held.items()]
    stated += [f"{SYMBOLS[name]} = {SYMBOLS[other]}" for name, other in follows.items()]
    figure.suptitle(f"at {', '.join(stated)}", fontsize=8)
    return figure


def _contours(
    axes: Axes, across: np.ndarray, up: np.ndarray, values: np.ma.MaskedArray, colours: str
) -> QuadContourSet:
    """Filled contours at round values."""
    from matplotlib.ticker import MaxNLocator

    low, high = float(values.min()), float(np.quantile(values.compressed(), EXTREME))
    levels = MaxNLocator(LEVELS).tick_values(low, max(high, low + 1e-6 * abs(low)))
    filled = axes.contourf(across, up, values, levels=levels, cmap=colours, extend="max")
    axes.contour(across, up, values, levels=levels, colors=BLACK, linewidths=0.4)
    return filled


def _check(x: str, y: str, at: Mapping[str, float | int]) -> None:
    for name in (x, y, *at):
        if name not in RECIPE_COLUMNS:
            raise M3BayesError(f"{name!r} is no variable of a recipe; these are: {', '.join(RECIPE_COLUMNS)}")
    if x == y or x in at or y in at:
        raise M3BayesError(
            f"x {x!r}, y {y!r} and at ({', '.join(at) or 'nothing'}) must name different variables"
        )


def _held(runs: Runs, axes: tuple[str, str], at: Mapping[str, float | int]) -> dict[str, float]:
    """What is held still, and where: ``at``, medians, and r = r_f = 1 where nothing is said about ratios."""
    held = {name: float(at[name]) for name in RECIPE_COLUMNS if name in at}
    for name in RECIPE_COLUMNS:
        if name not in (*axes, *RATIOS):
            held.setdefault(name, float(np.exp(np.median(np.log(runs[name])))))
    if not set(RATIOS) & {*axes, *held}:
        held |= dict.fromkeys(RATIOS, 1.0)
    return held


def _span(runs: Runs, column: str) -> np.ndarray:
    low, high = float(runs[column].min()), float(runs[column].max())
    if AXES[column][2]:
        if high < WIDEN * low:
            low, high = low / WIDEN**4, high * WIDEN**4
        return np.geomspace(low, high, POINTS)
    # one range for both ratios, since r_f is compared with r
    low = float(min(runs["target_ratio"].min(), runs["final_ratio"].min()))
    return np.linspace(min(low, 0.5), 1.0, POINTS)
