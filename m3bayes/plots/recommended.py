"""One page about a recommendation: loss at its budget, and where the draws' own optima lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3bayes.decision.cost import six_nd
from m3bayes.inference.posterior import Posterior
from m3bayes.plots.budget import draw_budget
from m3bayes.plots.optimum import VARIABLES, draw_marginal
from m3bayes.plots.style import VERMILLION, legend_above, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from m3bayes.decision import Recommendation

EPOCHS = 30.0  # the axis ends at so many times the recommended epochs, up and down, where bounds were lifted


def recommendation(post: Posterior, result: Recommendation) -> Figure:
    """Loss against epochs and, where multilingual recipes were allowed, against the final ratio, for the
    budget and within the bounds of ``result``; below, marginals of the per-draw optima. The recommended recipe
    is marked. The curves are of equal 6 N D: where ``result`` has another cost, that of its recipe."""
    recipe, unit = result.recipe, post.runs.unit_params * post.runs.unit_tokens
    compute = result.compute if result.cost == six_nd().name else 6 * recipe.params * recipe.tokens * unit
    figure = new_figure(10.0, 6.6)
    halves = figure.add_gridspec(2, 1, height_ratios=(1.4, 1))
    above, below = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    limits = {name: (bound.low, bound.high) for name, bound in result.bounds.items()}
    low, high = limits["epochs"]
    limits["epochs"] = (max(low, result.recipe.epochs / EPOCHS), min(high, result.recipe.epochs * EPOCHS))
    kinds = ["epochs"]
    if limits["target_ratio"][0] < 1:
        kinds.append("final_ratio")
    charts = above.subplots(1, len(kinds), squeeze=False)[0]
    for axes, along in zip(charts, kinds, strict=True):
        draw_budget(axes, post, along, compute, result.target_tokens, result.ci, limits)
        axes.errorbar(
            [getattr(result.recipe, along)], [result.loss.mean],
            [[result.loss.mean - result.loss.lower], [result.loss.upper - result.loss.mean]],
            fmt="*", color=VERMILLION, markersize=11, markeredgecolor="white", label="recommended", zorder=5,
        )  # fmt: skip
    legend_above(above, charts[0])
    panels = below.subplots(1, len(VARIABLES))
    for axes, name in zip(panels, VARIABLES, strict=True):
        draw_marginal(axes, name, result, post.runs)
        axes.set_xlabel(axes.get_xlabel().replace(" [", "\n["))
    for axes in panels[1:]:
        axes.set_ylabel("")
    legend_above(below, panels[0])
    return figure
