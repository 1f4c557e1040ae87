"""Pooled posteriors as files: as storage.py has posteriors, coefficients with a dimension ``group``, and what the
groups have in common in a group of the file named ``population``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from m3bayes.inference import storage
from m3bayes.inference.pooled import Pooled
from m3bayes.inference.pooled_model import KINDS
from m3bayes.inference.posterior import Posterior
from m3bayes.laws.law import Law

if TYPE_CHECKING:
    import xarray

KIND = "pooled posterior"
POPULATION = "population"
PARTS = ("means", "spreads", "shared")


def tree(pooled: Pooled) -> xarray.DataTree:
    """The pooled posterior as an ArviZ DataTree: as :func:`m3bayes.inference.storage.tree`, with the dimension
    ``group`` in all coefficients, and means, spreads and shared coefficients in ``population``."""
    import xarray

    told = {"by": pooled.by, "pooling": dict(pooled.pooling), "spread_priors": dict(pooled.spread_priors)}
    result = storage.tree(_as_posterior(pooled))
    by_draw = ("chain", "draw")
    arrays = {
        f"{part}.{name}": (by_draw, values, {})
        for part in PARTS
        for name, values in getattr(pooled, part).items()
    }
    result[POPULATION] = xarray.DataTree(storage.dataset(arrays, {}))
    result.attrs["pooled"] = json.dumps(told)
    return result


def save(pooled: Pooled, path: str | os.PathLike[str]) -> None:
    """Write ``pooled`` to ``path`` in one step. Raises as :func:`m3bayes.inference.storage.save`."""
    storage.write(lambda: tree(pooled), path, KIND)


def load_pooled(path: str | os.PathLike[str], *, law: Law | None = None) -> Pooled:
    """What :meth:`Pooled.save` wrote to ``path``. ``law`` and errors as for :func:`m3bayes.load`."""

    def made(stored: storage.Stored, groups: storage.Groups) -> Pooled:
        post, told = storage.posterior_in(path, stored, groups, law), stored["pooled"]
        parts: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
        for name, values in groups.get(POPULATION, {}).items():
            part, _, coefficient = name.partition(".")
            parts[part][coefficient] = values
        _check(post, told, parts)
        return Pooled(
            law=post.law,
            noise=post.noise,
            runs=post.runs,
            by=told["by"],
            groups=post.groups,
            pooling=told["pooling"],
            draws=post.draws,
            means=parts["means"],
            spreads=parts["spreads"],
            spread_priors=told["spread_priors"],
            shared=parts["shared"],
            sample_stats=post.sample_stats,
            log_likelihood=post.log_likelihood,
            constants=post.constants,
            verdict=post.verdict,
            notes=post.notes,
            settings=post.settings,
            versions=post.versions,
        )

    return storage.read(path, KIND, made)


def _as_posterior(pooled: Pooled) -> Posterior:
    return Posterior(
        law=pooled.law,
        noise=pooled.noise,
        runs=pooled.runs,
        draws=pooled.draws,
        sample_stats=pooled.sample_stats,
        log_likelihood=pooled.log_likelihood,
        constants=pooled.constants,
        groups=pooled.groups,
        verdict=pooled.verdict,
        notes=pooled.notes,
        settings=pooled.settings,
        versions=pooled.versions,
    )


def _check(post: Posterior, told: Mapping[str, Any], parts: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """ValueError unless the arrays fit each other, the law and the groups."""
    pooling = told["pooling"]
    if set(pooling) != set(post.law.names) or not set(pooling.values()) <= set(KINDS):
        raise ValueError(f"its pooling is {pooling!r:.80}")
    if told["by"] not in post.runs.columns:
        raise ValueError(f"its runs have no column {told['by']!r:.40}")
    shape = post.draws[post.law.names[0]].shape
    if len(shape) != 3 or 0 in shape or shape[2] != len(post.groups):
        raise ValueError(f"draws have shape {shape}, expected (chain, draw, {len(post.groups)})")
    expected: dict[str, tuple[np.ndarray, tuple[int, ...]]]
    expected = {name: (post.draws[name], shape) for name in post.law.names}
    for part, kind in (("means", "partial"), ("spreads", "partial"), ("shared", "shared")):
        for name in (name for name, found in pooling.items() if found == kind):
            expected[f"{part} {name}"] = (parts[part][name], shape[:2])
    expected |= {name: (values, shape[:2]) for name, values in post.sample_stats.items()}
    expected["sigma"] = (post.draws["sigma"], shape[: post.draws["sigma"].ndim])
    if "nu" in post.draws:
        expected["nu"] = (post.draws["nu"], shape[:2])
    if post.log_likelihood is not None:
        expected["log_likelihood"] = (post.log_likelihood, (*shape[:2], len(post.runs)))
    for name, (values, wanted) in expected.items():
        if values.shape != wanted or values.dtype.kind not in "fiub":
            raise ValueError(f"{name} is {values.dtype} {values.shape}, expected numbers {wanted}")
    if set(told["spread_priors"]) != set(parts["means"]):
        raise ValueError("its priors of spreads are not those of its means")
