"""Figures of guidelines: what they show is what was computed. Results are made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from m3bayes.decision.guidelines import Collapse, ModelSize, RegimeMap, Threshold
from m3bayes.decision.regret import interval
from m3bayes.plots.guidelines import epochs_collapse, model_size, regime_map

C, U = np.geomspace(1e18, 1e22, 9), np.geomspace(1e8, 1e11, 12)


def a_map() -> RegimeMap:
    curve = 2e9 * (C / 1e20) ** 0.5
    x = np.log(U[None] / curve[:, None])
    curve[-1] = np.inf  # beyond the range
    two = 1 / (1 + np.exp(4 * x))
    alone = (1 - two) / (1 + np.exp(-3 * (x - 2)))
    two[0, -1] = np.nan
    D = 2e10 * (C / 1e20) ** 0.5
    threshold = Threshold(
        target_tokens=curve, lower=0.7 * curve, upper=1.4 * curve, scarcity=curve / D,
        scarcity_lower=0.7 * curve / D, scarcity_upper=1.4 * curve / D, below=np.zeros(9), above=np.zeros(9),
        one_crossing=np.ones(9), draws=np.tile(curve, (3, 1)),
    )  # fmt: skip
    probability = {"monolingual": alone, "single-stage": 1 - two - alone, "two-stage": two}
    return RegimeMap(C, U, probability, threshold, 1e3, 0.0, 0.9, ())


def table(name: str, values: np.ndarray) -> pd.DataFrame:
    compute, text = (grid.ravel() for grid in np.meshgrid(C[::2], U, indexing="ij"))
    x = text / (2e10 * (compute / 1e20) ** 0.5)
    middle = values[0] * x ** values[1]
    return pd.DataFrame(
        {"compute": compute, "target_tokens": text, "scarcity": x, name: middle, f"{name}_lower": 0.8 * middle,
         f"{name}_upper": 1.3 * middle}
    )  # fmt: skip


def a_collapse() -> Collapse:
    none, spread = np.empty((0, 5, 12)), interval(np.linspace(0.03, 0.06, 50), 0.9)
    cells = table("epochs", np.array([2.0, -0.6])).assign(rule=1.0)
    return Collapse(C[::2], U, none, none, spread, spread, 0.0, cells, 0.9, ())


def a_size() -> ModelSize:
    return ModelSize(C[::2], U, np.empty((0, 5, 12)), 0.0, table("ratio", np.array([0.9, 0.05])), 0.9, ())


def texts(figure) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_map_shows_probabilities_and_the_threshold():
    result = a_map()
    figure = regime_map(result)
    left, right = figure.axes
    said = texts(figure)
    for part in (
        "compute C [FLOP]",
        "unique target text D_T [1000 tokens]",
        "90 %",
        "two stages",
        "one stage",
    ):
        assert part in said
    for axes, values in ((left, result.threshold.target_tokens), (right, result.threshold.scarcity)):
        (line,) = axes.get_lines()
        assert np.asarray(line.get_ydata())[:-1] == pytest.approx(values[:-1])
        assert np.isnan(line.get_ydata()[-1])
        assert axes.get_xscale() == axes.get_yscale() == "log"
    colours = np.asarray(left.collections[0].get_array()).reshape(len(U), len(C), 3)
    assert colours[-1, 0] == pytest.approx(np.ones(3))  # nothing feasible: white
    assert not np.allclose(colours[0, 0], colours[-1, 4])


def test_curves_are_the_medians_of_each_compute():
    for figure, name, result in (
        (epochs_collapse(a_collapse()), "best epochs k* [-]", a_collapse().table),
        (model_size(a_size()), "best model size / N*(C) [-]", a_size().table),
    ):
        axes = figure.axes[0]
        said = texts(figure)
        assert name in said and "scarcity D_T / D*(C) [-]" in said and "90 % of the draws" in said
        column = "epochs" if "epochs" in result else "ratio"
        drawn = [line for line in axes.get_lines() if len(line.get_ydata()) == len(U)]
        assert len(drawn) == 5
        for line, (_, rows) in zip(drawn, result.groupby("compute"), strict=True):
            assert line.get_xdata() == pytest.approx(rows["scarcity"].to_numpy())
            assert line.get_ydata() == pytest.approx(rows[column].to_numpy())
    assert "3.15 % to 5.85 % of the range of log k*" in texts(epochs_collapse(a_collapse()))
