"""Chains in float32: the same posteriors, and refused where rounding moves them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import norm

import m3bayes as m3
from m3bayes.errors import FitError
from m3bayes.inference.precision import LARGEST_SHIFT, check_precision, shifted
from m3bayes.laws import Coefficient, additive_law
from tests.inference.many_tables import LAW, SHORT, table, tables

DRAWS = np.random.default_rng(0).normal(size=(4, 1000))
LP = norm.logpdf(DRAWS)


def test_rounding_that_moves_nothing_is_tolerated():
    rounded = LP.astype(np.float32).astype(float)
    assert shifted({"x": DRAWS}, rounded, LP + 12.3) == ()  # a constant is nothing


@pytest.mark.parametrize("exact", [norm(0.1, 1), norm(0, 0.9), norm(0, 1.1), norm(-0.1, 1)])
def test_another_mean_or_spread_is_told(exact):
    (note,) = shifted({"still": DRAWS[::-1], "x": DRAWS}, LP, exact.logpdf(DRAWS))
    assert note.code == "FLOAT32" and note.about == ("x",)
    shift = float(note.message.split(" by ")[1].split()[0])
    assert shift == pytest.approx(0.1, abs=0.02) and f"at most {LARGEST_SHIFT}" in note.message


def test_what_cannot_be_told_is_refused():
    lp = LP.copy()
    lp[0, 0] = np.nan
    assert shifted({"x": DRAWS}, lp, LP) and shifted({"x": np.ones((4, 10))}, LP[:, :10], LP[:, :10])


@pytest.mark.parametrize("devices", [(), tuple(jax.devices()[:1])])
def test_posteriors_are_those_in_float64(devices):
    few = tables(2)
    wide, narrow = (
        m3.fit_many(few, LAW, **{**SHORT, "draws": 1000}, precision=precision, devices=devices)
        for precision in ("float64", "float32")
    )
    for name in few:
        a, b = wide[name], narrow[name]
        assert (a.settings["precision"], b.settings["precision"]) == ("float64", "float32")
        assert b.verdict == "passed" and b.settings["attempts"] == 1
        one, other = a.summary(), b.summary()
        assert (abs(one["mean"] - other["mean"]) < 4 * np.hypot(one["mcse_mean"], other["mcse_mean"])).all()
        assert not np.array_equal(a.draws["beta"], b.draws["beta"])
        assert b.draws["beta"].dtype == np.float64


def test_alone_as_in_many():
    alone = m3.fit(table(0), LAW, **SHORT, precision="float32", progress=False)
    many = m3.fit_many([table(0)], LAW, **SHORT, precision="float32")
    np.testing.assert_array_equal(alone.draws["beta"], many["0"].draws["beta"])


def test_a_law_that_rounding_breaks_is_sampled_in_float64():
    """Its exponent is a small difference of large numbers: steps of 1/16 in float32."""

    def shapes(c, x):
        exponent = (1e6 + c["beta"]) - 1e6
        return {"E": jnp.ones(()), "B": (x["epochs"] * x["target_tokens"]) ** -exponent}

    law = additive_law(
        "cancelling",
        shapes,
        [
            Coefficient("E", dist.Beta(2, 2), of_loss=True),
            Coefficient("B", dist.LogNormal(-1.9, 1), of_loss=True, at={"T": "-beta"}),
            Coefficient("beta", dist.LogNormal(-1, 0.5)),
        ],
    )
    post = m3.fit(table(0), law, **SHORT, precision="float32", progress=False)
    assert post.verdict == "passed" and post.settings["precision"] == "float64"
    assert post.settings["attempts"] == 2 and "ESCALATED" in {note.code for note in post.notes}
    plain = m3.fit(table(0), LAW, **SHORT, progress=False).summary()
    found = post.summary()
    assert (abs(found["mean"] - plain["mean"]) < 4 * np.hypot(found["mcse_mean"], plain["mcse_mean"])).all()


def test_a_killed_fit_in_float32_goes_on_bit_for_bit(tmp_path):
    settings = {**SHORT, "precision": "float32", "progress": False}
    whole = m3.fit(table(0), LAW, **settings, checkpoint=tmp_path)
    for chain in (1, 2):
        (tmp_path / f"chain-{chain}.npz").unlink()
    again = m3.fit(table(0), LAW, **settings, checkpoint=tmp_path, resume=True)
    np.testing.assert_array_equal(whole.draws["beta"], again.draws["beta"])
    with pytest.raises(FitError, match="precision"):
        m3.fit(table(0), LAW, **{**settings, "precision": "float64"}, checkpoint=tmp_path, resume=True)


def test_settings_that_no_fit_could_have():
    with pytest.raises(FitError, match='precision is \'half\'; give "float64" or "float32"'):
        check_precision("half")
    with pytest.raises(FitError, match="a pooled fit is made in float64"):
        m3.fit(table(0), LAW, pool="language", precision="float32")  # type: ignore[call-overload]
