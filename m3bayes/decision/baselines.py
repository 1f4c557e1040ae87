"""What a recommendation is always compared with: habits of the field, and the caller's own recipes.

| name | recipe |
|---|---|
| 4 epochs monolingual | k = 4, r = r_f = 1 |
| k = D*(C) / D_T | r = r_f = 1, the epochs that fill the compute-optimal D* of fresh text |
| temperature sampling | one stage, D* tokens, r = U^.3 / (U^.3 + S^.3), S the source text that may be used |

N is as large as C allows. D*(C) minimises the loss of k = 1, r = r_f = 1 at U = D and cost(N, D) = C, without
bounds; taken is the geometric mean of the draws' D*. The exponent .3 is that of XLM-R (Conneau et al. 2020,
arXiv 1911.02116).

| symbol | meaning | unit |
|---|---|---|
| U = D_T, S | unique target tokens, source tokens | table's |
| N, k, r, r_f, D, C | as in :mod:`m3bayes.decision.faces` | |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from m3bayes.decision.newton import newton
from m3bayes.decision.optimize import Draws, Surface
from m3bayes.decision.space import Space
from m3bayes.errors import Note, RecipeError
from m3bayes.recipe import Recipe

TEMPERATURE = 0.3
FOUR_EPOCHS, FRESH, SAMPLED = "4 epochs monolingual", "k = D*(C) / D_T", "temperature sampling"


@dataclass(frozen=True)
class Baseline:
    """A recipe to compare with; ``why_not`` is what keeps it from being feasible, None where nothing does."""

    name: str
    recipe: Recipe
    why_not: str | None

    @property
    def feasible(self) -> bool:
        return self.why_not is None


def baselines(
    space: Space, surface: Surface, c: Draws, extra: Mapping[str, float], given: Mapping[str, Recipe]
) -> tuple[tuple[Baseline, ...], list[Note]]:
    """The three standing baselines and the caller's, with notes on what was clipped to the bounds."""
    if taken := sorted(given.keys() & {FOUR_EPOCHS, FRESH, SAMPLED}):
        raise RecipeError(f"baseline {taken[0]!r} is always there; give yours another name")
    notes: list[Note] = []
    D = float(np.exp(np.mean(np.log(fresh_tokens(space, surface, c, extra)))))
    S = space["source_tokens"].high
    S = S if math.isfinite(S) else max(D - space.target_tokens, 0.0)
    U, share = space.target_tokens**TEMPERATURE, S**TEMPERATURE
    r = U / (U + share)
    wanted = {
        FOUR_EPOCHS: (4.0, 1.0),
        FRESH: (_clipped(space, FRESH, D / space.target_tokens, notes), 1.0),
        SAMPLED: (_clipped(space, SAMPLED, r * D / space.target_tokens, notes), r),
    }
    result = []
    for name, (k, r) in wanted.items():
        tokens = k * space.target_tokens / r
        N = space.affordable(space.cost.params(space.compute, tokens), tokens)
        recipe = Recipe(N, space.target_tokens, k, r, r, None, space.extra)
        result.append(Baseline(name, recipe, space.why_not(recipe)))
    result += [Baseline(name, recipe, space.why_not(recipe)) for name, recipe in given.items()]
    return tuple(result), notes


def _clipped(space: Space, name: str, k: float, notes: list[Note]) -> float:
    bound = space["epochs"]
    kept = min(max(k, bound.low), bound.high)
    if kept != k:
        what = bound.low_text if k < bound.low else bound.high_text
        notes.append(
            Note("BASELINE_CLIPPED", f"baseline {name} would train {k:.4g} epochs; taken at {what}", (name,))
        )
    return kept


def fresh_tokens(
    space: Space, surface: Surface, c: Draws, extra: Mapping[str, float]
) -> Float[np.ndarray, " draw"]:
    """D*(C) of each draw: the compute-optimal tokens of monolingual training without repetition."""
    cost = surface.cost
    token, param = 1 / cost.unit_tokens, 1 / cost.unit_params
    log_D = np.log([token, min(cost.tokens(space.compute, param), 1e30 * token)])
    log_N = np.log([param, min(cost.params(space.compute, token), 1e30 * param)])
    return np.asarray(_fresh_tokens(surface, dict(c), dict(extra), math.log(space.compute), log_D, log_N))


@partial(jax.jit, static_argnums=0)
def _fresh_tokens(surface: Surface, c, extra, log_C: Array, log_D: Array, log_N: Array) -> Array:
    def log_tokens(t: Array) -> Array:
        return (1 - t) * log_D[0] + t * log_D[1]

    def loss(c, t: Array) -> Array:
        D = jnp.exp(log_tokens(t[0]))
        N = jnp.exp(surface.cost.log_params(log_C, log_tokens(t[0]), log_N[0], log_N[1]))
        ones = {name: jnp.ones(()) for name in ("epochs", "target_ratio", "final_ratio")}
        loss = jnp.asarray(surface.law.loss(c, {"params": N, "target_tokens": D, **ones, **extra}))
        return jnp.where(jnp.isnan(loss), jnp.inf, loss)

    points = jnp.linspace(0.0, 1.0, 65)[:, None]
    values = jax.vmap(lambda c: jax.vmap(partial(loss, c))(points))(c)
    of_draws = partial(jax.vmap(loss, in_axes=(0, 1)), c)
    return jnp.exp(log_tokens(newton(of_draws, points[jnp.argmin(values, axis=1)].T).t[0]))
