"""fit(runs, law, pool="language"): one law for many groups of runs, coefficients shared, partially pooled or free.

By default the coefficients that repetition alone shows (``repeated`` in the law) are shared; floors and scales, which
hold the loss's unit, are free, a group's own; exponents and the rest partially pooled. With few groups a spread is
known to a factor of several, and many of them are slow to sample; from ten groups on all may be partial. What is
sampled stands in pooled_model.py, where from in pooled_mode.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from m3bayes.errors import FitError, NotConvergedError, Note, RunTableError, unique_notes
from m3bayes.inference.data import Canonical, canonical
from m3bayes.inference.diagnostics import superchains_of
from m3bayes.inference.evaluation import PLAIN_SUMS
from m3bayes.inference.fit import Attempt, escalated, key_words_of, next_starts, random_of, versions
from m3bayes.inference.gate import judge
from m3bayes.inference.identifiability import check_enough_runs, identifiability_notes
from m3bayes.inference.noise import Noise
from m3bayes.inference.pooled import Pooled, in_table_units
from m3bayes.inference.pooled_mode import find_pooled_mode
from m3bayes.inference.pooled_model import (
    KINDS,
    PooledModel,
    Pooling,
    group_log_likelihood,
    noise_of,
    pooled_coordinates,
    spread_scales,
    state_at,
)
from m3bayes.inference.progress import bar
from m3bayes.inference.sampler import Chain, sample
from m3bayes.inference.threads import one_a_thread
from m3bayes.laws.law import Law
from m3bayes.runs import Runs

WARMUP = 400
ACCEPTANCE = (0.9, 0.97, 0.995)
FEW_RUNS = 5


def pooling_of(law: Law, pooling: Mapping[str, Pooling] | None = None) -> dict[str, Pooling]:
    """{coefficient: how it is pooled}, defaults changed by ``pooling``. FitError for unknown names or kinds."""
    result: dict[str, Pooling] = {
        c.name: "shared" if c.repeated else "free" if c.of_loss else "partial" for c in law.coefficients
    }
    if not isinstance(pooling, Mapping | None):
        raise FitError(f'pooling is {pooling!r}; give kinds by coefficient, as {{"E": "partial"}}')
    for name, kind in (pooling or {}).items():
        if name not in result:
            raise FitError(f"pooling names {name!r}, but law {law.name} has {', '.join(result)}")
        if kind not in KINDS:
            raise FitError(f"pooling of {name} is {kind!r}; expected {', '.join(KINDS[:-1])} or {KINDS[-1]}")
        result[name] = kind
    if set(result.values()) == {"shared"}:
        raise FitError("all coefficients are shared, so that there is nothing to pool: fit without pool")
    return result


def fit_pooled(
    runs: Runs,
    law: Law,
    pool: str,
    *,
    pooling: Mapping[str, Pooling] | None,
    noise: Noise,
    seed: int,
    chains: int,
    warmup: int | None,
    draws: int,
    flagged: bool,
    progress: bool | None,
    constants: Mapping[str, float] | None,
) -> Pooled:
    """The joint posterior of all groups: see :func:`m3bayes.fit`, whose ``pool`` and ``pooling`` it carries out."""
    kinds = pooling_of(law, pooling)
    if noise.by not in (None, pool):
        raise FitError(
            f"the noise is by {noise.by!r} and the fit is pooled by {pool!r}: give one column for both"
        )
    check_enough_runs(runs, law)
    groups, rows = groups_of(runs, pool)
    model = PooledModel(law, tuple(kinds.values()), noise, len(groups), noise.by is not None)
    attempts = [
        Attempt(accept, WARMUP if warmup is None else warmup, draws * factor)
        for accept, factor in zip(ACCEPTANCE, (1, 2, 4), strict=True)
    ]
    with jax.enable_x64(True):
        constants = pooled_constants(runs, law, rows) if constants is None else constants
        tables = tables_of(runs, law, noise, rows, constants)
        padded = [padded_to(table.arrays, max(len(t.arrays["y"]) for t in tables)) for table in tables]
        arrays, frame = find_pooled_mode(model, padded, random_of(seed, "mode"))
        space = pooled_coordinates(model)
        superchains = superchains_of(chains, draws)
        spread = random_of(seed, "starts").standard_normal((superchains or chains, space.dim))
        starts = np.repeat(frame.centre + spread @ frame.axes.T, chains // len(spread), axis=0)
        for number, attempt in enumerate(attempts, start=1):
            label = "sampling" if number == 1 else f"sampling, attempt {number}"
            with bar(label, chains * (attempt.warmup + attempt.draws), progress) as report:
                ran = sample(
                    space, arrays, frame, starts,
                    list(jax.random.wrap_key_data(jnp.asarray(key_words_of(seed, number, chains)))),
                    warmup=attempt.warmup, draws=attempt.draws, target_accept=attempt.target_accept, report=report,
                )  # fmt: skip
            read = read_pooled(model, arrays, ran)
            gate = judge(judged(model, groups, read), statistics_of(ran), superchains)
            if gate.passed:
                break
            frame, starts = next_starts(ran, superchains)
        notes = [*runs.notes, *identifiability_notes(runs, law), *group_notes(pool, groups, rows)]
        notes += [escalated(number, attempt, gate)] if number > 1 else []
        notes += [*gate.notes, *spread_notes(model, pool, read)]
        result = Pooled(
            law=law,
            noise=noise,
            runs=runs,
            by=pool,
            groups=groups,
            pooling=kinds,
            draws=draws_in_table_units(model, read, constants),
            means={name: read["m"][..., i] for i, name in enumerate(model.partial)},
            spreads={name: np.exp(read["log_s"][..., i]) for i, name in enumerate(model.partial)},
            spread_priors=spread_scales(model),
            shared={name: read[name][..., 0] for name in model.shared},
            sample_stats=statistics_of(ran),
            log_likelihood=likelihood_by_row(read["log_likelihood"], tables, rows),
            constants=constants,
            verdict="passed" if gate.passed else "flagged",
            notes=unique_notes(notes),
            settings={
                "seed": seed, "chains": chains, "warmup": attempts[0].warmup, "draws": draws, "attempts": number,
                "final_warmup": attempt.warmup, "final_draws": attempt.draws,
                "target_accept": attempt.target_accept,
            },
            versions=versions(),
        )  # fmt: skip
    if not gate.passed and not flagged:
        raise NotConvergedError(
            f"the pooled fit of {law.name} to {runs.name} did not converge in {number} attempts: "
            f'{"; ".join(note.message for note in gate.notes)}; allow="flagged" returns it all the same',
            result,
        )
    return result


# --- the table ------------------------------------------------------------------------------------------


def groups_of(runs: Runs, pool: str) -> tuple[tuple[str, ...], tuple[np.ndarray, ...]]:
    """The values of a column, sorted, and the rows of each. Raises RunTableError for blanks, fewer than two, and
    another one in every row."""
    labels = [str(value) for value in runs[pool]]
    for row, label in enumerate(labels):
        if label in ("", "nan"):
            raise RunTableError(
                f"{runs.name}: row {row + 1}, column {pool}: blank, expected a name, since the fit is pooled by it"
            )
    groups = tuple(sorted(set(labels)))
    if len(groups) < 2:
        raise RunTableError(
            f"{runs.name}: column {pool} is {labels[0]!r} in every row, expected at least two values to pool: "
            "fit without pool"
        )
    if len(groups) == len(labels):
        raise RunTableError(
            f"{runs.name}: column {pool} has another value in each of {len(labels)} rows, expected groups of several "
            "runs: pool by another column"
        )
    return groups, tuple(np.flatnonzero([label == group for label in labels]) for group in groups)


def pooled_constants(runs: Runs, law: Law, rows: Sequence[np.ndarray]) -> dict[str, float]:
    """Reference quantities of all groups: those of the whole table, but for the loss, which is the largest of the
    groups' medians, since floors are below it in every group."""
    medians = [float(np.median(runs["loss"][index])) for index in rows]
    return canonical(runs, law, Noise()).constants(law) | {"L": max(medians)}


def tables_of(
    runs: Runs, law: Law, noise: Noise, rows: Sequence[np.ndarray], constants: Mapping[str, float]
) -> list[Canonical]:
    plain = replace(noise, by=None)
    return [canonical(runs.select(index), law, plain, constants) for index in rows]


def padded_to(arrays: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The table with more rows that do not count."""

    def longer(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.repeat(values[-1:], size - len(values))])

    result = {name: longer(arrays[name]) for name in ("y", "relative_se", "group")}
    weight = np.concatenate([arrays["weight"], np.zeros(size - len(arrays["weight"]))])
    x = {name: longer(values) for name, values in arrays["x"].items()}
    return {"x": x, **result, "weight": weight, "reference": arrays["reference"]}


# --- the draws ------------------------------------------------------------------------------------------


def read_pooled(model: PooledModel, arrays: Mapping, chains: Sequence[Chain]) -> dict[str, np.ndarray]:
    """{coefficient: (chain, draw, group) reference-scaled; noise; m, log_s (chain, draw, partial); log_likelihood
    (chain, draw, group, padded)}."""
    read = _reader(model)

    def one(chain: Chain):
        return jax.tree.map(np.asarray, read(jnp.asarray(chain.q), arrays))

    return jax.tree.map(lambda *parts: np.stack(parts), *one_a_thread(one, chains))


@lru_cache(maxsize=16)
def _reader(model: PooledModel):
    @partial(jax.jit, compiler_options=PLAIN_SUMS)
    def read(qs, arrays):
        def one(q):
            state = state_at(model, q, arrays)
            noise, axes = noise_of(model, state.hyper.noise)
            likelihood = jax.vmap(partial(group_log_likelihood, model), in_axes=(0, axes, 0))(
                state.surface, noise, arrays["table"]
            )
            hyper = {"m": state.hyper.m, "log_s": state.hyper.log_s}
            return {**state.sites, **noise, **hyper, "log_likelihood": likelihood}

        return jax.lax.map(one, qs)

    return read


def statistics_of(chains: Sequence[Chain]) -> dict[str, np.ndarray]:
    kinds = {"diverging": bool, "n_steps": int}
    names = chains[0].statistics
    return {n: np.stack([c.statistics[n] for c in chains]).astype(kinds.get(n, float)) for n in names}


def judged(
    model: PooledModel, groups: Sequence[str], read: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """{quantity: (chain, draw)}: what the gate looks at."""
    found = {f"mean of {n}": read["m"][..., i] for i, n in enumerate(model.partial)}
    found |= {f"spread of {n}": read["log_s"][..., i] for i, n in enumerate(model.partial)}
    found |= {name: read[name][..., 0] for name in model.shared}
    found |= {f"{n}[{group}]": read[n][..., g] for n in model.own for g, group in enumerate(groups)}
    for name in ("sigma", "nu"):
        if name in read and read[name].ndim == 3:
            found |= {f"{name}[{group}]": read[name][..., g] for g, group in enumerate(groups)}
        elif name in read:
            found[name] = read[name]
    return found


def draws_in_table_units(
    model: PooledModel, read: Mapping[str, np.ndarray], constants: Mapping[str, float]
) -> dict[str, np.ndarray]:
    noise = {name: read[name] for name in ("sigma", "nu") if name in read}
    return in_table_units(model.law, {name: read[name] for name in model.law.names}, constants) | noise


def likelihood_by_row(
    found: np.ndarray, tables: Sequence[Canonical], rows: Sequence[np.ndarray]
) -> np.ndarray:
    """(chain, draw, run) from (chain, draw, group, padded)."""
    result = np.empty((*found.shape[:2], sum(map(len, rows))))
    for group, (table, index) in enumerate(zip(tables, rows, strict=True)):
        result[..., index[table.order]] = found[..., group, : len(index)]
    return result


# --- notes ----------------------------------------------------------------------------------------------


def group_notes(pool: str, groups: Sequence[str], rows: Sequence[np.ndarray]) -> tuple[Note, ...]:
    few = [
        f"{group} ({len(index)})" for group, index in zip(groups, rows, strict=True) if len(index) < FEW_RUNS
    ]
    if not few:
        return ()
    return (
        Note("FEW_RUNS", f"fewer than {FEW_RUNS} runs: {', '.join(few)}; these lean on the others", (pool,)),
    )


def spread_notes(model: PooledModel, pool: str, read: Mapping[str, np.ndarray]) -> tuple[Note, ...]:
    """SPREAD_FROM_PRIOR for spreads whose posterior is as wide as their prior."""
    prior = np.abs(np.random.default_rng(0).standard_normal(2000))
    names = []
    for i, name in enumerate(model.partial):
        s = np.exp(read["log_s"][..., i]).ravel() / spread_scales(model)[name]
        if s.std() > 0.9 * prior.std():
            names.append(name)
    if not names:
        return ()
    verb = "differs" if len(names) == 1 else "differ"
    message = f"the runs say next to nothing about how much {', '.join(names)} {verb} by {pool}"
    return (Note("SPREAD_FROM_PRIOR", message, tuple(names)),)
