"""Risks: exact forms against closed forms for normal draws and naive sums; smooth forms; derivatives."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from m3bayes.decision import risk
from m3bayes.decision.risk import Risk, as_risk, parse
from m3bayes.errors import RecipeError

MEAN, SD, COUNT = 2.0, 0.3, 40_000
# the normal's quantiles in order: what a sample of that size is like, without its scatter
DRAWS = MEAN + SD * stats.norm.ppf((np.arange(COUNT) + 0.5) / COUNT)
Z = stats.norm.ppf(0.9)
EXPECTED = {
    "mean": (risk.mean(), MEAN),
    "quantile": (risk.quantile(0.9), MEAN + SD * Z),
    "cvar": (risk.cvar(0.9), MEAN + SD * stats.norm.pdf(Z) / 0.1),
    "probability": (risk.probability_of(1.8), stats.norm.sf((1.8 - MEAN) / SD)),
    "regret-quantile": (risk.regret_quantile(0.9), MEAN + SD * Z),
    "regret-cvar": (risk.regret_cvar(0.9), MEAN + SD * stats.norm.pdf(Z) / 0.1),
}


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", EXPECTED)
def test_risks_of_normal_draws_are_the_closed_forms(name):
    measured, expected = EXPECTED[name]
    order = np.random.default_rng(0).permutation(COUNT)
    assert float(measured(jnp.asarray(DRAWS[order]))) == pytest.approx(expected, rel=1e-4)
    assert measured.of_regret == name.startswith("regret")


@pytest.mark.parametrize("level", [0.05, 0.5, 0.87, 0.999])
def test_cvar_is_the_least_of_rockafellar_and_uryasev(level):
    """min over x of x + E[(v - x)_+] / (1 - level), which some draw attains."""
    values = np.random.default_rng(1).gamma(0.5, size=101)
    naive = min(x + np.mean(np.maximum(values - x, 0)) / (1 - level) for x in values)
    assert float(risk.cvar(level)(jnp.asarray(values))) == pytest.approx(naive, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "mean"])
def test_smooth_forms_become_the_exact_ones(name):
    measured = EXPECTED[name][0]
    assert measured.smooth is not None
    exact = float(measured(jnp.asarray(DRAWS)))
    values = jnp.asarray(DRAWS)
    wide, narrow = (abs(float(measured.smooth(values, w, *measured.at)) - exact) for w in (0.3, 0.03))
    # of second order in the width
    assert 0 < narrow < wide / 50


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "mean"])
def test_smooth_forms_differentiate_twice(name):
    measured, step = EXPECTED[name][0], 1e-4
    smooth = measured.smooth
    assert smooth is not None
    rng = np.random.default_rng(2)
    base, slope = jnp.asarray(1.8 + 0.3 * rng.normal(size=50)), jnp.asarray(rng.normal(size=50))

    def curve(x):
        return smooth(base + slope * x + 0.1 * slope**2 * x**2, 0.3, *measured.at)

    along, first, second = (jax.jit(f) for f in (curve, jax.grad(curve), jax.grad(jax.grad(curve))))
    assert float(first(0.2)) == pytest.approx(
        float(along(0.2 + step) - along(0.2 - step)) / 2 / step, rel=1e-5
    )
    assert float(second(0.2)) == pytest.approx(
        float(first(0.2 + step) - first(0.2 - step)) / 2 / step, rel=1e-5
    )


def test_draws_that_agree_have_that_risk():
    for measured, _ in EXPECTED.values():
        if not measured.name.startswith("P("):
            assert float(measured(jnp.full(8, 1.5))) == pytest.approx(1.5, abs=1e-12)
        if measured.smooth is not None:
            assert math.isfinite(float(measured.smooth(jnp.full(8, 1.5), 0.3, *measured.at)))


def test_risks_are_read_by_name():
    for text in ("mean", "quantile:0.9", "cvar:0.75", "regret-quantile:0.5", "regret-cvar:0.9"):
        assert parse(text).name == text and parse(text) == parse(f" {text}")
        assert hash(parse(text)) == hash(parse(text))


@pytest.mark.parametrize(
    "text", ["median", "mean:0.5", "cvar", "cvar:", "cvar:1", "quantile:0", "quantile:nan"]
)
def test_other_names_are_refused_in_one_line(text):
    with pytest.raises(RecipeError, match="expected") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_any_function_of_the_losses_is_a_risk():
    assert as_risk(jnp.max) == Risk("max", jnp.max)
    assert as_risk(None) == risk.mean() and as_risk(risk.cvar(0.9)) == risk.cvar(0.9)
    with pytest.raises(RecipeError, match="loss_at_most is inf"):
        risk.probability_of(math.inf)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 101])
@pytest.mark.parametrize("kind", ["continuous", "tied", "equal", "partly infinite"])
def test_exact_forms_are_those_of_sorted_values(kind, count):
    rng = np.random.default_rng(count)
    values = {
        "continuous": rng.normal(size=count),
        "tied": rng.integers(0, 3, count).astype(float),
        "equal": np.full(count, -1.5),
        "partly infinite": np.where(np.arange(count) < count // 3, np.inf, rng.normal(size=count)),
    }[kind]
    for q in (0.001, 0.05, 0.5, 0.75, 0.9, 0.999):
        found = float(risk.quantile(q)(jnp.asarray(values)))
        place = q * (count - 1)
        below, above = np.sort(values)[[math.floor(place), math.ceil(place)]]
        between = below if below == above else below + (place - math.floor(place)) * (above - below)
        assert found == pytest.approx(between, rel=1e-13, abs=1e-13)
        inside = (1 - q) * count
        shares = np.clip(inside - np.arange(count), 0, 1)
        worst = np.sort(values)[::-1][shares > 0] @ shares[shares > 0] / inside
        assert float(risk.cvar(q)(jnp.asarray(values))) == pytest.approx(worst, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("measured", [risk.quantile(0.75), risk.cvar(0.8)])
def test_exact_forms_differentiate(measured):
    values = jnp.asarray(np.random.default_rng(4).normal(size=30))
    slope = np.asarray(jax.grad(measured)(values))
    for i in range(30):
        moved = (float(measured(values.at[i].add(step))) for step in (1e-6, -1e-6))
        up, down = moved
        assert slope[i] == pytest.approx((up - down) / 2e-6, abs=1e-6)
