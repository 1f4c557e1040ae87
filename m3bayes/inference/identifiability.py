"""What a table of runs can tell of a law's coefficients, before anything is fitted.

To first order, runs tell of the coefficients what J does, the derivatives of each run's log loss by each
coefficient (run, coefficient). A coefficient with a zero column is not seen at all; directions in which
J vanishes are combinations that no number of such runs would tell. Both are looked for at a few
points of the prior, and only what holds at all of them is said, so that it is a property of the runs and
not of a point. Which column would have to vary is found by varying it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import Distribution, TransformedDistribution, biject_to, constraints

from m3bayes.errors import Note, RunTableError
from m3bayes.inference.data import canonical, unscale
from m3bayes.inference.noise import normal
from m3bayes.laws.law import Law
from m3bayes.runs import Runs
from m3bayes.table_checks import VARIABLES, same_ratio

FEWEST_RUNS = 5

POINTS = 3
_STEP = 1e-3  # of differences of fourth order, whose error is then near 1e-12
_MOST_RECIPES = 256
_VANISHES = 1e-7  # singular values below this share of the largest, columns having unit norm
_TAKES_PART = 1e-3  # squared share of a coefficient in a direction that vanishes

Columns = Mapping[str, np.ndarray]

_COMBINATIONS = {
    frozenset({"E", "A", "alpha"}): "E + A N^-alpha",
    frozenset({"E", "B", "beta"}): "E + B D^-beta",
    frozenset({"E", "A", "alpha", "B", "beta"}): "E + A N^-alpha + B D^-beta",
    frozenset({"P", "kappa"}): "P (N/U)^kappa",
}


class _Unseen(NamedTuple):
    """Coefficients that no run depends on, and groups of which only combinations are seen."""

    alone: frozenset[str]
    groups: tuple[frozenset[str], ...]

    @property
    def names(self) -> frozenset[str]:
        return self.alone.union(*self.groups)


def identifiability_notes(runs: Runs, law: Law) -> tuple[Note, ...]:
    """What the table leaves open, whatever its losses are.

    UNIDENTIFIED names in ``about`` coefficients that no run depends on, or of which only a combination
    shows in the losses, and says what the runs would have to vary. ROWS_ALIKE: all runs have one recipe.
    LAST_STAGE_SHARE_CONSTANT: all runs with two stages gave the last one the same share of the tokens.
    """
    return (*_table_notes(runs), *_unidentified_notes(runs, law))


def check_enough_runs(runs: Runs, law: Law) -> None:
    """Raise RunTableError where there are fewer runs than coefficients that such runs could tell, or than 5.

    Runs of weight 0 do not count, replicates do. What such runs could tell is counted as if the values in
    the columns had been combined in other ways too.
    """
    n = int((runs["weight"] > 0).sum()) if "weight" in runs.columns else len(runs)
    x, reference = _seen_runs(runs, law)
    most = _rank(law, _recombined(x), reference)
    if n < max(most, FEWEST_RUNS):
        raise RunTableError(
            f"{runs.name}: {n} runs, expected at least {max(most, FEWEST_RUNS)}: law {law.name} has "
            f"{len(law.names)} coefficients, of which runs like these could tell {most}; "
            "add runs or take a law with fewer coefficients"
        )


# ---- notes -------------------------------------------------------------------------------------


def _table_notes(runs: Runs) -> list[Note]:
    notes = []
    recipes = np.column_stack([runs[name] for name in VARIABLES if name in runs.columns])
    if len(runs) > 1 and len(np.unique(np.nan_to_num(recipes, nan=-1.0), axis=0)) == 1:
        message = f"all {len(runs)} runs have the same recipe: they tell its loss and the noise, and no more"
        notes.append(Note("ROWS_ALIKE", message, ("run",)))
    two_stages = ~same_ratio(runs["target_ratio"], runs["final_ratio"])
    shares = runs.last_stage_share[two_stages]
    if len(shares) and np.ptp(shares) < 1e-3:
        notes.append(
            Note(
                "LAST_STAGE_SHARE_CONSTANT",
                f"the last stage has {shares.mean():.3g} of the tokens in all {len(shares)} two-stage runs; "
                "they say nothing of other shares",
                ("final_ratio",),
            )
        )
    return notes


def _unidentified_notes(runs: Runs, law: Law) -> list[Note]:
    x, reference = _seen_runs(runs, law)
    unseen = _unseen(law, _filled(x), reference)
    if not unseen.names:
        return []
    recipes, needed = _rows(x), _rank(law, _recombined(x), reference)
    if unseen.groups and recipes < needed:
        group = _in_order(law, frozenset().union(*unseen.groups))
        unseen = unseen._replace(groups=())
        message = (
            f"{', '.join(group)}: the runs hold {recipes} different recipes, too few to tell {needed} "
            "coefficients apart; what the losses leave open is filled by the priors"
        )
        few = [Note("UNIDENTIFIED", message, group)]
    else:
        few = []
    cures = _cures(law, x, reference, unseen) if unseen.names else {}
    by_reason: dict[str, list[str]] = {}
    for name in _in_order(law, unseen.alone):
        by_reason.setdefault(_reason(frozenset({name}), cures, x, runs), []).append(name)
    alone = []
    for reason, names in by_reason.items():
        them, they = ("it", "it keeps its prior") if len(names) == 1 else ("them", "they keep their priors")
        message = f"{', '.join(names)}: no run depends on {them}, {reason}; {they}"
        alone.append(Note("UNIDENTIFIED", message, tuple(names)))
    together = [
        Note(
            "UNIDENTIFIED",
            f"{', '.join(_in_order(law, group))}: the losses tell only "
            f"{_COMBINATIONS.get(group, 'a combination of them')}, {_reason(group, cures, x, runs)}; "
            "apart they keep to their priors",
            _in_order(law, group),
        )
        for group in unseen.groups
    ]
    return [*few, *alone, *together]


def _reason(group: frozenset[str], cures: Mapping[tuple[str, ...], _Unseen], x: Columns, runs: Runs) -> str:
    """Why a group is not seen: the fewest columns which, had they varied, would have shown it."""
    helping = [columns for columns, unseen in cures.items() if not group & unseen.names]
    if not helping:
        return "nor would runs that vary all columns by themselves"
    fewest = min(len(columns) for columns in helping)
    helping = [columns for columns in helping if len(columns) == fewest]
    # a column that does not vary at all is the reason, before those that vary only with others
    for columns in helping:
        if all(_flat(x, column) for column in columns):
            return "since " + " and ".join(_fact(column, x, runs) for column in columns)
    named = " or ".join(" and ".join(columns) for columns in helping)
    return f"as long as the runs do not vary {named} independently of the rest"


def _fact(column: str, x: Columns, runs: Runs) -> str:
    if column == "epochs" and (x["epochs"] <= 1).all():
        return "no run has epochs above 1"
    if column in ("target_ratio", "final_ratio") and (x[column] == 1).all():
        return f"no run has {column} below 1"
    return f"{column} is {np.median(runs[column]):.4g} in every run"


def _flat(x: Columns, column: str) -> bool:
    values = x[column]
    fixed = bool(np.ptp(values) <= 1e-9 * np.abs(values).max())
    return fixed or (column == "epochs" and bool((values <= 1).all()))


def _in_order(law: Law, names: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in law.names if name in names)


# ---- tables ------------------------------------------------------------------------------------


def _seen_runs(runs: Runs, law: Law) -> tuple[dict[str, np.ndarray], Mapping[str, float]]:
    """The law's columns of the different recipes that count, in canonical units, and the references."""
    arrays = canonical(runs, law, normal()).arrays
    counts = np.asarray(arrays["weight"]) > 0
    columns: Mapping[str, np.ndarray] = arrays["x"]  # pyright: ignore[reportAssignmentType]
    reference: Mapping[str, float] = arrays["reference"]  # pyright: ignore[reportAssignmentType]
    table = np.unique(np.column_stack([columns[name][counts] for name in law.columns]), axis=0)
    if len(table) > _MOST_RECIPES:
        # rows at the ends of each column, and others at even distances
        ends = [*table.argmin(axis=0), *table.argmax(axis=0)]
        even = np.linspace(0, len(table) - 1, _MOST_RECIPES - len(ends)).astype(int)
        table = table[np.union1d(ends, even)]
    return dict(zip(law.columns, table.T, strict=True)), reference


def _rows(x: Columns) -> int:
    return len(next(iter(x.values())))


def _filled(x: Columns) -> dict[str, np.ndarray]:
    """The recipes, repeated to a number of rows that tables of like size share, and compiled code with it."""
    n = _rows(x)
    size = max(128, 1 << (2 * n - 1).bit_length())
    return {name: np.resize(values, size) for name, values in x.items()}


def _recombined(x: Columns) -> dict[str, np.ndarray]:
    """The recipes, then others whose columns take the same values in other combinations."""
    n, random = _rows(x), np.random.default_rng(0)
    return {name: np.r_[values[:n], random.permutation(values[n:])] for name, values in _filled(x).items()}


def _varied(x: Columns, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """The recipes with some columns spread out by themselves."""
    random = np.random.default_rng(1)
    result = _filled(x)
    for name in columns:
        spread = random.uniform(size=len(result[name]))
        if name == "epochs":
            result[name] = 1 + np.exp(4 * spread - 2)
        elif name.endswith("ratio"):
            result[name] = 0.1 + 0.85 * spread
        else:
            result[name] = np.where(result[name] > 0, result[name], 1.0) * np.exp(4 * spread - 2)
    return result


def _cures(
    law: Law, x: Columns, reference: Mapping[str, float], open_now: _Unseen
) -> dict[tuple[str, ...], _Unseen]:
    """{columns varied by themselves: what is then still not seen}, for one column or, if need be, two."""
    wanted = [*open_now.groups, *(frozenset({name}) for name in open_now.alone)]
    cures: dict[tuple[str, ...], _Unseen] = {}
    for together in (1, 2):
        for columns in combinations(law.columns, together):
            cures[columns] = _unseen(law, _varied(x, columns), reference)
        if all(any(not group & unseen.names for unseen in cures.values()) for group in wanted):
            break
    return cures


# ---- derivatives -------------------------------------------------------------------------------


def _unseen(law: Law, x: Columns, reference: Mapping[str, float]) -> _Unseen:
    """What no point of the prior sees of the coefficients at these runs."""
    alone = np.ones(len(law.names), dtype=bool)
    linked = np.ones((len(law.names), len(law.names)), dtype=bool)
    for J in _derivatives(law, x, reference):
        size = np.linalg.norm(J, axis=0)
        zero = size <= _VANISHES * size.max()
        values, directions = _svd(J[:, ~zero])
        hidden = directions[values <= _VANISHES * values.max()]
        share = np.zeros_like(linked, dtype=float)
        share[np.ix_(~zero, ~zero)] = hidden.T @ hidden
        alone &= zero
        linked &= np.abs(share) > _TAKES_PART
    linked |= linked.T
    members = [set(np.flatnonzero(row)) for row in linked if row.any()]
    groups: list[set] = []
    for member in members:
        touching = [group for group in groups if group & member]
        groups = [group for group in groups if not group & member] + [member.union(*touching)]
    names = np.array(law.names)
    return _Unseen(
        frozenset(names[alone].tolist()), tuple(frozenset(names[sorted(g)].tolist()) for g in groups)
    )


def _rank(law: Law, x: Columns, reference: Mapping[str, float]) -> int:
    """How many coefficients, or combinations of them, these runs tell at the best point."""
    ranks = [0]
    for J in _derivatives(law, x, reference):
        size = np.linalg.norm(J, axis=0)
        values, _ = _svd(J[:, size > _VANISHES * size.max()])
        ranks.append(int((values > _VANISHES * values.max()).sum()))
    return max(ranks)


def _svd(J: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values, zeros for missing rows included, and right singular vectors of J with unit columns."""
    missing = max(J.shape[1] - J.shape[0], 0)
    unit = np.pad(J / np.linalg.norm(J, axis=0), ((0, missing), (0, 0)))
    _, values, directions = np.linalg.svd(unit, full_matrices=False)
    return values, directions


def _derivatives(law: Law, x: Columns, reference: Mapping[str, float]) -> list[np.ndarray]:
    """(run, coefficient) of log loss by coefficient, at each point of the prior where it is finite.

    By differences of fourth order: a program of the law's values alone takes far less time to compile.
    """
    # In canonical units the runs' mean N is 1, where A N^-alpha hides alpha; any other units show it.
    of_params, of_tokens = (7.0, 5.0) if law.equivariant else (1.0, 1.0)
    unit = {"params": of_params, "tokens": of_tokens}
    x = {name: values * unit.get(name.rpartition("_")[2], 1.0) for name, values in x.items()}
    logs = {
        name: value
        + law.references[name].params * np.log(of_params)
        + law.references[name].tokens * np.log(of_tokens)
        for name, value in reference.items()
    }
    with jax.enable_x64(True):
        step, values = map(np.asarray, _moved(law)(logs, x))
    slope = 8 * (values[:, :, 2] - values[:, :, 1]) - (values[:, :, 3] - values[:, :, 0])
    J = np.moveaxis(slope / (12 * step[:, :, None]), 1, 2)
    return [point for point in J if np.isfinite(point).all() and point.any()]


@lru_cache(maxsize=32)
def _moved(law: Law) -> Callable[[Mapping[str, float], Columns], tuple[Array, Array]]:
    """(logs of the references, recipes) -> steps (point, coefficient), and log losses (point, coefficient that is
    moved, by -2, -1, 1 or 2 steps, run)."""
    of_runs = jax.vmap(law.log_loss, in_axes=(None, 0))
    for _ in range(3):
        of_runs = jax.vmap(of_runs, in_axes=(0, None))

    @jax.jit
    def moved(logs, x):
        scaled = {c.name: _points(c.prior, _spread(i)) for i, c in enumerate(law.coefficients)}
        unscaled = unscale(law, scaled, logs)
        at = jnp.stack([unscaled[name] for name in law.names], axis=1)
        step = _STEP * (jnp.abs(at) + 1e-3)
        away = np.eye(len(law.names))[:, None] * np.array([-2.0, -1.0, 1.0, 2.0])[:, None]
        points = at[:, None, None] + away * step[:, None, None]
        return step, of_runs(dict(zip(law.names, jnp.moveaxis(points, 3, 0), strict=True)), x)

    return moved


def _spread(position: int) -> np.ndarray:
    """POINTS values in (-1, 1), others for each coefficient."""
    golden = 0.6180339887498949
    return 2 * np.mod(golden * (position + 1) + np.arange(POINTS) / POINTS, 1.0) - 1


def _points(prior: Distribution, spread: np.ndarray) -> Array:
    """Middling values of a coefficient, within a standard deviation of the mean where it has one."""
    if isinstance(prior, TransformedDistribution):
        value = _points(prior.base_dist, spread)
        for transform in prior.transforms:
            value = jnp.asarray(transform(value))
        return value
    if prior.support is constraints.real:
        value = prior.mean + spread * jnp.sqrt(prior.variance)
    else:
        value = biject_to(prior.support)(jnp.asarray(spread))
    return jnp.asarray(value)
