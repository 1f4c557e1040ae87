"""fit: recovers known truths, does not depend on units or order, and never fails silently."""

from __future__ import annotations

import jax
import numpy as np
import numpyro
import pytest
from numpyro.infer import MCMC, NUTS

import m3bayes as m3
from m3bayes.inference.data import canonical
from m3bayes.inference.model import model
from m3bayes.inference.noise import normal, student_t
from tests.inference import simulated

SHORT = {"progress": False, "chains": 4}


def chinchilla_runs(rows: int = 60, sigma: float = 0.01):
    return simulated.measured(
        m3.laws.chinchilla(), simulated.CHINCHILLA, simulated.monolingual(rows), sigma=sigma
    )


@pytest.fixture(scope="module")
def chinchilla_fit():
    return m3.fit(chinchilla_runs(), m3.laws.chinchilla(), **SHORT)


def test_recovers_chinchilla(chinchilla_fit):
    assert chinchilla_fit.verdict == "passed"
    assert chinchilla_fit.draws["E"].shape == (4, 1000)
    for name, truth in simulated.CHINCHILLA.items():
        draws = np.log(chinchilla_fit.coefficients[name])
        assert abs(draws.mean() - np.log(truth)) < 3 * draws.std(), name


def test_agrees_with_numpyro_s_own_sampler(chinchilla_fit):
    """The same NumPyro model through MCMC(NUTS): means within 4 Monte Carlo standard errors."""
    law, noise = m3.laws.chinchilla(), student_t()
    with jax.enable_x64(True):
        table = canonical(chinchilla_fit.runs, law, noise)
        kernel = NUTS(model, dense_mass=True, target_accept_prob=0.9)
        sampler = MCMC(
            kernel,
            num_warmup=1000,
            num_samples=2000,
            num_chains=4,
            chain_method="sequential",
            progress_bar=False,
        )
        sampler.run(jax.random.key(0), law, noise, 0, dict(table.arrays))
        oracle = {name: np.asarray(v) for name, v in sampler.get_samples(group_by_chain=True).items()}
    for name in ("alpha", "beta", "sigma", "nu"):
        ours, theirs = chinchilla_fit.draws[name], oracle[name]
        error = sum(
            v.var() / numpyro.diagnostics.effective_sample_size(v) for v in (np.asarray(ours), theirs)
        )
        assert abs(ours.mean() - theirs.mean()) < 4 * np.sqrt(error), name
        assert ours.std() == pytest.approx(theirs.std(), rel=0.15), name


def test_log_likelihood_is_of_the_table_s_rows(chinchilla_fit):
    from scipy import stats

    post = chinchilla_fit
    losses = m3.loss_draws(post, post.runs)
    nu, sigma = post.draws["nu"].reshape(-1, 1), post.draws["sigma"].reshape(-1, 1)
    expected = stats.t(nu).logpdf((np.log(post.runs["loss"]) - np.log(losses)) / sigma) - np.log(sigma)
    np.testing.assert_allclose(post.log_likelihood.reshape(expected.shape), expected, rtol=1e-6, atol=1e-6)


def test_same_seed_same_draws_whatever_the_units_and_the_order(chinchilla_fit):
    runs = chinchilla_fit.runs
    frame = runs.frame().assign(params=runs["params"] / 1e6, target_tokens=runs["target_tokens"] * 1e3)
    changed = m3.runs_from_frame(frame.sample(frac=1, random_state=1))
    other = m3.fit(changed, m3.laws.chinchilla(), **SHORT)
    for name in ("alpha", "beta", "sigma", "nu"):
        np.testing.assert_array_equal(other.draws[name], chinchilla_fit.draws[name])
    np.testing.assert_allclose(other.draws["E"], chinchilla_fit.draws["E"], rtol=1e-12)
    in_units = chinchilla_fit.draws["A"] * 1e-6 ** chinchilla_fit.draws["alpha"]
    np.testing.assert_allclose(other.draws["A"], in_units, rtol=1e-6)


def test_another_seed_gives_other_draws_of_the_same_posterior(chinchilla_fit):
    other = m3.fit(chinchilla_fit.runs, m3.laws.chinchilla(), seed=1, **SHORT)
    assert not np.array_equal(other.draws["alpha"], chinchilla_fit.draws["alpha"])
    a, b = other.summary(), chinchilla_fit.summary()
    error = np.hypot(a["mcse_mean"], b["mcse_mean"])
    exponents = ["alpha", "beta"]
    assert (abs(a["mean"] - b["mean"]) / error)[exponents].max() < 4


def test_m3_recovers_chinchilla_on_monolingual_single_epoch_runs(chinchilla_fit):
    """What such runs cannot identify is noted and kept at the prior; the rest is Chinchilla's posterior."""
    post = m3.fit(chinchilla_fit.runs, m3.laws.m3(), **SHORT)
    assert post.verdict == "passed"
    noted = {name for note in post.notes if note.code == "UNIDENTIFIED" for name in note.about}
    assert {"tau", "eta", "gamma", "lambda", "P", "delta", "kappa", "omega"} <= noted
    assert not noted & {"E", "A", "B", "alpha", "beta"}
    for name in ("alpha", "beta", "E"):
        ours, plain = post.coefficients[name], chinchilla_fit.coefficients[name]
        assert abs(ours.mean() - plain.mean()) < 0.3 * plain.std(), name
        assert ours.std() == pytest.approx(plain.std(), rel=0.25), name
    assert post.coefficients["tau"].std() == pytest.approx(0.2, abs=0.04)  # of sigmoid(Normal(-1.2, 1.2))


def test_noise_by_group_finds_each_group_s_sigma():
    quiet, loud = chinchilla_runs(40, 0.003).frame(), chinchilla_runs(40, 0.03).frame()
    import pandas as pd

    runs = m3.runs_from_frame(
        pd.concat([quiet.assign(language="de"), loud.assign(language="fi")], ignore_index=True)
    )
    post = m3.fit(runs, m3.laws.chinchilla(), noise=normal(by="language"), **SHORT)
    assert post.groups == ("de", "fi")
    assert post.draws["sigma"].shape == (4, 1000, 2)
    de, fi = post.draws["sigma"].reshape(-1, 2).mean(0)
    assert de == pytest.approx(0.003, rel=0.5)
    assert fi == pytest.approx(0.03, rel=0.5)
    assert "nu" not in post.draws


def test_a_fit_that_does_not_converge_says_so_and_keeps_its_draws():
    few = {"draws": 10, "warmup": 20, "chains": 2, "progress": False}
    with pytest.raises(m3.NotConvergedError, match="too few independent draws") as caught:
        m3.fit(chinchilla_runs(), m3.laws.chinchilla(), **few)
    assert caught.value.posterior.verdict == "flagged"
    flagged = m3.fit(chinchilla_runs(), m3.laws.chinchilla(), allow="flagged", **few)
    assert flagged.verdict == "flagged"
    assert {"ESCALATED", "ESS_BULK"} <= {note.code for note in flagged.notes}
    assert flagged.settings["attempts"] == 3


def test_arguments_are_checked():
    for name, value in {"chains": 0, "draws": 3, "seed": -1, "warmup": 5}.items():
        with pytest.raises(m3.FitError, match=f"{name} is {value}"):
            m3.fit(chinchilla_runs(), m3.laws.chinchilla(), **{name: value})


def test_constants_keep_the_prior_of_the_whole_table(chinchilla_fit):
    part = chinchilla_fit.runs.select(np.arange(40))
    post = m3.fit(part, m3.laws.chinchilla(), constants=chinchilla_fit.constants, **SHORT)
    assert post.constants == pytest.approx(dict(chinchilla_fit.constants), rel=1e-8)
    own = m3.fit(part, m3.laws.chinchilla(), **SHORT)
    assert own.constants["L"] != post.constants["L"]
