"""Losses of recipes under a posterior: the mean surface, and what a new run would measure.

    mean surface   L_d(x), one value a draw d
    new run        log L_new = log L_d(x) + s_d t_d,   t_d ~ StudentT(nu_d) or Normal(0, 1)

A Student-t on log loss has no mean, so a new run is reported by its quantiles; s_d and t_d are in
``new_run.py``.

Recipes are taken one by one, all draws of one at a time: 4000 draws stay in the processor's first cache and
memory does not grow with the number of recipes. Everything is float64. float32 would halve the time and
moves quantiles by up to 1.6e-7 of themselves (Chinchilla and M3, 4000 draws), but it would also bound the
units of N and U, and the losses of two recipes often differ by less than an interval by far.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array, lax
from jaxtyping import Float

from m3bayes.errors import LawError, M3BayesError, Note
from m3bayes.inference import extrapolation as outside
from m3bayes.inference import new_run as new_runs
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.quantiles import quantiles
from m3bayes.laws.law import Law
from m3bayes.recipe import Recipe, Schedule, recipe_columns
from m3bayes.runs import Runs

# the columns that a prediction adds to its recipes, new_run_* where asked for
LOSSES = ("loss_mean", "loss_sd", "loss_lower", "loss_upper", "new_run_lower", "new_run_upper")
ADDED = (*LOSSES, "extrapolation", "notes")

Recipes = Sequence[Recipe | Schedule] | Recipe | pd.DataFrame | Runs | Mapping


@dataclass(frozen=True, eq=False)
class Prediction:
    """Losses of recipes; arrays are (recipe,), losses in the unit of the table of runs.

    ``recipes``         the columns that were given
    ``ci``              share of the draws inside the equal-tailed intervals
    ``intervals``       what they hold, in words: whether the law is taken to hold beyond the runs
    ``loss_*``          the mean surface: mean, standard deviation and interval over the draws
    ``new_run_*``       interval of what one new run would measure; None when not asked for
    ``extrapolation``   distance to the nearest run, 1 = as far as runs lie from each other
    ``distances``       {variable: (recipe,)} excess over the range of the runs, in units of that range
    ``codes``           codes of the notes that concern each recipe, joined by ``;``
    ``notes``           the notes of all recipes together
    """

    recipes: pd.DataFrame
    ci: float | int
    intervals: str
    loss_mean: Float[np.ndarray, " recipe"]
    loss_sd: Float[np.ndarray, " recipe"]
    loss_lower: Float[np.ndarray, " recipe"]
    loss_upper: Float[np.ndarray, " recipe"]
    new_run_lower: Float[np.ndarray, " recipe"] | None
    new_run_upper: Float[np.ndarray, " recipe"] | None
    extrapolation: Float[np.ndarray, " recipe"]
    distances: Mapping[str, Float[np.ndarray, " recipe"]]
    codes: np.ndarray
    notes: tuple[Note, ...]

    def frame(self) -> pd.DataFrame:
        """The columns that were given, then loss_mean, loss_sd, loss_lower, loss_upper, new_run_lower,
        new_run_upper (where asked for), extrapolation and notes (codes joined by ``;``)."""
        added = {name: getattr(self, name) for name in LOSSES if getattr(self, name) is not None}
        return self.recipes.assign(**added, extrapolation=self.extrapolation, notes=self.codes)


def predict(post: Posterior, recipes: Recipes, *, ci: float | int = 0.9, new_run: bool = True) -> Prediction:
    """Mean-surface and new-run intervals of recipes, and how far they lie from the runs.

    ``recipes`` are rows of a table (DataFrame, mapping of columns, Runs), Recipes or Schedules, in the
    table's units. ``ci`` is the share of draws in the equal-tailed intervals; quantiles interpolate
    linearly between draws. ``new_run=False`` leaves the new run out and saves half the time.

    Notes: EXTRAPOLATION, BEYOND_30X (compute), NOISE_GROUP (the noise of a recipe's group is not known).
    Raises RecipeError for recipes that cannot be or lack a column that the law reads, LawError where the
    law gives a loss that is not finite and positive, M3BayesError unless 0 < ci < 1.
    """
    if not 0 < ci < 1:
        raise M3BayesError(f"ci is {ci}; give the share of draws in the interval, between 0 and 1, as .9")
    columns = recipe_columns(recipes, post.law.columns)
    table = _table(recipes, columns)
    found = outside.extrapolation(post.runs, columns, post.law.columns)
    noise = new_runs.scatter(post, columns, table) if new_run else None
    summary = _summaries(post, columns, noise, np.array([(1 - ci) / 2, (1 + ci) / 2]))
    flags = {"EXTRAPOLATION": found.outside, "BEYOND_30X": found.far}
    notes = outside.notes(found)
    if noise is not None:
        flags["NOISE_GROUP"] = noise.unknown
        notes = (*notes, *new_runs.notes(post, noise))
    return Prediction(
        recipes=table,
        ci=ci,
        intervals=post.intervals,
        loss_mean=summary["mean"],
        loss_sd=summary["sd"],
        loss_lower=summary["loss"][:, 0],
        loss_upper=summary["loss"][:, 1],
        new_run_lower=summary["new_run"][:, 0] if new_run else None,
        new_run_upper=summary["new_run"][:, 1] if new_run else None,
        extrapolation=found.joint,
        distances=found.distances,
        codes=_codes(flags),
        notes=notes,
    )


def loss_draws(post: Posterior, recipes: Recipes) -> Float[np.ndarray, "draw recipe"]:
    """Loss of every recipe on the mean surface, one row a draw (chains one after the other).

    Takes 8 bytes a value. Raises RecipeError and LawError as :func:`predict`.
    """
    columns = recipe_columns(recipes, post.law.columns)
    x = {name: columns[name] for name in post.law.columns}
    result = _draws(post, x)
    fine = _fine(result).all(axis=0)
    if not fine.all():
        recipe = int(np.argmin(fine))
        raise _law_error(post, x, recipe, result[:, recipe])
    return result


# --- evaluation -----------------------------------------------------------------------------------------


class _Plan(NamedTuple):
    """``chunk`` recipes a call (one compiled size), ``batch`` of them at a time, on ``workers`` threads."""

    chunk: int
    batch: int
    workers: int


def _plan() -> _Plan:
    if jax.default_backend() == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return _Plan(chunk=256, batch=2, workers=cores)
    return _Plan(chunk=16384, batch=4096, workers=1)


@partial(jax.jit, static_argnames=("law", "batch"))
def _summarise(law: Law, coefficients, noise, recipes, probabilities: Array, batch: int):
    """{statistic: (recipe, ...)} of a chunk; ``noise`` is (t, sigma) or None, ``recipes`` (x, group, se)."""

    def one(recipe):
        x, group, se = recipe
        loss = jax.vmap(law.loss, in_axes=(0, None))(coefficients, x)
        mean = jnp.mean(loss)
        result = {
            "fine": jnp.all((loss > 0) & (loss < jnp.inf)),
            "mean": mean,
            "sd": jnp.sqrt(jnp.sum((loss - mean) ** 2) / max(loss.shape[0] - 1, 1)),
            "loss": quantiles(loss, probabilities),
        }
        if noise is not None:
            t, sigma = noise
            scale = jnp.sqrt(sigma[group] ** 2 + (se / loss) ** 2)
            # in logs, where a heavy tail cannot overflow
            result["new_run"] = jnp.exp(quantiles(jnp.log(loss) + scale * t, probabilities))
        return result

    return lax.map(one, recipes, batch_size=batch)


@partial(jax.jit, static_argnames="law")
def _losses(law: Law, coefficients, x) -> Array:
    over_recipes = jax.vmap(law.loss, in_axes=(None, 0))
    return jax.vmap(over_recipes, in_axes=(0, None))(coefficients, x)


def _summaries(
    post: Posterior,
    columns: Mapping[str, np.ndarray],
    noise: new_runs.Scatter | None,
    probabilities: np.ndarray,
) -> dict[str, np.ndarray]:
    """{statistic: (recipe, ...)} of all recipes. Raises LawError where a loss is not finite and positive."""
    x = {name: columns[name] for name in post.law.columns}
    total = len(columns["params"])
    group = np.zeros(total, np.int32) if noise is None else noise.group
    se = np.zeros(total) if noise is None else noise.se
    plan = _plan()
    with jax.enable_x64(True):
        coefficients = jax.device_put(post.coefficients)
        t_sigma = None if noise is None else jax.device_put((noise.t, noise.sigma))

    result = {"fine": np.empty(total, bool), "mean": np.empty(total), "sd": np.empty(total)}
    result |= {name: np.empty((total, 2)) for name in ("loss", *(() if noise is None else ("new_run",)))}

    def fill(start: int) -> None:
        rows = slice(start, min(start + plan.chunk, total))
        recipes = jax.tree.map(lambda values: _padded(values[rows], plan.chunk), (x, group, se))
        with jax.enable_x64(True):  # holds for one thread
            chunk = _summarise(post.law, coefficients, t_sigma, recipes, probabilities, plan.batch)
        for name, values in result.items():
            values[rows] = np.asarray(chunk[name])[: rows.stop - start]

    pool = ThreadPoolExecutor(plan.workers)
    try:
        for _ in pool.map(fill, range(0, total, plan.chunk)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    if not result["fine"].all():
        recipe = int(np.argmin(result["fine"]))
        draws = _draws(post, {name: values[[recipe]] for name, values in x.items()})
        raise _law_error(post, x, recipe, draws[:, 0])
    return result


def _draws(post: Posterior, x: Mapping[str, np.ndarray]) -> Float[np.ndarray, "draw recipe"]:
    total = len(next(iter(x.values())))
    chunk = _plan().chunk
    with jax.enable_x64(True):
        coefficients = jax.device_put(post.coefficients)
        parts = []
        for start in range(0, total, chunk):
            recipes = {name: _padded(values[start : start + chunk], chunk) for name, values in x.items()}
            parts.append(np.asarray(_losses(post.law, coefficients, recipes))[:, : total - start])
    return np.concatenate(parts, axis=1)


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    """The last row again and again, so that every chunk has the one size that is compiled."""
    return np.pad(values, (0, size - len(values)), mode="edge")


def _law_error(
    post: Posterior, x: Mapping[str, np.ndarray], recipe: int, losses: Float[np.ndarray, " draw"]
) -> LawError:
    draw = int(np.argmin(_fine(losses)))
    at = ", ".join(f"{name} {values[recipe]:.6g}" for name, values in x.items())
    using = ", ".join(f"{name} {values[draw]:.6g}" for name, values in post.coefficients.items())
    return LawError(
        f"law {post.law.name} gives loss {losses[draw]:g} for recipe {recipe + 1} ({at}) at draw {draw + 1} "
        f"({using}); a loss must be finite and positive: mend the law or leave the recipe out"
    )


def _fine(losses: np.ndarray) -> np.ndarray:
    return np.isfinite(losses) & (losses > 0)


# --- what goes in and comes out -------------------------------------------------------------------------


def _table(recipes: Recipes, columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    if isinstance(recipes, pd.DataFrame):
        return recipes
    if isinstance(recipes, Runs):
        return recipes.frame()
    if isinstance(recipes, Mapping):  # single values stand for every recipe
        total = len(columns["params"])
        return pd.DataFrame({name: np.broadcast_to(values, total) for name, values in recipes.items()})
    return pd.DataFrame(columns)


def _codes(flags: Mapping[str, np.ndarray]) -> np.ndarray:
    """(recipe,) names of the flags that are set, joined by ``;``."""
    combination = sum(flag.astype(int) << i for i, flag in enumerate(flags.values()))
    texts = [
        ";".join(name for i, name in enumerate(flags) if number >> i & 1) for number in range(1 << len(flags))
    ]
    return np.array(texts, dtype=object)[combination]
