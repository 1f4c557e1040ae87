"""Scores of predictions against naive versions, closed forms and a change of units."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.evaluation.scores import Predictive, binomial_range, crps, predictive, score
from m3bayes.inference.noise import normal, student_t
from m3bayes.inference.predict import loss_draws, predict
from m3bayes.laws import chinchilla, m3
from m3bayes.runs import runs_from_frame
from tests.inference import synthetic

RUNS = synthetic.runs(30, seed=3)
NOISES = {
    "student-t": student_t(),
    "normal": normal(),
    "known": student_t(known=True),
    "groups": normal(by="g"),
}


def posterior(noise):
    frame = RUNS.frame().assign(loss_se=0.02, g=np.where(np.arange(30) % 2, "a", "b"))
    runs = runs_from_frame(frame)
    groups = ("a", "b") if noise.by else ()
    return synthetic.posterior(chinchilla(), runs, noise=noise, groups=groups, draws=25), runs


def naive_parts(post, runs):
    """(draw, run) log loss, its scale, and nu a draw, with plain loops."""
    losses = loss_draws(post, runs)
    scale, nu = np.empty(losses.shape), np.full(len(losses), np.inf)
    for d in range(len(losses)):
        chain, draw = divmod(d, post.draws["E"].shape[1])
        for i in range(len(runs)):
            sigma = post.draws["sigma"][chain, draw]
            sigma = sigma[post.groups.index(runs["g"][i])] if post.noise.by else sigma
            se = runs["loss_se"][i] / losses[d, i] if post.noise.known else 0.0
            scale[d, i] = np.hypot(sigma, se)
        if post.noise.kind == "student-t":
            nu[d] = post.draws["nu"][chain, draw]
    return np.log(losses), scale, nu


@pytest.mark.parametrize("kind", NOISES)
def test_density_and_probability_are_the_exact_mixture(kind):
    post, runs = posterior(NOISES[kind])
    log_loss, scale, nu = naive_parts(post, runs)
    found, y = predictive(post, runs), np.log(runs["loss"])
    density, below = np.zeros(len(runs)), np.zeros(len(runs))
    for d in range(len(log_loss)):
        # t with infinite degrees of freedom is the normal
        density += scipy.stats.t.pdf(y, nu[d], log_loss[d], scale[d]) / len(log_loss)
        below += scipy.stats.t.cdf(y, nu[d], log_loss[d], scale[d]) / len(log_loss)
    np.testing.assert_allclose(found.log_density(runs["loss"]), np.log(density / runs["loss"]), rtol=1e-10)
    np.testing.assert_allclose(found.probability_below(runs["loss"]), below, atol=1e-12)


def test_the_density_is_one_of_the_loss():
    post, runs = posterior(student_t())
    found = predictive(post, runs)
    some = Predictive(found.log_loss[:, :1], found.scale[:, :1], found.t, found.nu)
    total, _ = scipy.integrate.quad(
        lambda loss: np.exp(some.log_density(np.array([loss])))[0],
        1e-3,
        20,
        points=[float(some.loss_mean[0])],
    )
    assert total == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", NOISES)
def test_intervals_are_those_of_predict(kind):
    post, runs = posterior(NOISES[kind])
    lower, upper = predictive(post, runs).interval(0.8)
    expected = predict(post, runs, ci=0.8)
    np.testing.assert_allclose(lower, expected.new_run_lower, rtol=1e-12)
    np.testing.assert_allclose(upper, expected.new_run_upper, rtol=1e-12)
    np.testing.assert_allclose(predictive(post, runs).loss_mean, expected.loss_mean, rtol=1e-12)


def test_scores_against_their_formulas():
    post, runs = posterior(student_t())
    loss = runs["loss"] * 1.01
    found = predictive(post, runs)
    scores = asdict(score(found, loss))
    predicted = [float(np.mean(column)) for column in loss_draws(post, runs).T]
    pairs = list(zip(loss, predicted, strict=True))
    mean_log = sum(np.log(y) for y in loss) / len(loss)
    squares = sum((np.log(y) - np.log(p)) ** 2 for y, p in pairs)
    assert scores["R2"] == pytest.approx(1 - squares / sum((np.log(y) - mean_log) ** 2 for y in loss))
    assert scores["RMSE_log"] == pytest.approx((squares / len(loss)) ** 0.5)
    assert scores["RMSE"] == pytest.approx((sum((y - p) ** 2 for y, p in pairs) / len(loss)) ** 0.5)
    assert scores["MAPE"] == pytest.approx(sum(abs(y - p) / y for y, p in pairs) / len(loss))
    for level, share in (
        (0.5, scores["coverage_50"]),
        (0.9, scores["coverage_90"]),
        (0.95, scores["coverage_95"]),
    ):
        lower, upper = found.interval(level)
        inside = sum(low <= y <= high for low, y, high in zip(lower, loss, upper, strict=True))
        assert share == pytest.approx(inside / len(loss))
    lower, upper = found.interval(0.9)
    assert scores["width_90"] == pytest.approx(
        np.mean([np.log(u) - np.log(w) for w, u in zip(lower, upper, strict=True)])
    )
    assert scores["elpd"] == pytest.approx(sum(found.log_density(loss)))


def test_runs_of_one_loss_have_no_R2():
    post, runs = posterior(student_t())
    scores = score(predictive(post, runs), np.full(len(runs), 3.0))
    assert np.isnan(scores.R2) and np.isfinite(scores.elpd)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=12), st.floats(-3, 3))
def test_crps_is_the_double_sum(draws, y):
    x = np.array(draws)
    expected = np.mean(np.abs(x - y)) - np.mean(np.abs(x[:, None] - x[None, :])) / 2
    assert crps(x[:, None], np.array([y]))[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("mean", "sd", "y"), [(0.0, 1.0, 0.3), (2.0, 0.1, 1.7), (-1.0, 3.0, -1.0)])
def test_crps_of_normal_draws_is_the_closed_form(mean, sd, y):
    n = 20_000
    draws = scipy.stats.norm.ppf((np.arange(n) + 0.5) / n, mean, sd)  # no Monte Carlo error
    z = (y - mean) / sd
    phi, Phi = scipy.stats.norm.pdf(z), scipy.stats.norm.cdf(z)
    expected = sd * (
        z * (2 * Phi - 1) + 2 * phi - 1 / np.sqrt(np.pi)
    )  # Gneiting and Raftery 2007, section 4.2
    assert crps(draws[:, None], np.array([y]))[0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("factor", [0.5, 1 / np.log(2), 1000.0])
def test_other_units_of_loss_move_elpd_by_their_logarithm_only(factor):
    post, runs = posterior(normal())
    draws = dict(post.draws)
    for name in ("E", "A", "B"):
        draws[name] = draws[name] * factor
    scaled = replace(post, draws=draws)
    one = asdict(score(predictive(post, runs), runs["loss"]))
    other = asdict(score(predictive(scaled, runs), runs["loss"] * factor))
    moved = {"elpd": one["elpd"] - len(runs) * np.log(factor), "RMSE": factor * one["RMSE"]}
    assert other == pytest.approx(one | moved, rel=1e-9)


@pytest.mark.parametrize(("n", "level"), [(10, 0.9), (37, 0.9), (200, 0.5)])
def test_the_binomial_range_is_central(n, level):
    low, high = binomial_range(n, level)
    counts = scipy.stats.binom(n, level)
    assert counts.cdf(round(low * n) - 1) <= 0.025 < counts.cdf(round(low * n))
    assert counts.sf(round(high * n)) <= 0.025 < counts.sf(round(high * n) - 1)


def test_true_coefficients_cover_as_they_should():
    """Losses drawn from a draw of the posterior itself: the probabilities below them are uniform."""
    post = synthetic.posterior(m3(), synthetic.runs(400, seed=5), draws=50, spread=0.0)
    found = predictive(post, post.runs)
    rng = np.random.default_rng(0)
    chosen = rng.integers(100, size=400)
    scatter = found.scale[chosen, np.arange(400)] * rng.standard_t(found.nu[chosen])
    loss = np.exp(found.log_loss[chosen, np.arange(400)] + scatter)
    assert scipy.stats.kstest(found.probability_below(loss), "uniform").pvalue > 0.01
    scores = score(found, loss)
    assert scores.coverage_90_low <= scores.coverage_90 <= scores.coverage_90_high
