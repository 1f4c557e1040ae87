"""Loss at a budget: against epochs, and against the final ratio, for the three regimes.

C = 6 N D and D = k U / r, so k and r settle N. At each value of the horizontal axis a regime shows its best
recipe, smallest in mean loss over a grid of what is left free (r, r_f, k). As in ``recommend``, recipes stay
within the range of the runs: a budget that would buy a larger N than any run had leaves compute unused, and
curves end where no such recipe is left. Two stages have no target text before the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m3bayes.decision.space import ranges
from m3bayes.errors import InfeasibleError, M3BayesError
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import predict
from m3bayes.plots.style import (
    BAND,
    LOSS,
    REGIME_NAMES,
    REGIMES,
    check_level,
    legend_above,
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

Number = float | int
Limits = Mapping[str, tuple[float, float]]

ALONG, FREE = 49, 17  # values along the axis, and of each variable that is optimised
NEAR = np.geomspace(0.85, 1 / 0.85, 9)  # factors about the best of them, where two variables are
ROUNDING = 1e-9


def loss_against_epochs(
    post: Posterior, compute: Number, target_tokens: Number, ci: float | int = 0.9
) -> Figure:
    """Mean loss and its ``ci`` band against epochs k for ``compute`` FLOP, best r and r_f of each regime.

    ``target_tokens`` is U, in the table's units. Regimes that the runs do not have are left out. Raises
    M3BayesError where compute or target_tokens is not positive or ci not between 0 and 1, InfeasibleError
    where no recipe of that budget is within the range of the runs.
    """
    return _figure(post, "epochs", compute, target_tokens, ci)


def loss_against_final_ratio(
    post: Posterior, compute: Number, target_tokens: Number, ci: float | int = 0.9
) -> Figure:
    """The same against the final ratio r_f, best k and r of each regime; monolingual recipes have r_f = 1."""
    return _figure(post, "final_ratio", compute, target_tokens, ci)


def _figure(post: Posterior, along: str, compute: Number, target_tokens: Number, ci: float | int) -> Figure:
    figure = new_figure(6.0, 4.2)
    axes = figure.subplots()
    draw_budget(axes, post, along, compute, target_tokens, ci, ranges(post.runs))
    legend_above(figure, axes)
    return figure


def draw_budget(
    axes: Axes,
    post: Posterior,
    along: str,
    compute: Number,
    target_tokens: Number,
    ci: float | int,
    limits: Limits,
) -> None:
    """One panel of either figure, without legend; ``along`` is ``epochs`` or ``final_ratio``, ``limits``
    {column: (low, high)} of N, k, r, r_f, D, S and the last stage's share."""
    check_level(ci)
    for name, value in (("compute", compute), ("target_tokens", target_tokens)):
        if not (np.isfinite(value) and value > 0):
            raise M3BayesError(f"{name} is {value}; expected a positive number")
    curves = {}
    for regime, candidates in _candidates(limits, along).items():
        recipes = _affordable(post.runs, candidates, compute, target_tokens, limits)
        if recipes["epochs"].size:
            curves[regime] = _best_along(post, along, recipes, ci)
            if regime == "two-stage":
                around = _around(curves[regime].recipes, along, limits)
                near = _affordable(post.runs, around, compute, target_tokens, limits)
                both = {
                    name: np.append(values, near[name]) for name, values in curves[regime].recipes.items()
                }
                curves[regime] = _best_along(post, along, both, ci)
    if not curves:
        raise InfeasibleError(
            f"no recipe for {short_number(compute)} FLOP and {short_number(target_tokens)} target tokens is "
            f"within the range of the runs; choose a budget nearer to theirs"
        )
    tidy(axes)
    for regime, (recipes, mean, lower, upper) in curves.items():
        values = recipes[along]
        style = REGIMES[regime]
        if len(values) == 1:
            ends = [[mean[0] - lower[0]], [upper[0] - mean[0]]]
            axes.errorbar(values, mean, ends, fmt="o", color=style["color"], label=REGIME_NAMES[regime])
        else:
            axes.fill_between(values, lower, upper, color=style["color"], alpha=BAND, linewidth=0)
            for edge in (lower, upper):
                axes.plot(values, edge, linewidth=0.7, **style)
            axes.plot(values, mean, linewidth=1.8, label=REGIME_NAMES[regime], **style)
    # losses of hopeless recipes (hundreds of epochs) must not flatten the rest
    best = min(lower.min() for _, _, lower, _ in curves.values())
    worst = max(upper.max() for _, _, _, upper in curves.values())
    axes.set_ylim(best - 0.03 * (worst - best), min(worst + 0.03 * (worst - best), 2 * best))
    set_axis(axes, "x", along)
    axes.set_ylabel(LOSS, fontsize=9)
    title = f"{short_number(compute)} FLOP, U = {short_number(target_tokens * post.runs.unit_tokens)} tokens"
    axes.set_title(f"{title}; bands: {percent(ci)} of the mean surface", fontsize=9)


class _Curve(NamedTuple):
    """The best recipe at each value along the axis, and its mean, lower and upper loss."""

    recipes: dict[str, np.ndarray]
    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def _best_along(post: Posterior, along: str, recipes: Mapping[str, np.ndarray], ci: float | int) -> _Curve:
    found = predict(post, recipes, ci=ci, new_run=False)
    order = np.lexsort((found.loss_mean, recipes[along]))
    _, first = np.unique(recipes[along][order], return_index=True)
    best = order[first]
    chosen = {name: values[best] for name, values in recipes.items()}
    return _Curve(chosen, found.loss_mean[best], found.loss_lower[best], found.loss_upper[best])


def _around(best: Mapping[str, np.ndarray], along: str, limits: Limits) -> tuple[np.ndarray, ...]:
    """(k, r, r_f) of two-stage recipes near the best ones, taken to the limits where they would leave them."""
    one, other = _combined(NEAR, NEAR)
    k, r, r_f = (
        best[name][:, None] * np.ones_like(one) for name in ("epochs", "target_ratio", "final_ratio")
    )
    if along == "epochs":
        r_f = np.clip(r_f * other, *limits["final_ratio"])
    else:
        k = np.clip(k * other, *limits["epochs"])
    share_low, share_high = limits["last_stage_share"]
    r_low, r_high = limits["target_ratio"]
    low, high = np.maximum(r_low, share_low * r_f), np.minimum(r_high, share_high * r_f)
    r = np.clip(r * one, low, high)
    two_stages = (low <= high) & (r < r_f * (1 - ROUNDING))
    return k[two_stages], r[two_stages], r_f[two_stages]


def _affordable(
    runs: Runs, candidates: tuple[np.ndarray, ...], compute: Number, target_tokens: Number, limits: Limits
) -> dict[str, np.ndarray]:
    """Recipes that spend the budget, or what the largest N allowed can spend; within the limits."""
    k, r, r_f = candidates
    tokens = k * target_tokens / r
    N = np.minimum(compute / (6 * tokens * runs.unit_tokens) / runs.unit_params, limits["params"][1])
    inside = np.full(k.shape, True)
    for name, values in (("params", N), ("tokens", tokens), ("source_tokens", tokens * (1 - r))):
        low, high = limits[name]
        inside &= (values >= low * (1 - ROUNDING)) & (values <= high * (1 + ROUNDING))
    recipes = {
        "params": N,
        "target_tokens": np.full_like(k, target_tokens),
        "epochs": k,
        "target_ratio": r,
        "final_ratio": r_f,
    }
    return {name: values[inside] for name, values in recipes.items()}


def _candidates(limits: Limits, along: str) -> dict[str, tuple[np.ndarray, ...]]:
    """{regime: (k, r, r_f)}, combinations on a grid within the limits."""
    k = np.unique(np.geomspace(*limits["epochs"], ALONG if along == "epochs" else 2 * FREE))
    (r_low, r_high), (f_low, f_high) = limits["target_ratio"], limits["final_ratio"]
    result = {}
    if r_high == f_high == 1:
        result["monolingual"] = _combined(k, np.ones(1), np.ones(1))
    one_ratio = np.unique(np.linspace(max(r_low, f_low), min(r_high, f_high), ALONG))
    if (one_ratio := one_ratio[one_ratio < 1]).size and r_low <= f_high and f_low <= r_high:
        k_1, r_1 = _combined(k, one_ratio)
        result["single-stage"] = (k_1, r_1, r_1)
    last = np.unique(np.linspace(f_low, f_high, ALONG if along == "final_ratio" else FREE))
    k_2, r_f, part = _combined(k, last, np.linspace(0, 1, FREE))
    share_low, share_high = limits["last_stage_share"]  # NaN where no run had two stages
    low, high = np.maximum(r_low, share_low * r_f), np.minimum(r_high, share_high * r_f)
    r = low + part * (high - low)
    two_stages = (low <= high) & (r < r_f * (1 - ROUNDING))
    if two_stages.any():
        result["two-stage"] = (k_2[two_stages], r[two_stages], r_f[two_stages])
    return result


def _combined(*values: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(grid.ravel() for grid in np.meshgrid(*values, indexing="ij"))
