from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from m3bayes.errors import M3BayesError
from m3bayes.inference.noise import normal, student_t
from m3bayes.laws import chinchilla, m3
from tests.inference.example_posterior import example_posterior


def test_coefficients_are_all_chains_one_after_the_other():
    post = example_posterior(chains=3, draws=4)
    assert list(post.coefficients) == list(m3().names)
    alpha = post.coefficients["alpha"]
    assert alpha.shape == (12,)
    assert alpha[4] == post.draws["alpha"][1, 0]


def test_summary_is_what_the_draws_say():
    post = example_posterior(law=chinchilla(), draws=200)
    table = post.summary(ci=0.5)
    assert list(table.index) == ["E", "A", "B", "alpha", "beta", "sigma", "nu"]
    assert " ".join(table.columns) == (
        "mean sd median lower upper ess_bulk ess_tail r_hat mcse_mean unit meaning"
    )
    for name in table.index:
        draws = np.sort(post.draws[name].reshape(-1))
        row = table.loc[name]
        assert row["mean"] == pytest.approx(sum(draws) / 400)
        assert row["sd"] == pytest.approx(np.sqrt(sum((draws - row["mean"]) ** 2) / 399))
        assert draws[99] <= row["lower"] <= draws[100]
        assert draws[199] <= row["median"] <= draws[200]
        assert draws[299] <= row["upper"] <= draws[300]
    assert table.loc["A", "unit"] == "loss params^alpha"
    assert table.loc["nu", "meaning"]


def test_diagnostics_agree_with_arviz_on_the_tree():
    import arviz as az

    post = example_posterior(law=chinchilla(), chains=4, draws=100)
    # one chain that stands apart must be seen
    shifted = post.draws["E"] + np.arange(4)[:, None]
    post = replace(post, draws={**post.draws, "E": shifted})
    table = post.summary()
    for name in table.index:
        draws = post.tree["posterior"][name]
        assert table.loc[name, "ess_bulk"] == pytest.approx(float(az.ess(draws, method="bulk")))
        tail = float(az.ess(draws, method="tail", prob=(0.05, 0.95)))
        assert table.loc[name, "ess_tail"] == pytest.approx(tail)
        assert table.loc[name, "r_hat"] == pytest.approx(float(az.rhat(draws)))
        assert table.loc[name, "mcse_mean"] == pytest.approx(float(az.mcse(draws, method="mean")))
    assert table.loc["E", "r_hat"] > 1.5 > 1.1 > table.loc["A", "r_hat"]


def test_a_sigma_for_each_group_has_a_row_each():
    post = example_posterior(noise=normal(by="language"))
    table = post.summary()
    rows = [name for name in table.index if name.startswith("sigma")]
    assert rows == [f"sigma[{group}]" for group in post.groups] and len(rows) > 1
    assert "nu" not in table.index
    assert table.loc[rows[1], "mean"] == pytest.approx(post.draws["sigma"][..., 1].mean())
    assert table.loc[rows[1], "unit"] == "log loss"
    assert post.tree["posterior"]["sigma"].dims == ("chain", "draw", "group")
    assert tuple(post.tree["posterior"]["group"].values) == post.groups


def test_summary_of_too_little_is_nan_and_not_an_error():
    single = example_posterior(chains=1, draws=50).summary()
    assert np.isnan(single["r_hat"]).all() and (single["ess_bulk"] > 0).all()
    tiny = example_posterior(chains=1, draws=2).summary()
    assert np.isnan(tiny["ess_bulk"]).all() and np.isfinite(tiny["mean"]).all()
    post = example_posterior()
    still = replace(post, draws={**post.draws, "tau": np.full((2, 30), 0.5)}).summary()
    assert np.isnan(still.loc["tau", "r_hat"]) and still.loc["tau", "sd"] == 0


@pytest.mark.parametrize("ci", [0.0, 1.0, 90.0, -0.5, float("nan")])
def test_an_interval_that_cannot_be_is_refused(ci):
    with pytest.raises(M3BayesError, match=f"ci is {ci}"):
        example_posterior().summary(ci=ci)


def test_arviz_works_on_the_tree_as_it_is():
    import arviz as az

    post = example_posterior(chains=4, draws=100)
    tree = post.tree
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # draws that nobody sampled make poor leave-one-out estimates
        table = az.summary(tree)
        loo = az.loo(tree, var_name="log_loss")
    assert set(m3().names) <= set(table.index)
    assert loo.n_data_points == len(post.runs)
    assert tree["posterior"]["alpha"].dims == ("chain", "draw")
    assert tree["log_likelihood"]["log_loss"].dims == ("chain", "draw", "run")
    assert list(tree["observed_data"]["run"].values) == list(post.runs.names)
    np.testing.assert_array_equal(tree["observed_data"]["log_loss"], np.log(post.runs["loss"]))
    np.testing.assert_array_equal(tree["constant_data"]["epochs"], post.runs["epochs"])
    assert tree["sample_stats"]["diverging"].dtype == bool
    assert tree["posterior"]["A"].attrs["unit"] == "loss params^alpha"


def test_a_posterior_without_log_likelihood_has_no_such_group():
    tree = replace(example_posterior(noise=student_t()), log_likelihood=None).tree
    assert "log_likelihood" not in tree.children
