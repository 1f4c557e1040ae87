"""What a posterior owes to its prior, to its runs, and to each family of runs.

| symbol | meaning |
|---|---|
| a | power that the prior or the likelihood is raised to, 1 as it is; .99 and 1.01 are compared |
| D | change of the cumulative Jensen-Shannon distance between the draws and the reweighted draws, per log2 a |
| contraction | 1 - posterior variance / prior variance, on the real line: 0 where the runs say nothing |

Power-scaling: Kallioinen et al. 2024 (arXiv 2107.14054, section 3), by Pareto-smoothed importance weights, no
refit. D of the prior above .05 means that the answer leans on it: where D of the likelihood is above too, the two
pull apart; where it is not, the runs say little. Densities are those of the coefficients on the real line, so a
prior raised to a power is wider or narrower about the same place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float
from numpyro.distributions import Distribution, biject_to

from m3bayes.errors import M3BayesError, Note, RunTableError
from m3bayes.evaluation.given import check_functions, check_posterior, check_whole
from m3bayes.evaluation.observed import Quantities, log_likelihood, values_of, weights
from m3bayes.inference.coordinates import PRIOR_DRAWS, sample_prior
from m3bayes.inference.data import log_at_reference
from m3bayes.inference.fit import fit
from m3bayes.inference.model import site_priors
from m3bayes.inference.pooled import refuse_pooled
from m3bayes.inference.posterior import Posterior

POWERS = (0.99, 1.01)
LEAST_DISTANCE = 0.05
FAR_SHIFT = 2.0  # posterior standard deviations

Draws = Mapping[str, Float[np.ndarray, " draw"]]


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """``table`` one row a quantity: ``prior`` and ``likelihood`` (D), ``contraction`` (NaN for quantities that
    were given), ``reading``: "" or what the two distances say.

    ``left_out``  one row a family of runs and quantity: ``column``, ``value``, ``runs`` left out, ``verdict`` of the
                  refit (failed where there is none), ``quantity``, ``shift`` of its mean in standard deviations of
                  the full posterior, ``widening``: its standard deviation over the full one's
    ``notes``     PRIOR_PULLS, PRIOR_SPEAKS (each about quantities), LEANS_ON_FAMILY, REFIT_FAILED, REFIT_FLAGGED

    Coefficients are compared on the real line (logs of positive ones), quantities that were given as they are.
    """

    table: pd.DataFrame
    left_out: pd.DataFrame
    notes: tuple[Note, ...]


def sensitivity(
    post: Posterior,
    *,
    quantities: Quantities | None = None,
    leave_out: str | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> Sensitivity:
    """How far coefficients, and ``quantities`` that follow from them, depend on prior, likelihood and runs.

    ``quantities``  {name: f}: f takes {coefficient: (draw,)} in the table's units and gives (draw,)
    ``leave_out``   a column: the law is fitted again without the runs of each of its values in turn, with the
                    same prior and ``draws`` a chain (default: as many as before). Takes a fit a value.
    Raises RunTableError where the table has no such column, FitError for a posterior of a pooled fit.
    """
    check_posterior(post)
    refuse_pooled(post, "its prior is not that of the law;")
    check_whole("seed", seed, 0)
    if draws is not None:
        check_whole("draws", draws, 4)
    quantities = {} if quantities is None else quantities
    check_functions(quantities)
    followed = _followed(post, quantities)
    table = _power_scaling(post, followed)
    table["contraction"] = pd.Series(_contraction(post, followed))
    table["reading"] = [*map(_reading, table["prior"], table["likelihood"])]
    notes = [*_reading_notes(table)]
    rows = []
    for family in () if leave_out is None else _families(post, leave_out):
        rest = post.runs.select(family.rest)
        count = int(post.settings["draws"]) if draws is None else draws
        try:
            refit = fit(
                rest, post.law, noise=post.noise, seed=seed, draws=count, constants=post.constants,
                allow="flagged", progress=False,
            )  # fmt: skip
        except M3BayesError as error:
            rows.append({**family.row, "verdict": "failed"})
            notes.append(
                Note("REFIT_FAILED", f"there is no fit without {family.name}: {error}", (family.name,))
            )
            continue
        if refit.verdict != "passed":
            notes.append(
                Note("REFIT_FLAGGED", f"the fit without {family.name} did not pass the gate", (family.name,))
            )
        shifts = _shifts(followed, _followed(refit, quantities))
        rows += [
            {**family.row, "verdict": refit.verdict, "quantity": name, "shift": shift, "widening": widening}
            for name, (shift, widening) in shifts.items()
        ]
        notes += _leaning(family.name, shifts)
    columns = ["column", "value", "runs", "verdict", "quantity", "shift", "widening"]
    return Sensitivity(table, pd.DataFrame(rows, columns=columns), tuple(notes))


# --- prior and likelihood -------------------------------------------------------------------------------


def log_prior(post: Posterior) -> Float[np.ndarray, " draw"]:
    """Log prior density of each draw, coefficients and noise together, with respect to the real line."""
    total = 0.0
    with jax.enable_x64(True):
        for name, prior in _priors(post).items():
            values = _scaled(post)[name]
            bijection = biject_to(prior.support)
            real = bijection.inv(values)
            total = total + prior.log_prob(values) + bijection.log_abs_det_jacobian(real, values)
        return np.asarray(total)


def _power_scaling(post: Posterior, followed: Draws) -> pd.DataFrame:
    from arviz_stats.base.array import array_stats  # slow to import

    library: Any = array_stats  # whose annotations say whole numbers for powers
    found = {}
    for part, log_part in (("prior", log_prior(post)), ("likelihood", log_likelihood(post))):
        weights = []
        for power in POWERS:
            log_weights = library.power_scale_lw(log_part, alpha=power)
            weights.append(np.exp(log_weights - log_weights.max())[None])
        found[part] = {
            # what is the same in every draw does not change
            name: float(library.power_scale_sense(values[None], *weights, *POWERS)) if np.ptp(values) else 0.0
            for name, values in followed.items()
        }
    return pd.DataFrame(found).rename_axis("quantity")


def _contraction(post: Posterior, followed: Draws) -> dict[str, float]:
    priors = _priors(post)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), PRIOR_DRAWS)
        sites = jax.jit(jax.vmap(lambda key: sample_prior(priors, key)))(keys)
        prior = _real_line(post, priors, sites)
    return {name: 1 - float(np.var(followed[name]) / np.var(values)) for name, values in prior.items()}


def _reading(prior: float, likelihood: float) -> str:
    if prior < LEAST_DISTANCE:
        return ""
    return (
        "prior and runs pull apart" if likelihood >= LEAST_DISTANCE else "the prior speaks, the runs hardly"
    )


def _reading_notes(table: pd.DataFrame) -> Iterator[Note]:
    pulled = tuple(table.index[table["reading"].str.contains("apart")])
    spoken = tuple(table.index[table["reading"].str.contains("hardly")])
    if pulled:
        message = (
            f"a somewhat stronger prior would move {', '.join(pulled)}, and so would more of the same runs"
        )
        yield Note("PRIOR_PULLS", f"{message}: the two pull apart", pulled)
    if spoken:
        yield Note(
            "PRIOR_SPEAKS",
            f"what is said of {', '.join(spoken)} is the prior's; the runs hardly say more",
            spoken,
        )


# --- draws on the real line -----------------------------------------------------------------------------


def _followed(post: Posterior, quantities: Quantities) -> dict[str, np.ndarray]:
    with jax.enable_x64(True):
        result = _real_line(post, _priors(post), _scaled(post))
    taken = [name for name in quantities if name in result]
    if taken:
        raise M3BayesError(
            f"quantities has {taken[0]!r}, which is one of the posterior's own; give another name"
        )
    return result | values_of(quantities, post)


def _priors(post: Posterior) -> dict[str, Distribution]:
    return site_priors(post.law, post.noise, len(post.groups))


def _scaled(post: Posterior) -> dict[str, np.ndarray]:
    """The sites of every draw, coefficients at the reference that the priors are stated at."""
    logs = {name: np.log(value) for name, value in post.constants.items()}
    c = post.coefficients
    result = {}
    for name in post.law.names:
        log_scale = log_at_reference(post.law, name, c, logs) - (logs["L"] if post.law[name].of_loss else 0.0)
        result[name] = c[name] * np.exp(np.asarray(log_scale))
    noise = [name for name in _priors(post) if name not in result]
    return result | {n: post.draws[n].reshape(-1, *post.draws[n].shape[2:]) for n in noise}


def _real_line(post: Posterior, priors: Mapping[str, Distribution], sites: Mapping) -> dict[str, np.ndarray]:
    """{quantity: (draw,)}: every coefficient, sigma (one a group) and nu."""
    result = {}
    for name, prior in priors.items():
        real = np.asarray(biject_to(prior.support).inv(jnp.asarray(sites[name])))
        if real.ndim == 1:
            result[name] = real
        else:
            result |= {f"{name}[{group}]": real[:, i] for i, group in enumerate(post.groups)}
    return result


# --- without a family of runs ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Family:
    name: str
    rest: np.ndarray
    row: Mapping[str, object]


def _families(post: Posterior, column: str) -> Iterator[_Family]:
    counted = weights(post) > 0
    values = np.array([str(value) for value in post.runs[column]])
    if len(np.unique(values[counted])) < 2:
        raise RunTableError(
            f"{post.runs.name}: column {column} is {str(values[0])!r} in every run, expected several values to leave "
            "out in turn; name another column"
        )
    for value in np.unique(values[counted]):
        rest = counted & (values != value)
        row = {"column": column, "value": str(value), "runs": int(np.sum(counted & ~rest))}
        yield _Family(f"{column} {value}", rest, row)


def _shifts(
    full: Mapping[str, np.ndarray], refit: Mapping[str, np.ndarray]
) -> dict[str, tuple[float, float]]:
    """{quantity: (shift, widening)} of those that both fits have."""
    sd = {name: float(np.std(values)) or math.nan for name, values in full.items()}
    return {
        name: (
            float(np.mean(refit[name]) - np.mean(values)) / sd[name],
            float(np.std(refit[name])) / sd[name],
        )
        for name, values in full.items()
        if name in refit
    }


def _leaning(family: str, shifts: Mapping[str, tuple[float, float]]) -> Iterator[Note]:
    far = {name: shift for name, (shift, _) in shifts.items() if abs(shift) > FAR_SHIFT}
    if far:
        listed = ", ".join(f"{name} ({shift:+.1f})" for name, shift in far.items())
        message = (
            f"without {family} these move by more than {FAR_SHIFT:g} posterior standard deviations: {listed}"
        )
        yield Note("LEANS_ON_FAMILY", message, (family, *far))
