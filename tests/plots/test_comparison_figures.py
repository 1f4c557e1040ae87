"""Figures of rollouts and comparisons: what they show is what was computed, and a reader can tell what that is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from m3bayes import plots
from m3bayes.evaluation.compare import Comparison
from m3bayes.evaluation.rollout import Rollout
from m3bayes.evaluation.splits import ATLAS
from m3bayes.laws import LAWS as ALL_LAWS
from m3bayes.plots.rolled_out import LEVELS, coverage
from tests.plots.test_plots import (  # noqa: F401 (they run on the figures of this module)
    legends,
    test_axes_say_what_and_in_which_unit,
    test_nothing_is_cut_off_and_tick_labels_do_not_touch,
    test_there_is_a_legend,
)


def made_rollout(laws, splits, runs: int = 30) -> Rollout:
    rng = np.random.default_rng(0)
    parts = []
    for law in laws:
        for split in splits:
            loss = np.exp(rng.normal(1, 0.2, runs))
            mean = loss * np.exp(rng.normal(0, 0.03, runs))
            ends = {"new_run_lower": 0.95 * mean, "new_run_upper": 1.05 * mean}
            part = {
                "law": law,
                "split": split,
                "run": [f"row {i}" for i in range(runs)],
                "loss": loss,
                "loss_mean": mean,
            }
            parts.append(pd.DataFrame(part | ends | {"pit": rng.random(runs), "log_density": 0.0}))
    return Rollout(pd.DataFrame(), pd.concat(parts, ignore_index=True), 0.9, "", ())


def comparison(rows: int = 5) -> Comparison:
    table = pd.DataFrame(
        {
            "law": ["m3", "atlas", "dcpt", "chinchilla:tokens=all", "broken"],
            "difference": [0.0, -3.0, -40.0, -90.0, np.nan],
            "difference_se": [0.0, 4.0, 9.0, 20.0, np.nan],
            "weight": [0.7, 0.3, 0.0, 0.0, np.nan],
            "verdict": ["passed", "flagged", "passed", "passed", "failed"],
        }
    )
    method = "leave-one-out, by smoothed importance sampling and refits"
    return Comparison(table.head(rows), pd.DataFrame(), pd.DataFrame(), method, ())


LAWS = tuple(ALL_LAWS)[:7]  # more than there are colours
CUTS = ("compute >= 1.234e18", "compute >= 4e18", "compute >= 5.12e19")
FIGURES = {
    "rolled_out, one of each": lambda: plots.rolled_out(made_rollout(["m3"], CUTS[:1])),
    "rolled_out, more splits": lambda: plots.rolled_out(made_rollout(["m3", "chinchilla:tokens=all"], CUTS)),
    "rolled_out, everything": lambda: plots.rolled_out(made_rollout(LAWS, ATLAS)),
    "compared": lambda: plots.compared(comparison()),
    "compared, one law": lambda: plots.compared(comparison(1)),
}


@pytest.fixture(scope="module", params=FIGURES)
def figure(request):
    return FIGURES[request.param]()


def panels(figure) -> dict[str, object]:
    return {axes.get_title(): axes for axes in figure.get_axes()}


def test_a_panel_a_law_and_a_panel_a_split():
    figure = FIGURES["rolled_out, everything"]()
    assert list(panels(figure)) == [*LAWS, *(f"{name}: 30 runs" for name in ATLAS)]
    assert {*LAWS, *ATLAS} <= set(legends(figure))
    assert "equal; bars: 90 % of new runs" in legends(figure)


def test_points_and_bars_are_the_held_out_runs():
    result = made_rollout(["m3", "chinchilla"], CUTS)
    for law in ("m3", "chinchilla"):
        axes = panels(plots.rolled_out(result))[law]
        drawn = {line.get_label(): line.get_xydata() for line in axes.get_lines()}
        bars = {tuple(np.round(path.vertices[:, 1], 12)) for c in axes.collections for path in c.get_paths()}
        mine = result.runs[result.runs["law"] == law]
        for split in CUTS:
            rows = mine[mine["split"] == split]
            np.testing.assert_array_equal(drawn[split], rows[["loss", "loss_mean"]])
        ends = mine[["new_run_lower", "new_run_upper"]].round(12)
        assert bars == set(ends.itertuples(index=False, name=None))
        low, high = axes.get_xlim()
        assert low < result.runs["loss"].min() and result.runs["loss"].max() < high


def test_coverage_is_the_share_inside_and_its_band_that_of_so_many_runs():
    result = made_rollout(["m3"], CUTS[:1])
    pit = result.runs["pit"].to_numpy()
    expected = [np.mean((pit >= (1 - level) / 2) & (pit <= (1 + level) / 2)) for level in LEVELS]
    np.testing.assert_allclose(coverage(pit), expected)
    axes = panels(plots.rolled_out(result))[f"{CUTS[0]}: 30 runs"]
    drawn = {line.get_label(): line.get_xydata() for line in axes.get_lines()}
    np.testing.assert_allclose(drawn["m3"], np.stack([LEVELS, expected], axis=1))
    heights = axes.collections[0].get_paths()[0].vertices[:, 1] * 30
    np.testing.assert_allclose(heights, heights.round(), atol=1e-9)


def test_the_comparison_says_who_is_behind():
    figure = plots.compared(comparison())
    (axes,) = figure.get_axes()
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["m3", "atlas (flagged)", "dcpt", "chinchilla:tokens=all", "broken (failed)"]
    drawn = {line.get_label(): list(line.get_xdata()) for line in axes.get_lines()}
    assert drawn["best, or within 2 standard errors of it"][:2] == [0.0, -3.0]
    assert drawn["behind"] == [-40.0, -90.0]
    assert {"0.70", "0.30", "0.00"} <= {text.get_text() for text in axes.texts}
