"""ATLAS, with one source language and with several."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.errors import LawError
from m3bayes.laws import atlas, chinchilla, data_constrained, named, published
from m3bayes.laws.atlas import floored, sources_of, worth_of_source
from tests.laws.surfaces import MAIN, coefficients, loss, plausible, recipe, recipes

few = settings(max_examples=20, deadline=None)


@few
@given(c=coefficients(atlas()), x=recipes())
def test_without_source_text_it_is_muennighoffs_data_term(c, x):
    x = {**x, "target_ratio": 1.0}
    other = {**{n: c[n] for n in MAIN}, "R_D": 1 / c["lambda"]}
    assert loss(atlas(), c, x) == pytest.approx(loss(data_constrained(drop=("R_N",)), other, x), rel=1e-12)


@few
@given(tau=st.floats(-0.5, 1.0), d=st.floats(1e8, 1e12))
def test_bilingual_transfer_score(tau, d):
    """BTS = -(tokens of a 50/50 bilingual model - 2 d) / d = 2 - 2 / (1 + tau)."""
    c = plausible(atlas(), tau=tau)
    bilingual = d * (2 - (2 - 2 / (1 + tau)))
    mixed = recipe(target_tokens=bilingual / 2, target_ratio=0.5, final_ratio=0.5)
    assert loss(atlas(), c, mixed) == pytest.approx(loss(atlas(), c, recipe(target_tokens=d)), rel=1e-12)


def test_reported_transfer_is_above_the_floor():
    for name in ("same_script", "other_script"):
        bts = published("atlas_transfer").coefficients[name]
        tau = 2 / (2 - bts) - 1
        assert -0.2 < tau < 0
        assert 1 + tau > 0.5


@pytest.mark.parametrize("tau", [-0.99, -0.3, 0.3, 0.99])
def test_effective_data_stays_positive(tau):
    c = plausible(atlas(), tau=tau)
    ratios = np.geomspace(1e-6, 1, 200)
    losses = [loss(atlas(), c, recipe(target_ratio=r)) for r in ratios]
    assert np.isfinite(losses).all()
    # the more source text, the worse for tau < 0 and the better for tau > 0
    assert (np.diff(losses) * np.sign(tau) > 0).all()


def test_the_floor_is_smooth():
    z = np.array([-50.0, 0.0, 0.5 - 1e-9, 0.5, 0.5 + 1e-9, 1.0, 3.0])
    np.testing.assert_allclose(floored(z), [1 / 204, 0.25, 0.5, 0.5, 0.5, 1.0, 3.0], atol=2e-9)
    slope = [float(jax.grad(lambda v: floored(v))(v)) for v in z]
    np.testing.assert_allclose(slope, [0.25 / 51**2, 0.25, 1, 1, 1, 1, 1], atol=1e-8)
    assert np.isfinite(jax.grad(lambda v: floored(v))(1.0))


# --- several sources ---------------------------------------------------------------------------------------

TWO = atlas(sources=("en", "fr"))


@few
@given(c=coefficients(TWO), x=recipes(), share=st.floats(0, 1))
def test_sources_of_one_worth_are_one_source(c, x, share):
    S = x["epochs"] * x["target_tokens"] * (1 - x["target_ratio"]) / x["target_ratio"]
    for name, tokens in (("en", S * share), ("fr", S * (1 - share))):
        x = {**x, f"{name}_tokens": tokens, f"{name}_unique_tokens": tokens}
    alike = {**c, "tau_fr": c["tau_en"]}
    one = {**{n: c[n] for n in (*MAIN, "lambda")}, "tau": c["tau_en"]}
    assert loss(TWO, alike, x) == pytest.approx(loss(atlas(), one, x), rel=1e-10)


def test_text_of_no_named_source_is_worth_nothing_unless_asked_for():
    x = recipe(target_ratio=0.2, en_tokens=3e9, en_unique_tokens=3e9, fr_tokens=0.0, fr_unique_tokens=0.0)
    with_other = atlas(sources=("en", "fr"), other=True)
    c = plausible(with_other, tau_other=0.0)
    assert loss(with_other, c, x) == loss(TWO, plausible(TWO), x)
    # S is 8e9, of which 5e9 have no name: worth as much as 1.5e9 of English more
    more = {**x, "en_tokens": 3e9 + 5e9 * 0.1 / 0.3, "en_unique_tokens": 1e11}
    assert loss(with_other, plausible(with_other), x) == pytest.approx(
        loss(TWO, plausible(TWO), more), rel=1e-12
    )
    # more tokens with a name than source tokens there are leave none without
    few_tokens = {**x, "target_ratio": 0.9}
    assert loss(with_other, plausible(with_other), few_tokens) == loss(TWO, plausible(TWO), few_tokens)


def test_a_source_that_is_not_there_needs_no_tokens():
    x = recipe(target_ratio=0.5, en_tokens=2e9, en_unique_tokens=2e9, fr_tokens=0.0, fr_unique_tokens=0.0)
    c = plausible(TWO)
    without_it = atlas(sources=("en",))
    assert loss(TWO, c, x) == pytest.approx(loss(without_it, plausible(without_it), x), rel=1e-14)
    by_coefficient, by_variable = jax.grad(TWO.loss, argnums=(0, 1))(c, x)
    assert by_coefficient["tau_fr"] == 0
    assert np.isfinite([*by_coefficient.values(), *by_variable.values()]).all()
    # the first token of it counts
    c["tau_fr"] = 0.5
    assert jax.grad(TWO.loss, argnums=1)(c, {**x, "fr_unique_tokens": 1e8})["fr_tokens"] < 0


def test_repeated_source_text_is_worth_ever_less():
    c = plausible(TWO)
    seen = np.linspace(1e9, 1.6e10, 16)
    gained = -np.diff([loss(TWO, c, recipe(target_ratio=0.1, en_tokens=D, fr_tokens=0.0)) for D in seen])
    fresh = -np.diff(
        [loss(TWO, c, recipe(target_ratio=0.1, en_tokens=D, en_unique_tokens=D, fr_tokens=0.0)) for D in seen]
    )
    assert (gained > 0).all() and (gained < fresh).all()
    # the next token, after so many times the unique ones
    for times in (0.2, 1.0, 1.5, 7.0):
        slope = jax.grad(worth_of_source)(times * 3e8, 3e8, 0.07)
        assert slope == pytest.approx(np.exp(-0.07 * max(times - 1, 0)), rel=1e-6)


def test_harm_of_several_sources_goes_smoothly_to_the_floor():
    """In tau_fr, through the point where source text takes half of what the target text is worth."""
    x = recipe(
        target_ratio=0.1, en_tokens=4e9, en_unique_tokens=4e9, fr_tokens=1.4e10, fr_unique_tokens=1.4e10
    )
    there = (-1e9 - 0.3 * 4e9) / 1.4e10  # Q = 2e9, of which 1e9 are left
    slopes = [
        float(jax.grad(lambda tau: TWO.loss(plausible(TWO, tau_fr=tau), x))(there + step))
        for step in (-1e-9, 0.0, 1e-9)
    ]
    assert slopes[0] == pytest.approx(slopes[2], rel=1e-6) == pytest.approx(slopes[1], rel=1e-6)
    assert slopes[1] < 0
    worst = loss(TWO, plausible(TWO, tau_fr=-0.99, tau_en=-0.99), x)
    assert np.isfinite(worst) and worst > loss(TWO, plausible(TWO, tau_fr=-0.5), x)


def means(law) -> dict[str, float]:
    return {c.name: float(c.prior.base_dist.loc) for c in law.coefficients if c.name.startswith("tau")}


def test_priors_follow_similarity():
    law = atlas(sources=("en", "ja", "xx"), similarity={"en": 0.9, "xx": 0.0})
    assert means(law) == pytest.approx({"tau_en": 0.52, "tau_ja": 0.2, "tau_xx": -0.2})
    by_family = atlas(sources=("en", "ja", "xx"), similarity={"xx": 0.0}, target="de")
    assert means(by_family) == pytest.approx({"tau_en": 0.36, "tau_ja": 0.04, "tau_xx": -0.2})
    draws = law["tau_xx"].prior.sample(jax.random.key(0), (2000,))
    assert float(np.abs(draws).max()) < 1


def test_one_law_for_the_same_options():
    law = atlas(sources=("en", "fr"), similarity={"en": 0.6}, target="de", other=True, drop=("tau_fr",))
    assert law is atlas(
        sources=("en", "fr"), similarity={"en": 0.6}, target="de", other=True, drop=("tau_fr",)
    )
    assert law.columns[5:] == ("en_tokens", "en_unique_tokens", "fr_tokens", "fr_unique_tokens")
    assert law.names[6:] == ("tau_en", "tau_other")
    options = json.loads(json.dumps(law.options))
    again = named("atlas", **options)
    assert again.names == law.names and again.options == law.options and means(again) == means(law)
    assert sources_of(law) == ("en", "fr")
    assert named("atlas", sources="en").options == {"sources": ("en",)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": ("en", "en")}, "two columns are called en_tokens"),
        ({"sources": ("target",)}, "two columns are called target_tokens"),
        ({"sources": ("en", "en_unique")}, "two columns are called en_unique_tokens"),
        ({"sources": ("",)}, r"option sources is \('',\); expected names of languages"),
        ({"similarity": {"en": 0.5}}, "are about sources; give sources too"),
        ({"other": True}, "are about sources; give sources too"),
        (
            {"sources": ("en",), "similarity": {"fr": 0.5}},
            "similarity is of 'fr', which is none of the sources",
        ),
        (
            {"sources": ("en",), "similarity": {"en": 1.5}},
            "the similarity of en is 1.5; expected a number from 0 to 1",
        ),
        ({"sources": ("en", "xx"), "target": "de"}, "nothing is known of the family of language 'xx'"),
        ({"sources": ("en",), "target": "xx"}, "nothing is known of the family of language 'xx'"),
        ({"sources": ("en",), "drop": ("tau",)}, "law atlas has no coefficient 'tau'"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(LawError, match=message):
        atlas(**options)


def test_a_law_without_sources_says_so():
    for law in (atlas(), chinchilla()):
        with pytest.raises(LawError, match=f"law {law.name} has no named sources"):
            sources_of(law)
