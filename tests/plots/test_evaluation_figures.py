"""Figures of checks and calibrations."""

from __future__ import annotations

import numpy as np
import pytest

from m3bayes import plots
from m3bayes.evaluation.calibrate import summary
from m3bayes.evaluation.checks import check
from m3bayes.evaluation.uniformity import POINTS, band
from m3bayes.plots.style import BLUE, VERMILLION
from tests.evaluation.exact import design, exact_fit, measured
from tests.plots.test_plots import legends


def calibration(shift: float = 0.0, rows: int = 200, quantities: int = 6):
    random = np.random.default_rng(0)
    return summary(
        [
            {
                "number": i,
                "verdict": "passed",
                "attempts": 1,
                "seconds": 1.0,
                "ranks": {f"q{j}": int(100 * u[j] ** (1 + shift * (j == 0))) for j in range(quantities)},
                "places": {f"q{j}": float(u[j] ** (1 + shift * (j == 0))) for j in range(quantities)},
            }
            for i, u in enumerate(random.uniform(size=(rows, quantities)))
        ]
    )


def lines(axes):
    return [line for line in axes.get_lines() if len(line.get_xdata()) == len(POINTS)]


def test_checked_shows_pit_and_the_worst_trends_first():
    recipes = design(60)
    u = np.log(recipes["target_tokens"])
    found = check(exact_fit(measured(recipes, shift=0.01 * (u - u.mean()) ** 2)))
    figure = plots.checked(found)
    shown = [axes for axes in figure.get_axes() if axes.get_visible()]
    assert len(shown) == 4  # PIT and the three variables that vary
    assert all("[" in axes.get_xlabel() for axes in shown)
    assert "target text" in shown[1].get_xlabel() and shown[1].get_xscale() == "log"
    # compute goes with the text
    assert [panel.title.get_color() == VERMILLION for panel in shown[1:]] == [True, True, False]
    assert all("trend" in panel.get_title() and "spread" in panel.get_title() for panel in shown[1:])
    assert "runs" in legends(figure)
    (line,) = lines(shown[0])
    pit = found.runs["pit"].to_numpy()
    assert line.get_ydata()[49] == pytest.approx(np.mean(pit <= 0.5) - 0.5)


def test_checked_shows_what_the_spread_depends_on():
    found = check(exact_fit(measured(design(60))))
    spread = (found.table["test"] == "trend of spread") & (found.table["about"] == "params")
    found.table.loc[spread, ["p", "adjusted"]] = 1e-6
    first = plots.checked(found).get_axes()[1]
    assert "model size" in first.get_xlabel() and "spread 1e-06" in first.get_title()
    assert first.title.get_color() == VERMILLION


def test_checked_draws_apart_what_leads_the_fit():
    found = check(exact_fit(measured(design(60))))
    found.runs.loc[3, "pareto_k"] = 0.9
    assert "leads the fit" in legends(plots.checked(found))


def test_calibrated_shows_every_quantity_and_the_coverage():
    found = calibration()
    figure = plots.calibrated(found)
    shown = [axes for axes in figure.get_axes() if axes.get_visible()]
    assert [axes.get_title() for axes in shown[:-1]] == list(found.table.index)
    assert "[" in figure.get_supxlabel() and "95 %" in legends(figure)[0]
    expected = band(200, 1 - 0.05 / 6)
    for axes in shown[:-1]:
        (line,) = lines(axes)
        inside = (line.get_ydata() + POINTS >= expected.lower) & (line.get_ydata() + POINTS <= expected.upper)
        assert inside.all() and line.get_color() == BLUE
    assert len(shown[-1].get_lines()) == 7


def test_calibrated_colours_what_is_off():
    found = calibration(shift=1.0)
    assert not found.table.loc["q0", "uniform"] and not found.table.loc["q0", "covered"]
    first, second = plots.calibrated(found).get_axes()[:2]
    assert lines(first)[0].get_color() == VERMILLION
    assert lines(second)[0].get_color() == BLUE
