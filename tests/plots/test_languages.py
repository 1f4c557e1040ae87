"""Figures of many languages: what they show is what was computed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from m3bayes.languages import (
    crossover,
    equal_loss,
    pair_scores,
    published_equal_loss,
    transfer_matrix,
    transfer_score,
)
from m3bayes.languages.transfer import TransferScore
from m3bayes.laws import atlas, continued, multilingual
from m3bayes.plots.languages import crossover_line, equal_loss_factors, transfer_heat_map, transfer_scores
from m3bayes.plots.style import save_figure
from tests.inference.synthetic import posterior, runs
from tests.languages.designs import (
    CONTINUED,
    MULTILINGUAL,
    TRILINGUAL,
    by_hand,
    continued_runs,
    multilingual_runs,
    trilingual_runs,
)


def texts(figure) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def saved(figure, tmp_path) -> None:
    save_figure(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_factors_are_drawn_beside_the_published_ones(tmp_path):
    times = np.geomspace(1, 16, 9)
    result = equal_loss(by_hand(multilingual(), MULTILINGUAL, multilingual_runs()), times)
    figure = equal_loss_factors(result)
    (axes,) = figure.axes
    reported = published_equal_loss(times)
    ours, theirs = axes.get_lines()[0:6:2], axes.get_lines()[1:6:2]
    for name, line, dotted in zip(("compute", "tokens", "params"), ours, theirs, strict=True):
        assert line.get_ydata() == pytest.approx(result.table[name].to_numpy())
        assert dotted.get_ydata() == pytest.approx(reported[name].to_numpy())
    said = texts(figure)
    for part in ("times as many languages", "90 % of the draws", "published", "factor at equal loss"):
        assert part in said
    assert axes.get_xscale() == axes.get_yscale() == "log"
    saved(figure, tmp_path)


@pytest.mark.parametrize("never", [0.0, 0.03, 0.3, 0.97, 1.0])
def test_the_crossover_and_what_never_crosses(never, tmp_path):
    post = by_hand(continued(), CONTINUED, continued_runs())
    rho = np.where(np.arange(400).reshape(2, 200) < 400 * never, 1.1, post.draws["rho"])
    result = crossover(dataclasses.replace(post, draws={**post.draws, "rho": rho}), np.geomspace(3e7, 1e9, 7))
    figure = crossover_line(result, post.runs)
    for axes, name in zip(figure.axes, ("tokens", "compute"), strict=True):
        low, high = axes.get_ylim()
        assert 0 < low < high < 1e30
        if never == 1:
            assert not axes.get_lines()
            continue
        expected = result.table[name].to_numpy()
        drawn = np.asarray(axes.get_lines()[0].get_ydata())
        np.testing.assert_array_equal(np.isnan(drawn), np.isinf(expected))
        fine = np.isfinite(expected)
        assert drawn[fine] == pytest.approx(expected[fine])
    said = texts(figure)
    for part in ("model size N [parameters]", "[FLOP]", "not measured both ways"):
        assert part in said
    # with no line to be the sides of, neither side is named, nor how the line rises
    crosses = never < 1
    for part in ("from scratch is better", "grows as", "90 % of the draws", "crossover, median"):
        assert (part in said) == crosses
    assert said.count("the checkpoint is better in every draw") == (0 if crosses else 2)
    saved(figure, tmp_path)


def test_sizes_beyond_the_runs_are_shaded():
    post = by_hand(continued(), CONTINUED, continued_runs())
    ends = post.runs["params"].min(), post.runs["params"].max()
    figure = crossover_line(crossover(post, np.geomspace(ends[0] / 3, ends[1] * 3, 9)), post.runs)
    for axes in figure.axes:
        spans = [(box.get_x(), box.get_x() + box.get_width()) for box in axes.patches]
        assert spans == [
            pytest.approx((ends[0] / 3 / 1.1, ends[0]), rel=1e-6),
            pytest.approx((ends[1], ends[1] * 3 * 1.1), rel=1e-6),
        ]


def test_scores_have_a_row_each(tmp_path):
    posts = {("en", "de"): posterior(atlas(), runs()), ("de", "en"): posterior(atlas(), runs(), seed=1)}
    result = pair_scores(posts, [1e9, 2e9])
    figure = transfer_scores(result)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "en to de, d = 1e9", "en to de, d = 2e9", "de to en, d = 1e9", "de to en, d = 2e9",
    ]  # fmt: skip
    assert axes.get_lines()[0].get_xdata() == pytest.approx(result.table["score"].to_numpy())
    ends = np.array([part.vertices[:, 0] for part in axes.collections[0].get_paths()])
    assert ends == pytest.approx(result.table[["score_lower", "score_upper"]].to_numpy())
    assert "transfer score" in texts(figure) and "90 % of the draws" in texts(figure)
    saved(figure, tmp_path)


def test_scores_that_are_never_reached_are_arrows(tmp_path):
    found = transfer_score(posterior(atlas(), runs()), [1e9, 2e9, 3e9])
    table = found.table.copy()
    table.loc[0, "score_lower"] = -np.inf
    table.loc[1, ["score_lower", "score", "score_upper"]] = -np.inf
    figure = transfer_scores(TransferScore(table, found.scores, found.params, 0.9, ()))
    (axes,) = figure.axes
    medians, arrows = axes.get_lines()[:2]
    assert list(medians.get_ydata()) == [0, -2] and list(arrows.get_ydata()) == [0, -1]
    low, high = axes.get_xlim()
    assert low < min(arrows.get_xdata()) < min(medians.get_xdata()) < high
    assert "never reached" in texts(figure)
    saved(figure, tmp_path)


def test_the_matrix_is_coloured_by_its_medians_and_blank_elsewhere(tmp_path):
    table = trilingual_runs()
    truth = TRILINGUAL | {"tau_de": 0.8, "tau_ru": -0.4}
    posts = {
        "de": by_hand(atlas(sources=("en", "fr", "ru")), truth, table),
        "en": by_hand(atlas(sources=("de", "fr")), truth, table),
    }
    result = transfer_matrix(posts)
    figure = transfer_heat_map(result)
    axes, _ = figure.axes
    (image,) = axes.get_images()
    shown = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_array_equal(shown, result.matrix().to_numpy())
    low, high = image.get_clim()
    assert -low == high == pytest.approx(np.nanmax(np.abs(shown)))  # no worth is in the middle
    assert [label.get_text() for label in axes.get_xticklabels()] == ["en", "fr", "ru", "de"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["de", "en"]
    cells = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert set(cells) == set(zip(*np.nonzero(np.isfinite(shown)), strict=True))
    row = result.table.iloc[2]
    assert cells[0, 2] == f"{row['tau']:.2g}\n{row['tau_lower']:.2g} to {row['tau_upper']:.2g}"
    assert "worth of a source token" in texts(figure) and "90 % intervals" in texts(figure)
    saved(figure, tmp_path)
    small = transfer_heat_map(transfer_matrix({"en": by_hand(atlas(sources=("de", "fr")), truth, table)}))
    saved(small, tmp_path)
    small.draw_without_rendering()
    parts = [part for axes in small.axes for part in (axes.title, axes.yaxis.label, axes.xaxis.label)]
    for text in (*parts, *small.texts):
        box = text.get_window_extent()
        inside = box.x0 >= 0 and box.x1 <= small.bbox.x1 and box.y0 >= 0 and box.y1 <= small.bbox.y1
        assert not text.get_text() or inside, text
