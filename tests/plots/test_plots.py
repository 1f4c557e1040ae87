"""Figures: what they show is what was computed, and a reader can tell what that is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from m3bayes import plots
from m3bayes.decision.space import ranges
from m3bayes.errors import InfeasibleError, M3BayesError
from m3bayes.inference.predict import predict
from m3bayes.laws import chinchilla, m3
from m3bayes.plots import style
from m3bayes.recipe import Recipe
from m3bayes.runs import runs_from_frame
from tests.inference import synthetic

RUNS = synthetic.runs()
POST = synthetic.posterior(m3(), RUNS, draws=100)
COMPUTE, U = 2e20, 3e9


def recommendation(runs=RUNS, seed: int = 0, n: int = 400) -> SimpleNamespace:
    """What optimum_posterior and recommendation read of a Recommendation."""
    rng = np.random.default_rng(seed)
    epochs = np.where(rng.random(n) < 0.3, 1.0, np.exp(rng.normal(1.2, 0.3, n)))
    draws = {
        "params": np.exp(rng.normal(20.5, 0.3, n)),
        "epochs": epochs,
        "target_ratio": np.clip(rng.normal(0.9, 0.2, n), 0.2, 1.0),
        "final_ratio": np.ones(n),
    }
    return SimpleNamespace(
        optimum=SimpleNamespace(draws=draws), recipe=Recipe(8e8, U, 3.2, 0.85, 1.0), compute=COMPUTE,
        target_tokens=U, ci=0.9, cost="6ND", loss=SimpleNamespace(mean=2.56, lower=2.49, upper=2.64),
        bounds={name: SimpleNamespace(low=low, high=high) for name, (low, high) in ranges(runs).items()},
    )  # fmt: skip


FIGURES = {
    "coefficient_forest": lambda: plots.coefficient_forest(POST),
    "loss_surface": lambda: plots.loss_surface(POST),
    "loss_surface of the ratios": lambda: plots.loss_surface(POST, "target_ratio", "final_ratio"),
    "loss_surface, one ratio": lambda: plots.loss_surface(POST, "target_tokens", "target_ratio"),
    "predicted_against_measured": lambda: plots.predicted_against_measured(POST),
    "loss_against_epochs": lambda: plots.loss_against_epochs(POST, COMPUTE, U),
    "loss_against_final_ratio": lambda: plots.loss_against_final_ratio(POST, COMPUTE, U),
    "optimum_posterior": lambda: plots.optimum_posterior(recommendation()),
    "recommendation": lambda: plots.recommendation(POST, recommendation()),
}


@pytest.fixture(scope="module", params=FIGURES)
def figure(request):
    return FIGURES[request.param]()


def all_text(figure) -> Iterator:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip():
            yield text


def legends(figure) -> list[str]:
    from matplotlib.legend import Legend

    return [text.get_text() for legend in figure.findobj(Legend) for text in legend.get_texts()]


def test_axes_say_what_and_in_which_unit(figure):
    label = figure.get_supxlabel()
    for axes in figure.get_axes():
        own = axes.get_xlabel()
        assert "[" in (own or label), axes
    assert (
        any("[" in axes.get_ylabel() or "share" in axes.get_ylabel() for axes in figure.get_axes()) or label
    )


def test_there_is_a_legend(figure):
    assert legends(figure)


def test_nothing_is_cut_off_and_tick_labels_do_not_touch(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    page = figure.bbox
    for text in all_text(figure):
        box = text.get_window_extent(renderer)
        if re.fullmatch(r"[\d.e\N{MINUS SIGN}-]+", text.get_text()):
            continue  # ticks beyond the view are kept, but not drawn
        assert box.x0 > page.x0 - 1 and box.x1 < page.x1 + 1, text
        assert box.y0 > page.y0 - 1 and box.y1 < page.y1 + 1, text
    for axes in figure.get_axes():
        for axis, start, end in ((axes.xaxis, "x0", "x1"), (axes.yaxis, "y0", "y1")):
            low, high = sorted(axis.get_view_interval())
            boxes = sorted(
                (
                    tick.label1.get_window_extent(renderer)
                    for tick in axis.get_major_ticks()
                    if low <= tick.get_loc() <= high and tick.label1.get_visible() and tick.label1.get_text()
                ),
                key=lambda box, start=start: getattr(box, start),
            )
            for first, second in pairwise(boxes):
                assert getattr(first, end) <= getattr(second, start), (axes.get_xlabel(), axes.get_ylabel())


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_saved_whole_and_replaced(tmp_path, ending):
    path = tmp_path / f"figure.{ending}"
    path.write_text("old")
    plots.save_figure(FIGURES["optimum_posterior"](), path)
    data = path.read_bytes()
    assert data.startswith(b"%PDF" if ending == "pdf" else b"\x89PNG")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_png_has_enough_pixels_for_print(tmp_path):
    plots.save_figure(FIGURES["loss_against_epochs"](), tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width >= 1200


@pytest.mark.parametrize("name", ["figure.jpg", "figure"])
def test_other_endings_are_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(M3BayesError, match=r"\.png"):
        plots.save_figure(FIGURES["optimum_posterior"](), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_importing_plots_does_not_import_matplotlib():
    code = "import sys, m3bayes.plots; print('matplotlib' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_forest_shows_the_quantiles():
    figure = plots.coefficient_forest(POST, ci=0.5)
    names = [axes.get_ylabel() for axes in figure.get_axes()]
    assert names == [*POST.law.names, "sigma", "nu"]
    axes = figure.get_axes()[names.index("alpha")]
    outer, inner, median = (line.get_xdata() for line in axes.get_lines())
    draws = POST.coefficients["alpha"]
    np.testing.assert_allclose(outer, np.quantile(draws, [0.005, 0.995]))
    np.testing.assert_allclose(inner, np.quantile(draws, [0.25, 0.75]))
    np.testing.assert_allclose(median, np.median(draws))
    assert "50 %" in legends(figure)
    signed = figure.get_axes()[names.index("gamma")]
    assert signed.get_xscale() == "linear"


def test_forest_of_groups_has_a_row_each():
    post = synthetic.posterior(
        chinchilla(), RUNS, noise=synthetic.student_t(by="language"), groups=("de", "sw"), draws=20
    )
    names = [axes.get_ylabel() for axes in plots.coefficient_forest(post).get_axes()]
    assert names[-3:] == ["sigma[de]", "sigma[sw]", "nu"]


def test_predicted_against_measured_states_r2_and_coverage():
    figure = plots.predicted_against_measured(POST, ci=0.8)
    found = predict(POST, RUNS, ci=0.8)
    residual = np.log(RUNS["loss"]) - np.log(found.loss_mean)
    r2 = 1 - (residual**2).sum() / ((np.log(RUNS["loss"]) - np.log(RUNS["loss"]).mean()) ** 2).sum()
    inside = ((found.new_run_lower <= RUNS["loss"]) & (RUNS["loss"] <= found.new_run_upper)).sum()
    left, right = figure.get_axes()
    assert f"{r2:.4f}" in left.get_title()
    assert right.get_title().startswith(f"{inside} of {len(RUNS)} runs")
    assert left.get_xscale() == left.get_yscale() == "log"
    assert any("80 %" in text for text in legends(figure))


def test_surface_has_log_axes_runs_and_the_level():
    figure = plots.loss_surface(POST, "params", "target_tokens", {"epochs": 3}, ci=0.5)
    left, _, *bars = figure.get_axes()
    assert left.get_xscale() == left.get_yscale() == "log"
    (runs,) = [line for line in left.get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose(runs.get_xdata(), RUNS["params"])
    assert any("50 %" in bar.get_xlabel() for bar in bars)
    assert "k = 3" in figure.get_suptitle() and "r = 1" in figure.get_suptitle()


def test_surface_levels_span_the_mean_losses():
    figure = plots.loss_surface(POST, "params", "epochs", {"target_tokens": 1e9})
    corners = [
        predict(POST, {"params": N, "target_tokens": 1e9, "epochs": k}, new_run=False).loss_mean[0]
        for N in (RUNS["params"].min(), RUNS["params"].max())
        for k in (RUNS["epochs"].min(), RUNS["epochs"].max())
    ]
    levels = figure.get_axes()[0].collections[0].levels
    assert levels[0] <= min(corners)
    assert levels[-1] >= np.median(corners)


@pytest.mark.parametrize(
    "arguments", [("params", "params"), ("size", "epochs"), ("params", "epochs", {"epochs": 2}),
                  ("params", "epochs", {"flops": 2})]
)  # fmt: skip
def test_surface_refuses_what_is_no_variable(arguments):
    with pytest.raises(M3BayesError) as error:
        plots.loss_surface(POST, *arguments)
    assert "\n" not in str(error.value)


def test_runs_of_one_size_still_have_a_surface():
    runs = runs_from_frame(RUNS.frame().assign(params=6e7, target_ratio=1.0, final_ratio=1.0))
    post = synthetic.posterior(m3(), runs, draws=20)
    low, high = plots.loss_surface(post, "params", "target_ratio").get_axes()[0].get_xlim()
    assert low < 6e7 < high


def curve(axes, regime: str):
    """x and y of a regime's mean curve."""
    (line,) = [line for line in axes.get_lines() if line.get_label() == style.REGIME_NAMES[regime]]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def test_loss_against_epochs_by_hand():
    axes = plots.loss_against_epochs(POST, COMPUTE, U).get_axes()[0]
    k, loss = curve(axes, "monolingual")
    assert k[0] == pytest.approx(RUNS["epochs"].min())
    assert k[-1] == pytest.approx(min(RUNS["epochs"].max(), RUNS.tokens.max() / U), rel=0.1)
    params = np.minimum(COMPUTE / (6 * k * U), RUNS["params"].max())
    expected = predict(POST, {"params": params, "target_tokens": U, "epochs": k}, new_run=False)
    np.testing.assert_allclose(loss, expected.loss_mean)
    (bands,) = [
        c for c in axes.collections if len(c.get_paths()[0].vertices) and c.get_facecolor()[0, 2] > 0.6
    ]
    low, high = bands.get_paths()[0].vertices[:, 1].min(), bands.get_paths()[0].vertices[:, 1].max()
    assert low == pytest.approx(expected.loss_lower.min()) and high == pytest.approx(
        expected.loss_upper.max()
    )
    assert axes.get_xscale() == "log"
    assert "90 %" in axes.get_title()


@pytest.mark.parametrize("plot", [plots.loss_against_epochs, plots.loss_against_final_ratio])
def test_no_recipe_on_the_grid_beats_the_curves(plot):
    axes = plot(POST, COMPUTE, U).get_axes()[0]
    rng = np.random.default_rng(0)
    _, single = curve(axes, "single-stage")
    _, two = curve(axes, "two-stage")
    n, least = 300, RUNS["target_ratio"].min()
    k = np.exp(rng.uniform(0, np.log(RUNS["epochs"].max()), n))
    r = rng.uniform(least, 1, n)

    def losses(r, r_f):
        params = np.minimum(COMPUTE * r / (6 * k * U), RUNS["params"].max())
        table = {"params": params, "target_tokens": U, "epochs": k, "target_ratio": r, "final_ratio": r_f}
        fits = (k * U / r <= RUNS.tokens.max()) & (k * U * (1 - r) / r <= RUNS.source_tokens.max())
        recipes = {name: np.broadcast_to(values, n)[fits] for name, values in table.items()}
        return predict(POST, recipes, new_run=False).loss_mean

    assert single.min() < losses(r, r).min() + 1e-3
    r_f = rng.uniform(r, np.minimum(1, r / RUNS.last_stage_share.min()))
    assert two.min() < losses(r, r_f).min() + 1e-3


def test_units_do_not_move_the_curves():
    frame = RUNS.frame()
    small = runs_from_frame(
        frame.assign(params=frame.params / 1e6, target_tokens=frame.target_tokens / 1e9),
        unit_params=1e6, unit_tokens=1e9,
    )  # fmt: skip
    draws = dict(POST.draws)
    draws["A"] = draws["A"] * 1e6 ** -draws["alpha"]
    draws["B"] = draws["B"] * 1e9 ** -draws["beta"]
    draws["P"] = draws["P"] * 1e-3 ** draws["kappa"]
    post = type(POST)(POST.law, POST.noise, small, draws, settings=POST.settings)
    k, loss = curve(plots.loss_against_epochs(POST, COMPUTE, U).get_axes()[0], "two-stage")
    k_small, loss_small = curve(plots.loss_against_epochs(post, COMPUTE, U / 1e9).get_axes()[0], "two-stage")
    np.testing.assert_allclose(k_small, k)
    np.testing.assert_allclose(loss_small, loss, rtol=1e-9)
    label = plots.loss_surface(post).get_axes()[0].get_xlabel()
    assert "[1e6 parameters]" in label


def test_regimes_that_were_never_run_are_left_out():
    single = RUNS.frame().assign(final_ratio=RUNS["target_ratio"])
    mono = single.assign(target_ratio=1.0, final_ratio=1.0)
    for frame, regimes in ((single, 2), (mono, 1)):
        post = synthetic.posterior(m3(), runs_from_frame(frame), draws=20)
        assert len(legends(plots.loss_against_epochs(post, COMPUTE, U))) == regimes
    assert len(legends(plots.loss_against_final_ratio(post, COMPUTE, U))) == 1
    assert len(plots.recommendation(post, recommendation(post.runs)).get_axes()) == 5


@pytest.mark.parametrize("plot", [plots.loss_against_epochs, plots.loss_against_final_ratio])
def test_budgets_that_no_run_is_like_are_refused(plot):
    with pytest.raises(InfeasibleError, match="1e12 FLOP"):
        plot(POST, 1e12, U)


def test_lifted_bounds_leave_a_figure():
    result = recommendation()
    for name, low, high in (("epochs", 0.0, np.inf), ("params", 0.0, np.inf), ("tokens", 0.0, np.inf)):
        result.bounds[name] = SimpleNamespace(low=low, high=high)
    low, high = plots.recommendation(POST, result).get_axes()[0].get_xlim()
    assert low < 3.2 / 20 and high > 3.2 * 20


def test_another_cost_is_drawn_at_the_flop_of_its_recipe():
    result = recommendation()
    result.cost, result.compute = "hours", 100.0
    spent = 6 * 8e8 * result.recipe.tokens
    assert style.short_number(spent) + " FLOP" in plots.recommendation(POST, result).get_axes()[0].get_title()


def test_marginals_name_the_corner_and_mark_the_recipe():
    result = recommendation()
    figure = plots.optimum_posterior(result)
    by_label = {axes.get_xlabel().split()[0]: axes for axes in figure.get_axes()}
    epochs = by_label["passes"]
    share = np.mean(result.optimum.draws["epochs"] == 1)
    assert epochs.get_title(loc="right") == f"{style.percent(share)} at 1"
    (line,) = epochs.get_lines()
    assert set(line.get_xdata()) == {3.2}
    assert epochs.get_xscale() == "log"
    assert sum(bar.get_height() for bar in epochs.patches) == pytest.approx(1.0)
    assert not by_label["model"].get_title(loc="right")


@pytest.mark.parametrize("ci", [0, 1, 90])
@pytest.mark.parametrize(
    "plot",
    [plots.coefficient_forest, plots.predicted_against_measured, plots.loss_surface,
     lambda post, ci: plots.loss_against_epochs(post, COMPUTE, U, ci)],
)  # fmt: skip
def test_intervals_that_are_none_are_refused(plot, ci):
    with pytest.raises(M3BayesError, match="between 0 and 1"):
        plot(POST, ci=ci)


@pytest.mark.parametrize("compute, tokens", [(0, U), (-1, U), (np.inf, U), (COMPUTE, 0.0), (COMPUTE, np.nan)])
def test_impossible_budgets_are_refused(compute, tokens):
    with pytest.raises(M3BayesError, match="positive"):
        plots.loss_against_epochs(POST, compute, tokens)


@pytest.mark.parametrize(
    "value, text",
    [(1e9, "1e9"), (3e7, "3e7"), (1.3e9, "1.3e9"), (0.02, "0.02"), (40, "40"), (2000, "2000"), (1e-5, "1e-5"),
     (0, "0"), (12345.0, "1.23e4")],
)  # fmt: skip
def test_short_numbers(value, text):
    assert style.short_number(value) == text
