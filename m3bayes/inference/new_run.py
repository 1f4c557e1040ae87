"""The noise of a new run: log L_new = log L_d + s_d t_d, one value of t a posterior draw d.

| symbol | meaning |
|---|---|
| t_d | StudentT(nu_d) or Normal(0, 1), one value from each of n_draws strata of equal probability |
| sigma_d | scatter of log loss in draw d, of the recipe's group where the noise has groups |
| s_d | sqrt(sigma_d^2 + (se / L_d)^2), se = ``loss_se`` of the recipe where the noise knows standard errors |

t_d is the same for every recipe and follows from the posterior's seed alone: stratifying leaves next to no
Monte Carlo error, and a prediction does not depend on what else is predicted.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import special

from m3bayes.errors import Note
from m3bayes.inference.posterior import Posterior


@dataclass(frozen=True, eq=False)
class Scatter:
    """Noise of new runs of some recipes.

    ``t`` and ``sigma`` as above, ``group`` the index of each recipe's group, ``unknown`` where that is a
    stand-in, ``se`` the standard error known of each recipe's loss, 0 where none is.
    """

    t: Float[np.ndarray, " draw"]
    sigma: Float[np.ndarray, "group draw"]
    group: Int[np.ndarray, " recipe"]
    unknown: Bool[np.ndarray, " recipe"]
    se: Float[np.ndarray, " recipe"]


def scatter(post: Posterior, columns: Mapping[str, np.ndarray], table: pd.DataFrame) -> Scatter:
    """Noise for recipes given as numeric ``columns`` and as the ``table`` they came from.

    A recipe whose group is blank or was not among the runs gets the group with the largest median sigma.
    """
    sigma = post.draws["sigma"]
    n_draws = sigma.shape[0] * sigma.shape[1]
    sigma = np.ascontiguousarray(sigma.reshape(n_draws, -1).T)
    total = len(columns["params"])
    group, unknown = np.zeros(total, np.int32), np.zeros(total, bool)
    if (by := post.noise.by) is not None:
        values = columns[by] if by in columns else table[by] if by in table else [None] * total
        index = {name: i for i, name in enumerate(post.groups)}
        group = np.array([index.get(str(value), -1) for value in values], np.int32)
        unknown = group < 0
        group[unknown] = np.argmax(np.median(sigma, axis=1))
    se = np.nan_to_num(columns["loss_se"]) if post.noise.known and "loss_se" in columns else np.zeros(total)
    return Scatter(_stratified(post, n_draws), sigma, group, unknown, se)


def notes(post: Posterior, noise: Scatter) -> tuple[Note, ...]:
    """NOISE_GROUP where groups had to be stood in for."""
    if not noise.unknown.any():
        return ()
    stand_in = post.groups[int(noise.group[noise.unknown][0])]
    message = (
        f"{noise.unknown.sum()} of {len(noise.unknown)} recipes have no {post.noise.by} that was among the "
        f"runs: their new runs scatter as {stand_in!r} does, the widest of {', '.join(post.groups)}"
    )
    return (Note("NOISE_GROUP", message, (str(post.noise.by),)),)


def _stratified(post: Posterior, n_draws: int) -> Float[np.ndarray, " draw"]:
    key = jax.random.key(int(post.settings.get("seed", 0)))
    for_order, for_place = jax.random.split(jax.random.fold_in(key, zlib.crc32(b"new run")))
    with jax.enable_x64(True):
        order = np.asarray(jax.random.permutation(for_order, n_draws))
        place = np.asarray(jax.random.uniform(for_place, (n_draws,), jnp.float64))
    uniform = np.clip((order + place) / n_draws, 1e-12, 1 - 1e-12)
    if post.noise.kind == "normal":
        return special.ndtri(uniform)
    return special.stdtrit(post.draws["nu"].reshape(-1), uniform)
