"""What holds of every law and every option."""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpyro.distributions import biject_to

from m3bayes.laws import LAWS, all_laws, named
from m3bayes.laws.law import Law
from tests.laws.surfaces import coefficients, compiled, loss, naive, plausible, recipe, recipes

VARIANTS = (
    *all_laws(),
    named("m3", penalty_tokens="target+source"),
    named("m3", floor=True),
    named("target_ratio", repetition=True),
    named("atlas", sources=("en", "fr"), similarity={"en": 0.6}, other=True),
    *(
        named(n, tokens="all")
        for n in ("chinchilla", "data_constrained", "prescriptive", "practical", "farseer")
    ),
)
ADDITIVE = tuple(law for law in VARIANTS if law.log_shapes is not None)
EQUIVARIANT = tuple(law for law in VARIANTS if law.equivariant)
few = settings(max_examples=20, deadline=None)


def label(law: Law) -> str:
    return "-".join((law.name, *(str(value) for value in law.options.values())))


every_law = pytest.mark.parametrize("law", VARIANTS, ids=label)


@every_law
def test_the_formula(law):
    """At 200 recipes with their own coefficients: some at k = 1 or a ratio of 1, r_f on both sides of r."""
    rng = np.random.default_rng(11)
    x = {name: rng.choice(values, 200) for name, values in typical_table(150).items()}
    for name in ("epochs", "target_ratio", "final_ratio"):
        x[name][rng.random(200) < 0.2] = 1.0
    spread = 0.03 if law.name == "farseer" else 0.25
    c = {name: value * rng.uniform(1 - spread, 1 + spread, 200) for name, value in plausible(law).items()}
    ours = jax.jit(jax.vmap(law.loss))(c, x)
    rows = [({n: v[i] for n, v in c.items()}, {n: v[i] for n, v in x.items()}) for i in range(200)]
    np.testing.assert_allclose(ours, [naive(law, *row) for row in rows], rtol=1e-10)


@every_law
def test_log_loss_is_the_log(law):
    c, x = plausible(law), recipe(epochs=3.0, target_ratio=0.4, final_ratio=0.8)
    assert law.log_loss(c, x) == pytest.approx(np.log(naive(law, c, x)), rel=1e-12)


SMOOTH = (
    recipe(epochs=0.3, target_ratio=0.4, final_ratio=0.9),
    recipe(params=5e9, epochs=3.0, target_ratio=0.15, final_ratio=0.6),
    recipe(params=2e7, target_tokens=3e10, epochs=14.0, target_ratio=0.8, final_ratio=0.3),
    recipe(epochs=6.0),
)


@lru_cache
def slope(law: Law):
    return jax.jit(jax.grad(law.loss, argnums=(0, 1)))


def difference(law: Law, c, x, name: str, side: int) -> float:
    """Central (side 0) or one-sided difference by a coefficient or a variable of the recipe."""
    step = (1e-6 if side == 0 else 1e-7) * abs((c | x)[name])
    where = [c | x for _ in range(2)]
    where[0][name] += step * (side >= 0)
    where[1][name] -= step * (side <= 0)
    up, down = (loss(law, {n: v[n] for n in c}, {n: v[n] for n in x}) for v in where)
    return (up - down) / (step * (2 if side == 0 else 1))


@every_law
def test_gradients_are_right(law):
    # names of coefficients and of columns do not collide, so one dictionary can hold both
    c = plausible(law)
    for x in SMOOTH:
        by_coefficient, by_variable = slope(law)(c, x)
        for name, value in {**by_coefficient, **by_variable}.items():
            side = -1 if name.endswith("ratio") and x[name] == 1.0 else 0
            expected = difference(law, c, x, name, side)
            scale = loss(law, c, x) / abs((c | x)[name])
            assert value == pytest.approx(expected, rel=2e-5, abs=2e-7 * scale), (name, x)


@every_law
def test_gradients_at_the_corners_are_finite(law):
    """At k = 1 and ratios of 1 slopes lie between the one-sided ones."""
    c = plausible(law)
    for x in (recipe(), recipe(target_ratio=0.3), recipe(target_ratio=0.3, final_ratio=0.6)):
        by_coefficient, by_variable = slope(law)(c, x)
        assert np.isfinite([*by_coefficient.values(), *by_variable.values()]).all()
        left, right = (difference(law, c, x, "epochs", side) for side in (-1, 1))
        slack = 1e-5 * (abs(left) + abs(right))
        assert min(left, right) - slack <= by_variable["epochs"] <= max(left, right) + slack
        for name in ("target_ratio", "final_ratio"):
            inside = difference(law, c, x, name, -1)
            assert by_variable[name] == pytest.approx(inside, rel=1e-5, abs=1e-7)


@every_law
@few
@given(data=st.data())
def test_more_of_everything_is_never_worse(law, data):
    """Without overfitting the loss falls in N (Farseer apart), in k and in U, and never leaves (E, inf)."""
    off = {"P": 0.0} if "P" in law.names else {"c": 0.0} if law.name == "practical" else {}
    c, x = data.draw(coefficients(law, **off)), data.draw(recipes())
    here = loss(law, c, x)
    grow = data.draw(st.floats(1.05, 3.0))
    for name in ("params", "epochs", "target_tokens"):
        if not (law.name == "farseer" and name == "params"):
            assert loss(law, c, {**x, name: x[name] * grow}) <= here * (1 + 1e-14), name
    if law.name != "farseer":
        assert here > c["E"]


@pytest.mark.parametrize("law", EQUIVARIANT, ids=label)
@few
@given(data=st.data())
def test_units_do_not_matter(law, data):
    """Coefficients converted by ``at`` and ``of_loss`` give the same loss in other units."""
    c, x = data.draw(coefficients(law)), data.draw(recipes())
    unit = {n: 10.0 ** data.draw(st.floats(-9, 9)) for n in ("params", "tokens", "loss")}
    there = in_units(x, unit["params"], unit["tokens"])
    converted = {}
    for coefficient in law.coefficients:
        value = c[coefficient.name] / (unit["loss"] if coefficient.of_loss else 1.0)
        for quantity, power in coefficient.at.items():
            of = law.references[quantity]
            size = unit["params"] ** of.params * unit["tokens"] ** of.tokens
            value *= size ** (signed(power) * c[power.lstrip("-")])
        converted[coefficient.name] = value
    assert loss(law, converted, there) * unit["loss"] == pytest.approx(loss(law, c, x), rel=1e-9)


@every_law
def test_references_have_the_units_they_state(law):
    x = recipe(epochs=3.0, target_ratio=0.4)
    there = in_units(x, 1e3, 1e5)
    for name in {quantity for c in law.coefficients for quantity in c.at}:
        of = law.references[name]
        change = of.log_value(x) - of.log_value(there)
        assert change == pytest.approx(of.params * np.log(1e3) + of.tokens * np.log(1e5), abs=1e-9)


def in_units(x, params: float, tokens: float) -> dict[str, float]:
    """A recipe in other units of parameters and of tokens."""
    unit = {"params": params, "tokens": tokens}
    return {name: value / unit.get(name.rpartition("_")[2], 1.0) for name, value in x.items()}


def signed(power: str) -> float:
    return -1.0 if power.startswith("-") else 1.0


def typical_table(runs: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    r = np.exp(rng.uniform(np.log(0.05), 0, runs))
    return {
        "params": np.exp(rng.uniform(np.log(2e7), np.log(3e9), runs)),
        "target_tokens": np.exp(rng.uniform(np.log(1e8), np.log(1e10), runs)),
        "epochs": np.exp(rng.uniform(np.log(0.3), np.log(30), runs)),
        "target_ratio": r,
        "final_ratio": np.maximum(r, rng.uniform(0, 1, runs)),
        "languages": np.exp(rng.uniform(0, np.log(50), runs)),
        "continued": rng.integers(0, 2, runs).astype(float),
        **{
            name: np.exp(rng.uniform(np.log(1e8), np.log(1e10), runs))
            for name in ("en_tokens", "en_unique_tokens", "fr_tokens", "fr_unique_tokens")
        },
    }


def prior_draws(law: Law, x, median_loss: float, draws: int = 1000) -> dict[str, jax.Array]:
    """Draws of the coefficients themselves, from the priors of the reference-scaled ones."""
    keys = jax.random.split(jax.random.key(3), len(law.names))
    u = {c.name: c.prior.sample(key, (draws,)) for c, key in zip(law.coefficients, keys, strict=True)}
    result = {}
    for c in law.coefficients:
        result[c.name] = u[c.name] * (median_loss if c.of_loss else 1.0)
        for quantity, power in c.at.items():
            reference = jnp.exp(jnp.nanmean(jax.vmap(law.references[quantity].log_value)(x)))
            result[c.name] /= reference ** (signed(power) * u[power.lstrip("-")])
    return result


@every_law
def test_prior_draws_give_sensible_losses(law):
    x = {name: jnp.asarray(values) for name, values in typical_table().items()}
    median_loss = 0.6 if law.name == "farseer" else 3.0
    c = prior_draws(law, x, median_loss)
    losses = np.asarray(jax.jit(jax.vmap(jax.vmap(law.loss, (None, 0)), (0, None)))(c, x)) / median_loss
    assert losses.shape == (1000, 40)
    assert np.isfinite(losses).all()
    assert (losses > 0).all()
    # weak, but not absurd: wide about the measured losses
    low, middle, high = np.quantile(losses, [0.05, 0.5, 0.95])
    exponents_of_exponents = law.name == "farseer"
    assert 0.6 < middle < (3 if exponents_of_exponents else 1.5)
    assert 0.1 < low < 0.65
    assert 2 < high < (60 if exponents_of_exponents else 6)


@every_law
def test_priors_can_be_sampled_from(law):
    for c in law.coefficients:
        draws = c.prior.sample(jax.random.key(1), (1000,))
        assert draws.dtype == jnp.float64
        assert np.isfinite(c.prior.log_prob(draws)).all()
        there_and_back = biject_to(c.prior.support)
        np.testing.assert_allclose(there_and_back(there_and_back.inv(draws)), draws, rtol=1e-6)


@every_law
def test_plausible_coefficients_are_inside_the_priors(law):
    c = plausible(law)
    for coefficient in law.coefficients:
        if not coefficient.at and not coefficient.of_loss:
            assert np.isfinite(coefficient.prior.log_prob(c[coefficient.name])), coefficient.name


@pytest.mark.parametrize("name", LAWS)
def test_a_law_does_not_depend_on_the_precision_it_is_built_in(name):
    double = LAWS[name].__wrapped__()
    with jax.enable_x64(False):
        single = LAWS[name].__wrapped__()
    for one, other in zip(double.coefficients, single.coefficients, strict=True):
        value = biject_to(one.prior.support)(0.3)
        assert one.prior.log_prob(value) == other.prior.log_prob(value), one.name


@pytest.mark.parametrize("law", ADDITIVE, ids=label)
def test_additive_laws_are_the_sum_of_their_terms(law):
    c, x = plausible(law), recipe(epochs=3.0, target_ratio=0.4, final_ratio=0.8)
    probe = law.log_shapes(c, x)
    others = {name: value for name, value in c.items() if name not in probe}
    log_shapes = law.log_shapes(others, x)  # would raise KeyError if it read a scale
    assert next(iter(log_shapes)) == "E"
    assert all(law[name].of_loss for name in log_shapes)
    total = sum(c[name] * np.exp(float(log)) for name, log in log_shapes.items())
    assert total == pytest.approx(loss(law, c, x))


def droppable():
    return [
        pytest.param(law, c.name, id=f"{label(law)}-{c.name}")
        for law in VARIANTS
        for c in law.coefficients
        if c.off is not None
    ]


@pytest.mark.parametrize(("law", "name"), droppable())
def test_a_nested_law_is_the_full_law_at_the_off_value(law, name):
    nested = named(law.name, **{**law.options, "drop": (name,)})
    c = plausible(law)
    kept = {n: c[n] for n in nested.names}
    assert name not in nested.names
    assert nested.options == {**law.options, "drop": (name,)}
    x = {column: np.array([at[column] for at in SMOOTH]) for column in SMOOTH[0]}
    np.testing.assert_allclose(nested.loss(kept, x), law.loss({**c, name: law[name].off}, x), rtol=1e-12)
    # nothing is left whose owner is gone, and no prior is scaled by what is gone
    for coefficient in nested.coefficients:
        assert coefficient.owner in (None, *nested.names)
        assert all(power.lstrip("-") in nested.names for power in coefficient.at.values())
    if nested.log_shapes is not None:
        assert set(nested.log_shapes(kept, SMOOTH[0])) == {
            n for n in nested.names if n in law.log_shapes(c, SMOOTH[0])
        }


@every_law
def test_mapped_and_compiled(law):
    x = typical_table(6)
    c = {name: value * np.array([1.0, 1.01, 0.99]) for name, value in plausible(law).items()}
    surface = jax.jit(jax.vmap(jax.vmap(law.loss, (None, 0)), (0, None)))(c, x)
    expected = [
        [naive(law, {n: v[i] for n, v in c.items()}, {n: v[j] for n, v in x.items()}) for j in range(6)]
        for i in range(3)
    ]
    np.testing.assert_allclose(surface, expected, rtol=1e-10)


@every_law
def test_plain_numbers_and_single_precision_will_do(law):
    c, x = plausible(law), recipe(epochs=3.0, target_ratio=0.4, final_ratio=0.8)
    with jax.enable_x64(False):
        single = compiled(law)(c, x)
    assert single.dtype == jnp.float32
    assert float(single) == pytest.approx(naive(law, c, x), rel=1e-4)


@every_law
def test_every_coefficient_is_described(law):
    assert law.formula
    assert law.source
    assert all(c.meaning and c.unit for c in law.coefficients)
