"""One page about a recommendation: loss at its budget, and where the draws' own optima lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3bayes.inference.posterior import Posterior
from m3bayes.plots.budget import draw_budget
from m3bayes.plots.optimum import VARIABLES, draw_marginal
from m3bayes.plots.style import VERMILLION, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from m3bayes.decision import Recommendation


def recommendation(post: Posterior, result: Recommendation) -> Figure:
    """Loss against epochs and, where some run is multilingual, against the final ratio, at the budget of
    ``result`` (6 N D); below, marginals of the per-draw optima with the recommended recipe marked."""
    figure = new_figure(10.0, 6.6)
    halves = figure.add_gridspec(2, 1, height_ratios=(1.4, 1))
    above, below = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    kinds = ["epochs"]
    if post.runs["target_ratio"].min() < 1:
        kinds.append("final_ratio")
    for axes, along in zip(above.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        draw_budget(axes, post, along, result.compute, result.target_tokens, result.ci)
        axes.errorbar(
            [getattr(result.recipe, along)], [result.loss.mean],
            [[result.loss.mean - result.loss.lower], [result.loss.upper - result.loss.mean]],
            fmt="*", color=VERMILLION, markersize=11, markeredgecolor="white", label="recommended", zorder=5,
        )  # fmt: skip
        axes.legend(frameon=False, fontsize=8)
    panels = below.subplots(1, len(VARIABLES))
    for axes, name in zip(panels, VARIABLES, strict=True):
        draw_marginal(axes, name, result)
        axes.set_xlabel(axes.get_xlabel().replace(" [", "\n["))
    for axes in panels[1:]:
        axes.set_ylabel("")
    below.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False,
                 fontsize=8)  # fmt: skip
    return figure
