"""Where functions of log D_T change sign, draw by draw: found by halving the gaps in which they do.

Functions are kept as their values at nodes that all draws share, straight lines between them; nodes are added
only where signs change, since every value is an optimum over recipes. Between values of compute it is not
the functions that are interpolated but the distances to their sign changes, which move along straight lines.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

# a gap is halved where at least this share of the draws changes sign in it
WORTH_HALVING = 0.02


def refined(
    evaluate: Callable[[float], np.ndarray],
    u: Float[np.ndarray, " coarse"],
    values: Float[np.ndarray, "coarse function draw"],
    halvings: int,
) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, "node function draw"]]:
    """More nodes, and values there, where a function changes sign; ``evaluate(u)`` is (function, draw), all
    NaN where there is nothing to compare."""
    for _ in range(halvings):
        changes = np.sign(values[:-1]) * np.sign(values[1:]) < 0
        worth = np.any(np.mean(changes, axis=-1) >= WORTH_HALVING, axis=1)
        middles = ((u[:-1] + u[1:]) / 2)[worth]
        if not len(middles):
            break
        order = np.argsort(np.concatenate([u, middles]))
        u = np.concatenate([u, middles])[order]
        values = np.concatenate([values, np.stack([evaluate(float(middle)) for middle in middles])])[order]
    return u, values


def at(
    u: Float[np.ndarray, " node"], values: Float[np.ndarray, "node ..."], points: Float[np.ndarray, " point"]
) -> Float[np.ndarray, "point ..."]:
    """The piecewise straight functions at other points, within the range of the nodes."""
    if len(u) == 1:
        return np.repeat(values, len(points), axis=0)
    left = np.clip(np.searchsorted(u, points, side="right") - 1, 0, len(u) - 2)
    share = ((points - u[left]) / (u[left + 1] - u[left])).reshape(-1, *[1] * (values.ndim - 1))
    # a node's own value where a point is a node, even beside one that is NaN
    right = np.where(share > 0, share * values[left + 1], 0.0)
    return np.where(share < 1, (1 - share) * values[left], 0.0) + right


def signed_distance(
    u: Float[np.ndarray, " node"], f: Float[np.ndarray, "node ..."]
) -> Float[np.ndarray, "node ..."]:
    """Distance from each node to the nearest place where f changes sign, or to the end of the range where
    that is nearer; > 0 where f is. NaN where f is."""
    if len(u) == 1:
        return f
    column = u.reshape(-1, *[1] * (f.ndim - 1))
    low, high = f[:-1], f[1:]
    changes = (low > 0) != (high > 0)
    share = low / np.where(changes, low - high, 1.0)
    # beside what is NaN the change is at the last node that is not
    share = np.where(np.isnan(low), 1.0, np.where(np.isnan(high), 0.0, share))
    places = column[:-1] + share * np.diff(column, axis=0)
    # a step outside, so that an end has a side too
    start, end = 2 * u[0] - u[1], 2 * u[-1] - u[-2]
    first, last = np.full((1, *f.shape[1:]), start), np.full((1, *f.shape[1:]), end)
    before = np.maximum.accumulate(np.concatenate([first, np.where(changes, places, start)]))
    after = np.minimum.accumulate(np.concatenate([np.where(changes, places, end), last])[::-1])[::-1]
    distance = np.minimum(column - before, after - column)
    return np.where(np.isnan(f), np.nan, np.where(f > 0, distance, -distance))


def last_fall(
    u: Float[np.ndarray, " node"], f: Float[np.ndarray, "node draw"]
) -> tuple[Float[np.ndarray, " draw"], Int[np.ndarray, " draw"]]:
    """Where each f falls through 0 for the last time, and how often it changes sign.

    -inf where f is nowhere above 0, inf where it still is at the last node. Nodes that are NaN, the same for
    all draws, are outside the range.
    """
    inside = ~np.isnan(f).any(axis=1)
    u, f = u[inside], f[inside]
    above = f > 0
    draws = np.arange(f.shape[1])
    falls = above[:-1] & ~above[1:]
    last = len(u) - 2 - np.argmax(falls[::-1], axis=0) if len(u) > 1 else np.zeros(len(draws), int)
    place = np.full(len(draws), -np.inf)
    if len(u) > 1:
        low, high = f[last, draws], f[last + 1, draws]
        found = falls.any(axis=0)
        drop = np.where(found, low - high, 1.0)
        place[found] = (u[last] + (u[last + 1] - u[last]) * low / drop)[found]
    if len(u):
        place[above[-1]] = np.inf
    return place, np.sum(above[:-1] != above[1:], axis=0)
