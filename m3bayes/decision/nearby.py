"""Optima from the optima of budgets nearby: what a map needs that asks for the same draws again and again.

Each draw starts at its recipes elsewhere, brought into the faces of this budget, and goes down by Newton's
method on the two faces where that recipe costs least; then once more from where it came to, since the best
face may lie beside those. Two-stage recipes have two kinds of optima, with a last stage of target text alone
and with one that is hardly richer than what comes before it: each neighbour's recipe is a start of both kinds.
A small part of the work of a search from scratch, which sees every face.

| symbol | meaning |
|---|---|
| t | a point of a face's box, in the order N, k, r, r_f |
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from m3bayes.decision.cost import Cost
from m3bayes.decision.faces import Face, recipe_at
from m3bayes.decision.newton import newton
from m3bayes.decision.optimize import Draws, Surface
from m3bayes.decision.space import RECIPE

Columns = Mapping[str, Float[np.ndarray, " draw"]]
# sizes that are compiled: draws at a time, and faces
SMALL, BLOCK, FACES = 128, 512, 12
TRIED, ROUNDS = 2, 2
# each coordinate of a box moves its own variable, in logs, given those before it
ORDER = ((2, "target_ratio"), (3, "final_ratio"), (1, "epochs"), (0, "params"))


def nearby_optima(
    surface: Surface, c: Draws, extra: Mapping[str, float], faces: Sequence[Face], starts: Sequence[Columns]
) -> tuple[Float[np.ndarray, " draw"], dict[str, Float[np.ndarray, " draw"]]]:
    """Loss and recipe of each draw's optimum on some faces, from the draws' recipes elsewhere, two sets of
    columns (draw,) of N, k, r and r_f."""
    count = len(next(iter(c.values())))
    padded_faces = [*faces, *[faces[0]] * (-len(faces) % FACES)]
    stacked = jax.tree.map(
        lambda *leaves: np.stack([np.asarray(leaf, float) for leaf in leaves]), *padded_faces
    )
    if any(np.any(face.last[0] != face.last[1]) for face in faces):
        # r_f has room: its ends too; out of bounds is as far as the bounds go
        far = [
            {**columns, "final_ratio": columns["final_ratio"] * end}
            for columns, end in zip(starts, (1e3, 1e-3), strict=True)
        ]
        starts = [*starts, *far]
    recipes = {name: np.stack([columns[name] for columns in starts]) for name in RECIPE}
    size = SMALL if count <= SMALL else BLOCK
    jobs = [slice(i, min(i + size, count)) for i in range(0, count, size)]

    def solve(rows: slice):
        def padded(values: np.ndarray) -> np.ndarray:
            values = values[..., rows]
            width = [(0, 0)] * (values.ndim - 1) + [(0, size - values.shape[-1])]
            return np.pad(values, width, mode="edge")

        with jax.enable_x64(True):  # holds for one thread
            some = {name: padded(values) for name, values in c.items()}
            near = {name: padded(values) for name, values in recipes.items()}
            for _ in range(ROUNDS):
                loss, recipe = _descend(surface, some, dict(extra), stacked, len(faces), near)
                near = {name: recipe[name] for name in RECIPE}
            return jax.tree.map(lambda leaf: np.asarray(leaf)[:, : rows.stop - rows.start], (loss, recipe))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        done = list(pool.map(solve, jobs))
    loss, recipe = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *done)
    best, draws = np.argmin(loss, axis=0), np.arange(count)
    return loss[best, draws], {name: values[best, draws] for name, values in recipe.items()}


@partial(jax.jit, static_argnums=0)
def _descend(surface: Surface, c, extra, faces: Face, count: Array, near) -> tuple[Array, dict[str, Array]]:
    """Loss (start, draw) and recipe that each start leads to, ``near`` {name: (start, draw)}; ``faces`` are
    stacked, ``count`` of them real."""

    def on_face(face: Face, recipe: Mapping[str, Array], c: Mapping[str, Array]) -> tuple[Array, Array]:
        t = point_of(face, recipe, surface.cost)
        return t, surface.loss(c, extra, face, t)

    over_draws = jax.vmap(on_face, in_axes=(None, 0, 0))
    over_starts = jax.vmap(over_draws, in_axes=(None, 0, None))
    t, loss = jax.vmap(over_starts, in_axes=(0, None, None))(faces, near, c)  # (face, start, draw)
    real = jnp.arange(loss.shape[0])[:, None, None] < count
    tried = jnp.argsort(jnp.where(real, loss, jnp.inf), axis=0)[:TRIED]  # (tried, start, draw)
    tried = jnp.where(tried < count, tried, tried[:1])  # where there are fewer faces than that
    t = jnp.moveaxis(jnp.take_along_axis(t, tried[..., None], axis=0), -1, 0)
    chosen = jax.tree.map(lambda leaf: leaf[tried], faces)
    at = jax.vmap(lambda c, face, t: surface.loss(c, extra, face, t), in_axes=(0, 0, 1))
    for _ in range(2):  # over starts, then over faces tried
        at = jax.vmap(at, in_axes=(None, 0, 1))
    reached = newton(lambda t: at(c, chosen, t), t)
    best = jnp.argmin(reached.value, axis=0)  # (start, draw)

    def of_best(values: Array) -> Array:
        index = best.reshape(1, *best.shape, *[1] * (values.ndim - 3))
        return jnp.take_along_axis(values, index, axis=0)[0]

    place = jnp.moveaxis(reached.t, 0, -1)
    recipe = jax.vmap(jax.vmap(partial(recipe_at, cost=surface.cost)))
    return of_best(reached.value), recipe(jax.tree.map(of_best, chosen), of_best(place))


def point_of(face: Face, recipe: Mapping[str, Array], cost: Cost) -> Float[Array, " 4"]:
    """The point of a face nearest to a recipe, one variable after the other."""
    t = jnp.full(4, 0.5)
    for i, name in ORDER:
        low, high = (jnp.log(recipe_at(face, t.at[i].set(end), cost)[name]) for end in (0.0, 1.0))
        room = high - low
        share = (jnp.log(recipe[name]) - low) / jnp.where(room > 0, room, 1.0)
        t = t.at[i].set(jnp.where(room > 0, jnp.clip(share, 0.0, 1.0), 0.5))
    return t
