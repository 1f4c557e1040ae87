"""Do the runs look like what the posterior says of them, and the prior like runs at all?

| symbol | meaning |
|---|---|
| u_i | P(L_new <= L_i) of run i, from the posterior without it (LOO-PIT): uniform where law and noise are right |
| z_i = Phi^-1(u_i) | residual, standard normal then |
| w_i = Phi^-1(2 Phi(abs(z_i)) - 1) | size of the residual, standard normal then |
| k-hat | Pareto shape of the weights that leave run i out; above .7 they cannot be trusted |
| g_i, f | score of run i: slope of its log density along log L, mean over draws, over sqrt(f), f = its variance |
| H | f times the posterior covariance of log L at the runs in units of the noise: what the law's fit absorbs |
| X | orthonormal columns that log L may want more of |

Tested, with Holm's correction over all tests at 5 %:

- the u are uniform (``uniformity.py``);
- the residuals are as large as those replicated by the same draws: mean of abs(t), posterior predictive p value;
- the largest residual is not too large for so many runs (Šidák);
- no trend is left, along each variable (polynomials up to the fourth power) or between labels: Rao's score test.
  X'g has covariance X'(I - H)X about the fitted law, so what the law's coefficients can do is not counted;
- the noise is the same everywhere: F of w on x and x^2 or between labels, against F of residuals simulated with
  covariance I - H, since the sizes of neighbours that lead the fit are alike.

Leaving a run out reweights the draws by Pareto-smoothed importance sampling (Vehtari, Gelman and Gabry 2017,
arXiv 1507.04544). The noise has been fitted to the runs too, so the first two tests reject too seldom rather
than too often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import jax
import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.polynomial.legendre import legvander
from scipy import linalg, special

from m3bayes.errors import FitError, Note
from m3bayes.evaluation.given import check_noise, check_posterior, check_runs, check_whole
from m3bayes.evaluation.observed import Observed, above, below, log_density, observed, weights
from m3bayes.evaluation.uniformity import p_value, smallest_tail
from m3bayes.inference.coordinates import sample_prior
from m3bayes.inference.data import canonical
from m3bayes.inference.model import log_surface, site_priors
from m3bayes.inference.noise import Noise, student_t
from m3bayes.inference.pooled import NO_RUNS
from m3bayes.inference.posterior import Posterior, thinned
from m3bayes.laws.law import RECIPE_COLUMNS, Law
from m3bayes.runs import Runs

ALPHA = 0.05
LARGEST_K_HAT = 0.7
MOST_DRAWS = 4000
SIMULATIONS = 4000
LEAST_LEFT = 5  # degrees of freedom that an F test leaves to the rest, at least
SMALLEST_SHARE = 0.1  # of a direction that the law's fit leaves free: below, nothing can be said of it
SMALLEST_ABSORBED = 1e-6  # share of a direction, below which it counts as left free
RUNS_AT_ONCE = 256  # and simulations of all runs
LOGS = ("params", "target_tokens", "epochs", "compute")
PLAUSIBLE = (0.25, 4.0)  # times the median loss

Designs = Mapping[str, Float[np.ndarray, "run column"]]


@dataclass(frozen=True, eq=False)
class Check:
    """What a posterior predictive check found.

    ``verdict``  "passed", or "doubtful" where a test's adjusted p is below .05
    ``table``    one row a test: ``test``, ``about``, ``statistic``, ``p``, ``adjusted`` (Holm)
    ``runs``     one row a run of weight above 0: ``run``, ``pit`` u_i, ``residual`` z_i, ``pareto_k``, then
                 the variables in the table's units, compute in FLOP
    ``notes``    PIT_NOT_UNIFORM, TREND_LEFT, SPREAD_WRONG, OUTLIERS for tests that failed; INFLUENTIAL_RUNS,
                 which leaves the verdict as it is
    """

    verdict: Literal["passed", "doubtful"]
    table: pd.DataFrame
    runs: pd.DataFrame
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class _Test:
    test: str
    about: str
    statistic: float
    p: float


def check(post: Posterior, *, seed: int = 0) -> Check:
    """Check a posterior against its own runs; ``seed`` is that of the simulated residuals.

    Raises FitError for a group without runs (:meth:`m3bayes.Pooled.new_group`).
    """
    check_posterior(post)
    check_whole("seed", seed, 0)
    if any(note.code == NO_RUNS for note in post.notes):
        raise FitError("the posterior is of a group without runs, and there is nothing to check it against")
    runs = post.runs.select(weights(post) > 0)
    post = replace(thinned(post, MOST_DRAWS), runs=runs)
    random = np.random.default_rng(seed)
    u, z, k_hat, g, H, spread = _read(post, random)
    columns, labels = variables(runs), _labels(runs)
    names = np.array(runs.names)
    largest = int(np.argmax(np.abs(z)))
    tests = [
        _Test("PIT uniform", "", smallest_tail(u), p_value(u)),
        spread,
        _Test("largest residual", str(names[largest]), abs(z[largest]), float(_of_largest(z)[largest])),
        *_trends(g, H, _designs(columns, labels, powers=4)),
        *_trends_of_spread(z, H, _designs(columns, labels, powers=2), random),
    ]
    adjusted = _holm(np.array([test.p for test in tests]))
    table = pd.DataFrame([vars(test) for test in tests]).assign(adjusted=adjusted)
    failed = table.sort_values(by="p").query("adjusted < @ALPHA")
    notes = [_note(row, len(tests), names, z) for row in failed.itertuples()]
    by_run = pd.DataFrame({"run": names, "pit": u, "residual": z, "pareto_k": k_hat, **columns})
    influential = by_run.query("pareto_k > @LARGEST_K_HAT")
    if len(influential):
        notes.append(_influential(influential))
    return Check("passed" if failed.empty else "doubtful", table, by_run, tuple(notes))


def variables(runs: Runs) -> dict[str, Float[np.ndarray, " run"]]:
    """What a trend is looked for in: the variables of a recipe, the share of the last stage, compute (FLOP)."""
    result = {name: runs[name] for name in RECIPE_COLUMNS}
    return result | {"last_stage_share": runs.last_stage_share, "compute": runs.compute}


# --- what the draws say of every run ---------------------------------------------------------------------


class _Read(NamedTuple):
    """u, z, k-hat and g (run,), H (run, run), and the test of the spread."""

    u: np.ndarray
    z: np.ndarray
    k_hat: np.ndarray
    g: np.ndarray
    H: np.ndarray
    spread: _Test


def _read(post: Posterior, random: np.random.Generator) -> _Read:
    """Of all runs, RUNS_AT_ONCE at a time: every number of every draw of thousands would take gigabytes."""
    parts = []
    for start in range(0, len(post.runs), RUNS_AT_ONCE):
        some = np.arange(start, min(start + RUNS_AT_ONCE, len(post.runs)))
        part = replace(post, runs=post.runs.select(some))
        seen = observed(part)
        log_weights, k_hat = _left_out(seen, weights(part))
        parts.append((*_pit(seen, log_weights), k_hat, *_absorbed(seen), *_sizes_of(seen, random)))
    u, z, k_hat, g, surface, measured, expected = zip(*parts, strict=True)
    # in place: draws of all runs, and pairs of runs, are what is largest here
    centred = np.concatenate(surface, axis=1)
    del surface, parts
    centred -= centred.mean(axis=0)
    H = centred.T @ centred
    H /= len(centred) - 1
    u, z, k_hat, g = (np.concatenate(part) for part in (u, z, k_hat, g))
    measured, expected = (np.sum(part, axis=0) / len(u) for part in (measured, expected))
    return _Read(u, z, k_hat, g, H, _spread(measured, expected))


# --- leaving a run out ----------------------------------------------------------------------------------


def _left_out(seen: Observed, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(draw, run) log weights that leave each run out, normalised, and (run,) k-hat."""
    from arviz_stats.base.array import array_stats  # slow to import

    log_weights, k_hat = array_stats.psislw(log_density(seen) * weight, axis=0)
    return log_weights.T, k_hat


def _pit(seen: Observed, log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u and z of each run; z from whichever tail is the smaller, so that it is exact far out too."""
    w = np.exp(log_weights)
    lower, upper = (np.sum(w * tail, axis=0) / w.sum(axis=0) for tail in (below(seen), above(seen)))
    tiny = np.finfo(float).tiny
    z = np.where(
        lower < upper, special.ndtri(np.maximum(lower, tiny)), -special.ndtri(np.maximum(upper, tiny))
    )
    return np.clip(lower, 0.0, 1.0), z


# --- tests ----------------------------------------------------------------------------------------------


def _sizes_of(seen: Observed, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(draw,) abs(t), and that of replicated runs, summed over the runs."""
    normal = np.isinf(seen.nu).all()
    replicated = random.standard_normal(seen.t.shape) if normal else random.standard_t(seen.nu, seen.t.shape)
    return np.abs(seen.t).sum(axis=1), np.abs(replicated).sum(axis=1)


def _spread(measured: Float[np.ndarray, " draw"], expected: Float[np.ndarray, " draw"]) -> _Test:
    """Mean of abs(t) over that of replicated runs, and the two-sided posterior predictive p value."""
    draws = len(measured)
    larger = (1 + np.sum(expected >= measured)) / (draws + 1)
    smaller = (1 + np.sum(expected <= measured)) / (draws + 1)
    return _Test(
        "spread", "", float(measured.mean() / expected.mean()), float(min(1, 2 * min(larger, smaller)))
    )


def _of_largest(z: np.ndarray) -> np.ndarray:
    """(run,) probability that the largest of so many residuals is as large as this one."""
    return -np.expm1(len(z) * np.log1p(-np.minimum(2 * special.ndtr(-np.abs(z)), 1 - 1e-16)))


def _absorbed(seen: Observed) -> tuple[np.ndarray, np.ndarray]:
    """g (run,), and (draw, run) sqrt(f) times the log surface in units of the noise, of which H is the covariance."""
    if np.isinf(seen.nu).all():
        f, slope = 1.0, seen.t
    else:
        f, slope = np.mean((seen.nu + 1) / (seen.nu + 3)), (seen.nu + 1) * seen.t / (seen.nu + seen.t**2)
    surface = seen.t * seen.scale / seen.scale.mean(axis=0)  # but for a constant and its sign
    return slope.mean(axis=0) / np.sqrt(f), np.sqrt(f) * surface


def _trends(g: np.ndarray, H: np.ndarray, columns: Designs) -> Iterator[_Test]:
    """Score tests that log L wants nothing more of any column; those that the law can follow are left out."""
    left = len(g) - np.trace(H)
    for name, X in columns.items():
        share, axes = np.linalg.eigh(X.T @ X - X.T @ H @ X)
        free = share > SMALLEST_SHARE
        rank = int(free.sum())
        if rank == 0 or left - rank < LEAST_LEFT:
            continue
        explained = np.sum((axes[:, free].T @ X.T @ g) ** 2 / share[free])
        F = (explained / rank) / ((g @ g - explained) / (left - rank))
        yield _Test("trend", name, float(F), float(special.fdtrc(rank, left - rank, F)))


def _trends_of_spread(
    z: np.ndarray, H: np.ndarray, columns: Designs, random: np.random.Generator
) -> Iterator[_Test]:
    """F of the sizes w of the residuals on every column, against those of simulated residuals. Uses up H."""
    explained, total = (np.concatenate(parts) for parts in zip(*_sums(z, H, columns, random), strict=True))
    for (name, X), of_column in zip(columns.items(), explained.T, strict=True):
        rank, left = X.shape[1], len(z) - X.shape[1] - 1
        if rank == 0 or left < LEAST_LEFT:
            continue
        F = (of_column / rank) / ((total - of_column) / left)
        p = (1 + np.sum(F[1:] >= F[0])) / (1 + SIMULATIONS)
        yield _Test("trend of spread", name, float(F[0]), float(p))


def _sums(
    z: np.ndarray, H: np.ndarray, columns: Designs, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Squares of w that each column explains (row, column) and of all w (row,): those of z, then of simulated
    residuals, some at a time."""

    def of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w = _sizes(rows)
        w -= w.mean(axis=1, keepdims=True)
        explained = [np.sum((w @ X) ** 2, axis=1) for X in columns.values()]
        return np.stack(explained, axis=1), np.sum(w**2, axis=1)

    yield of(z[None])
    # the few directions that the law's fit absorbs
    absorbed, V = linalg.eigh(H.T, overwrite_a=True, subset_by_value=(SMALLEST_ABSORBED, np.inf))
    kept = np.sqrt(1 - np.minimum(absorbed, 1.0))
    sd = np.sqrt(np.maximum(1 - V**2 @ (1 - kept**2), 1e-6))
    for start in range(0, SIMULATIONS, RUNS_AT_ONCE):
        some = random.standard_normal((min(RUNS_AT_ONCE, SIMULATIONS - start), len(z)))
        some -= ((some @ V) * (1 - kept)) @ V.T
        yield of(some / sd)


def _sizes(z: np.ndarray) -> np.ndarray:
    return special.ndtri(np.clip(2 * special.ndtr(np.abs(z)) - 1, 1e-16, 1 - 1e-16))


def _designs(columns: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], powers: int) -> Designs:
    """{column: X}: orthonormal, orthogonal to the constant; of no columns where nothing varies."""
    parts = {name: _powers(np.log(x) if name in LOGS else x, powers) for name, x in columns.items()}
    parts |= {name: (x[:, None] == np.unique(x)).astype(float) for name, x in labels.items()}
    return {name: _orthonormal(part - part.mean(axis=0)) for name, part in parts.items()}


def _powers(x: np.ndarray, powers: int) -> np.ndarray:
    """(run, power) Legendre polynomials of x, its range brought to (-1, 1)."""
    half = np.ptp(x) / 2
    if half <= 1e-6 * max(1.0, np.abs(x).max()):
        return np.zeros((len(x), 1))
    return legvander((x - x.min()) / half - 1, powers)[:, 1:]


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    axes, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return axes[:, sizes > 1e-3 * np.sqrt(len(columns))]


def _labels(runs: Runs) -> dict[str, np.ndarray]:
    """Columns of text that sort the runs into a few groups."""
    texts = {n: values.astype(str) for n, values in runs.columns.items() if values.dtype == object}
    return {n: values for n, values in texts.items() if 1 < len(np.unique(values)) <= len(runs) / 5}


def _holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """p values that may be compared with one level whatever their number (Holm 1979)."""
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


# --- what it says ---------------------------------------------------------------------------------------


def _note(row, tests: int, names: np.ndarray, z: np.ndarray) -> Note:
    p = f"p {row.adjusted:.2g} after {tests} tests"
    if row.test == "PIT uniform":
        return Note(
            "PIT_NOT_UNIFORM", f"the runs do not scatter as predicted: their PIT values are not uniform ({p})"
        )
    if row.test == "spread":
        side = "larger" if row.statistic > 1 else "smaller"
        return Note(
            "SPREAD_WRONG",
            f"residuals are {row.statistic:.2f} times those replicated, {side} than the noise ({p})",
        )
    if row.test == "largest residual":
        far = np.flatnonzero(_of_largest(z) < ALPHA)
        far = far[np.argsort(-np.abs(z[far]))]
        listed = ", ".join(f"{names[i]} ({z[i]:+.1f})" for i in far[:5])
        return Note(
            "OUTLIERS",
            f"{len(far)} of {len(z)} runs too far out, in standard normal units: {listed} ({p}); "
            "look at them, or use Student-t noise",
            tuple(str(name) for name in names[far]),
        )
    if row.test == "trend":
        return Note(
            "TREND_LEFT",
            f"the residuals still depend on {row.about}: F {row.statistic:.1f} ({p}); the law misses part of it",
            (row.about,),
        )
    return Note(
        "SPREAD_WRONG",
        f"the size of the residuals depends on {row.about}: F {row.statistic:.1f} ({p}); the noise is not the "
        "same everywhere",
        (row.about,),
    )


def _influential(rows: pd.DataFrame) -> Note:
    rows = rows.sort_values("pareto_k", ascending=False)
    listed = ", ".join(
        f"{run} ({k:.2f})" for run, k in zip(rows["run"][:5], rows["pareto_k"][:5], strict=True)
    )
    rest = "" if len(rows) <= 5 else f" and {len(rows) - 5} more"
    count = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
    return Note(
        "INFLUENTIAL_RUNS",
        f"the posterior leans on {count} (Pareto k above {LARGEST_K_HAT}): {listed}{rest}; their residuals are rough",
        tuple(rows["run"]),
    )


# --- the prior ------------------------------------------------------------------------------------------


def prior_check(
    law: Law,
    runs: Runs,
    *,
    noise: Noise | None = None,
    by: str | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Losses that the prior expects for the recipes of ``runs``, before any loss but the median is looked at.

    One row for all runs, then one a value of column ``by``: ``group``, ``runs``, the 5, 50 and 95 % quantiles of
    loss over median loss (``lower``, ``median``, ``upper``), ``plausible``: the share of losses between a quarter
    of the median loss and four times it, and ``measured``: the median of the group's own losses, so divided.
    """
    check_runs(runs)
    check_noise(noise)
    check_whole("draws", draws, 1)
    check_whole("seed", seed, 0)
    noise = student_t() if noise is None else noise
    with jax.enable_x64(True):
        table = canonical(runs, law, noise)
        sites_of = site_priors(law, noise, len(table.groups))

        def one(key: jax.Array) -> jax.Array:
            return log_surface(law, sample_prior(sites_of, key), table.arrays)

        keys = jax.random.split(jax.random.key(seed), draws)
        log_loss = np.asarray(jax.jit(jax.vmap(one))(keys))[:, : len(runs)]
    loss = np.empty_like(log_loss)
    loss[:, table.order] = np.exp(log_loss)
    groups = {"all": np.ones(len(runs), bool)}
    if by is not None:
        values = runs[by]
        texts = np.array([str(value) for value in values])
        in_order = dict.fromkeys(texts[np.argsort(values, kind="stable")])  # numbers by size
        groups |= {f"{by} {text or '(blank)'}": texts == text for text in in_order}
    rows = []
    for name, members in groups.items():
        some = loss[:, members]
        lower, median, upper = np.quantile(some, (0.05, 0.5, 0.95))
        plausible = np.mean((some >= PLAUSIBLE[0]) & (some <= PLAUSIBLE[1]))
        measured = np.median(runs["loss"][members]) / np.median(runs["loss"])
        rows.append((name, int(members.sum()), lower, median, upper, float(plausible), measured))
    return pd.DataFrame(rows, columns=["group", "runs", "lower", "median", "upper", "plausible", "measured"])
