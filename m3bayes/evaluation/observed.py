"""What a posterior's draws say of the runs it was fitted to: standardised residuals and densities.

| symbol | meaning |
|---|---|
| t_di | (log L_i - log L_d(x_i)) / s_di, the residual of run i in draw d in units of its noise |
| s_di | sqrt(sigma_d^2 + (se_i / L_i)^2), sigma_d of the run's group where the noise has groups |
| nu_d | degrees of freedom of Student-t noise, infinite for normal noise |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special

from m3bayes.errors import M3BayesError
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import loss_draws

# quantities to follow: {name: f}, f of {coefficient: (draw,)} in the table's units gives (draw,)
Quantities = Mapping[str, Callable[[Mapping[str, np.ndarray]], np.ndarray]]


@dataclass(frozen=True, eq=False)
class Observed:
    """``t`` and ``scale`` as above, ``nu`` (draw, 1)."""

    t: Float[np.ndarray, "draw run"]
    scale: Float[np.ndarray, "draw run"]
    nu: Float[np.ndarray, "draw 1"]


def observed(post: Posterior) -> Observed:
    """Residuals of every run in every draw, chains one after the other."""
    log_loss = np.log(loss_draws(post, post.runs))
    draws, runs = log_loss.shape
    sigma = post.draws["sigma"].reshape(draws, -1)
    group = np.zeros(runs, int)
    if post.noise.by is not None:
        group = np.array([post.groups.index(str(value)) for value in post.runs[post.noise.by]])
    scale = sigma[:, group]
    if post.noise.known:
        scale = np.hypot(scale, np.nan_to_num(post.runs["loss_se"]) / post.runs["loss"])
    student = post.noise.kind == "student-t"
    nu = post.draws["nu"].reshape(draws, 1) if student else np.full((draws, 1), np.inf)
    return Observed((np.log(post.runs["loss"]) - log_loss) / scale, scale, nu)


def below(seen: Observed) -> Float[np.ndarray, "draw run"]:
    """P(T <= t), exact also far out in the lower tail; of the upper one at -t."""
    return _below(seen.nu, seen.t)


def above(seen: Observed) -> Float[np.ndarray, "draw run"]:
    """P(T >= t), exact also far out in the upper tail."""
    return _below(seen.nu, -seen.t)


def log_density(seen: Observed) -> Float[np.ndarray, "draw run"]:
    """Log density of each run's log loss in each draw."""
    # written out, since scipy.stats is slow to import, and to evaluate for every run and draw
    if np.isinf(seen.nu).all():
        return -(seen.t**2 + np.log(2 * np.pi)) / 2 - np.log(seen.scale)
    nu = seen.nu
    size = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - np.log(np.pi * nu) / 2
    return size - (nu + 1) / 2 * np.log1p(seen.t**2 / nu) - np.log(seen.scale)


def log_likelihood(post: Posterior) -> Float[np.ndarray, " draw"]:
    """Log density of all runs' log losses together, each by its weight."""
    return log_density(observed(post)) @ weights(post)


def values_of(quantities: Quantities, post: Posterior) -> dict[str, Float[np.ndarray, " draw"]]:
    """What each quantity is in each draw. Raises M3BayesError for one that fails or is no finite number a draw."""
    result = {}
    for name, f in quantities.items():
        try:
            values = np.asarray(f(post.coefficients), float)
        except Exception as error:
            raise M3BayesError(f"quantity {name!r} fails: {type(error).__name__}: {error}") from error
        draws = next(iter(post.coefficients.values())).size
        if values.shape != (draws,) or not np.isfinite(values).all():
            given = f"has shape {values.shape}" if values.shape != (draws,) else "is not finite in every draw"
            raise M3BayesError(f"quantity {name!r} {given}; give one finite number a draw, ({draws},)")
        result[name] = values
    return result


def weights(post: Posterior) -> Float[np.ndarray, " run"]:
    """How often each run counts, 1 by default."""
    return post.runs["weight"] if "weight" in post.runs.columns else np.ones(len(post.runs))


def _below(nu: Float[np.ndarray, "draw 1"], t: Float[np.ndarray, "draw run"]) -> np.ndarray:
    return special.ndtr(t) if np.isinf(nu).all() else special.stdtr(nu, t)
