"""The figure of the mean-CVaR frontier."""

from __future__ import annotations

import numpy as np
import pandas as pd

from m3bayes.decision import Frontier
from m3bayes.plots import mean_cvar_frontier
from m3bayes.plots.frontier import labelled
from m3bayes.recipe import Recipe


def test_every_recipe_is_a_point_with_its_weight():
    recipes = (Recipe(1e6, 3e5, 8.0), Recipe(2e6, 3e5, 4.0))
    table = pd.DataFrame(
        {"weight": [0.0, 0.5], "mean": [0.01, 0.012], "cvar": [0.05, 0.03], "loss_mean": [2.0, 2.002],
         "regime": "monolingual", "params": [1e6, 2e6], "epochs": [8.0, 4.0]}
    )  # fmt: skip
    (axes,) = mean_cvar_frontier(Frontier(table, recipes, 0.8, 1e14, 3e5, ())).get_axes()
    (line,) = axes.get_lines()
    assert line.get_xydata().tolist() == [[0.01, 0.05], [0.012, 0.03]]
    assert [text.get_text().split(":")[0] for text in axes.texts] == ["w = 0", "w = 0.5"]
    assert "20% of the draws" in axes.get_ylabel() and "mean regret" in axes.get_xlabel()


def test_labels_do_not_cover_each_other():
    points = np.array([[0.0, 1.0], [0.01, 0.99], [0.5, 0.4], [0.98, 0.01], [1.0, 0.0]])
    assert labelled(points) == [0, 2, 4] and labelled(points[:1]) == [0]
