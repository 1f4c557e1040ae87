"""The NumPyro model against scipy, and simulation from it."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from numpyro.infer.util import log_density
from scipy import special, stats

from m3bayes.inference.data import canonical, unscale
from m3bayes.inference.model import log_gamma_ratio, model, site_priors
from m3bayes.inference.noise import Noise, normal, student_t
from m3bayes.inference.simulate import simulate
from m3bayes.laws import chinchilla, m3
from m3bayes.runs import runs_from_frame
from tests.inference import simulated


def runs():
    table = simulated.measured(m3(), simulated.M3, simulated.mixed(30))
    return runs_from_frame(
        table.frame().assign(
            language=np.where(np.arange(30) % 2, "de", "fi"), loss_se=0.03, weight=np.arange(30) % 3
        )
    )


@pytest.mark.parametrize(
    "noise",
    [student_t(), normal(), student_t(by="language"), normal(known=True), student_t("language", True)],
)
def test_log_density_is_prior_times_likelihood(noise: Noise):
    law, table = m3(), runs()
    with jax.enable_x64(True):
        canon = canonical(table, law, noise)
        priors = site_priors(law, noise, len(canon.groups))
        sites = {name: p.sample(jax.random.key(i)) for i, (name, p) in enumerate(priors.items())}
        value, _ = log_density(model, (law, noise, len(canon.groups), canon.arrays), {}, sites)
        c = unscale(law, sites, canon.arrays["reference"])
        prior = sum(float(p.log_prob(sites[name]).sum()) for name, p in priors.items())
        n = len(table)
        x = {name: v[:n] for name, v in canon.arrays["x"].items()}
        location = np.asarray(jax.vmap(law.log_loss, in_axes=(None, 0))(c, x))
    sigma = np.asarray(sites["sigma"])
    sigma = sigma[(table["language"] == "fi").astype(int)[canon.order]] if noise.by else sigma
    if noise.known:
        sigma = np.sqrt(sigma**2 + (0.03 / table["loss"][canon.order]) ** 2)
    error = stats.t(float(sites["nu"])) if noise.kind == "student-t" else stats.norm()
    logs = error.logpdf((canon.arrays["y"][:n] - location) / sigma) - np.log(sigma)
    assert float(value) == pytest.approx(prior + (table["weight"][canon.order] * logs).sum(), rel=1e-9)


def test_log_gamma_ratio_and_its_slope():
    x = np.concatenate([np.linspace(0.5, 12, 200), np.geomspace(12, 1e8, 50)])
    with jax.enable_x64(True):
        found, slope = log_gamma_ratio(x), jax.vmap(jax.grad(log_gamma_ratio))(x)
    expected = special.gammaln(x + 0.5) - special.gammaln(x)
    # scipy's difference of large numbers has the larger error
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14 * np.abs(special.gammaln(x)).max())
    np.testing.assert_allclose(found[:200], expected[:200], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(slope[:200], (special.digamma(x + 0.5) - special.digamma(x))[:200], rtol=1e-11)


def test_simulated_tables_have_the_losses_of_their_truth():
    design = simulated.measured(m3(), simulated.M3, simulated.mixed(50))
    for seed in range(5):
        made = simulate(m3(), design, jax.random.key(seed), noise=normal())
        with jax.enable_x64(True):
            c = {name: made.truth[name] for name in m3().names}
            columns = {name: design[name] for name in m3().columns}
            surface = np.asarray(jax.vmap(m3().log_loss, in_axes=(None, 0))(c, columns))
        scatter = (np.log(made.runs["loss"]) - surface) / made.truth["sigma"]
        assert stats.kstest(scatter, "norm").pvalue > 1e-3
        assert made.constants["L"] == np.median(design["loss"])


def test_standard_errors_are_of_the_simulated_losses():
    design = runs()
    found = simulate(m3(), design, jax.random.key(1), noise=normal(known=True)).runs
    assert not np.allclose(found["loss"], design["loss"], rtol=0.1)
    np.testing.assert_allclose(
        found["loss_se"] / found["loss"], design["loss_se"] / design["loss"], rtol=1e-12
    )


def test_prior_surfaces_are_plausible():
    """laws.md: L / L0 has 5-95 % of about .4 to 2-4 over simulated designs."""
    design = simulated.measured(chinchilla(), simulated.CHINCHILLA, simulated.monolingual(40))
    ratios = np.concatenate(
        [
            simulate(m3(), design, jax.random.key(i)).runs["loss"] / np.median(design["loss"])
            for i in range(40)
        ]
    )
    low, high = np.quantile(ratios, [0.05, 0.95])
    assert 0.25 < low < 0.7
    assert 1.2 < high < 5
