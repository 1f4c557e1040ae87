"""A law whose posterior is known in closed form but for one dimension: draws of it are independent and exact.

    log L_i = e - alpha x_i + sigma t_i,   t_i ~ Normal(0, 1),   x_i = log N_i - log N0,  L in units of L0

e ~ Normal(-.1, .5), alpha ~ Normal(.3, .1): given sigma the posterior of (e, alpha) is normal; sigma, log-normal,
is on a grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
from scipy import stats

from m3bayes.inference.noise import Noise, normal
from m3bayes.inference.posterior import Posterior
from m3bayes.laws.law import Coefficient, law
from m3bayes.runs import Runs, runs_from_frame

PRIOR_MEAN, PRIOR_SD = np.array([-0.1, 0.3]), np.array([0.5, 0.1])
SIGMA_MEDIAN, SIGMA_SD = 0.008, 1.0  # of every law's noise
Bug = Literal["sigma", "jacobian", "prior"]

LAW = law(
    "power",
    lambda c, x: c["E"] * jnp.asarray(x["params"]) ** -jnp.asarray(c["alpha"]),
    [
        Coefficient("E", dist.LogNormal(PRIOR_MEAN[0], PRIOR_SD[0]), of_loss=True, at={"N": "-alpha"}),
        Coefficient("alpha", dist.Normal(PRIOR_MEAN[1], PRIOR_SD[1])),
    ],
)


def design(rows: int, seed: int = 0, sizes: float = 5.0, **columns) -> Runs:
    """Recipes over target text alone, N over e^sizes."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "params": 1e7 * np.exp(random.uniform(0, sizes, rows)),
            "target_tokens": np.exp(random.uniform(18, 23, rows)),
            "epochs": 1.0,
            "target_ratio": 1.0,
            "final_ratio": 1.0,
            "loss": 3.0,
            **columns,
        }
    )
    return runs_from_frame(frame)


def measured(recipes: Runs, seed: int = 0, sigma: float | np.ndarray = 0.01, shift: np.ndarray | float = 0.0):
    """The recipes with losses of the law at alpha = .3; ``shift`` is added to log loss."""
    x = np.log(recipes["params"]) - np.log(recipes["params"]).mean()
    noise = sigma * np.random.default_rng(seed).normal(size=len(recipes))
    return runs_from_frame(recipes.frame().assign(loss=3.0 * np.exp(-0.3 * x + noise + shift)))


def exact_fit(
    runs: Runs,
    law=LAW,
    *,
    noise: Noise | None = None,
    seed: int = 0,
    constants: Mapping[str, float] | None = None,
    draws: int = 400,
    bug: Bug | None = None,
) -> Posterior:
    """Independent draws from the posterior; with a ``bug`` from one that is wrong on purpose."""
    if constants is None:
        constants = {"L": float(np.median(runs["loss"])), "N": float(np.exp(np.log(runs["params"]).mean()))}
    random = np.random.default_rng([seed, 7])
    y = np.log(runs["loss"] / constants["L"])
    X = np.stack([np.ones(len(y)), -np.log(runs["params"] / constants["N"])], axis=1)
    mean = PRIOR_MEAN + (np.array([0.0, 1.5 * PRIOR_SD[1]]) if bug == "prior" else 0.0)
    log_sigma = np.linspace(-9, 0, 200)
    log_density = stats.norm.logpdf(log_sigma, np.log(SIGMA_MEDIAN), SIGMA_SD)
    if bug == "jacobian":
        log_density = log_density - log_sigma
    about = []
    for i, sigma in enumerate(np.exp(log_sigma)):
        precision = X.T @ X / sigma**2 + np.diag(PRIOR_SD**-2)
        covariance = np.linalg.inv(precision)
        centre = covariance @ (X.T @ y / sigma**2 + mean / PRIOR_SD**2)
        about.append((centre, np.linalg.cholesky(covariance)))
        square = np.sum((y - X @ centre) ** 2) / sigma**2 + np.sum((centre - mean) ** 2 / PRIOR_SD**2)
        log_density[i] += np.linalg.slogdet(covariance)[1] / 2 - len(y) * np.log(sigma) - square / 2
    weight = np.exp(log_density - log_density.max())
    chosen = random.choice(len(log_sigma), draws, p=weight / weight.sum())
    step = log_sigma[1] - log_sigma[0]
    sigma = np.exp(log_sigma[chosen] + step * (random.uniform(size=draws) - 0.5))
    theta = np.array([about[i][0] + about[i][1] @ random.normal(size=2) for i in chosen])
    if bug == "sigma":
        sigma = 1.1 * sigma
    E = np.exp(theta[:, 0]) * constants["L"] * constants["N"] ** theta[:, 1]
    values = {"E": E[None], "alpha": theta[None, :, 1], "sigma": sigma[None]}
    settings = {"seed": seed, "chains": 1, "draws": draws}
    return Posterior(law, normal(), runs, values, constants=constants, settings=settings)
