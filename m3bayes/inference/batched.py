"""Fits in batches, for accelerators: the modes of many tables at once, then NUTS over tables and chains.

All tables of a batch have one padded size. The batch is spread over the devices, each of which runs the same
program on its part and waits for no other, so that two devices or eight give the same numbers, bit for bit; for one
device XLA compiles another program, which rounds differently. Draws go to the host after every CHUNK transitions;
there, threads read and judge them as :func:`m3bayes.fit` does, while the devices go on. Tables that miss the gate
wait until they fill a batch of their own, or nothing else is left. A batch that is not full is filled up with its
last table, to a power of two a device where no size was asked for.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float
from numpyro.infer.util import ParamInfo

from m3bayes.errors import FitError, Note
from m3bayes.inference.batched_mode import descents, mode_of
from m3bayes.inference.coordinates import coordinates
from m3bayes.inference.data import Canonical, canonical
from m3bayes.inference.diagnostics import superchains_of
from m3bayes.inference.fit import (
    Attempt,
    attempts_of,
    first_starts,
    key_words_of,
    next_starts,
    posterior_of,
    random_of,
    read_and_judged,
)
from m3bayes.inference.identifiability import check_enough_runs, identifiability_notes
from m3bayes.inference.jobs import Device, Job, Outcome, Settings, on_processor, told
from m3bayes.inference.mode import prior_starts
from m3bayes.inference.noise import Noise
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.precision import computing_in, rounded
from m3bayes.inference.sampler import CHUNK, STATISTICS, Chain, Frame, kernel
from m3bayes.laws.law import Law

BATCH = 256  # tables a device at a time at most,
CELLS = 1 << 17  # and at most so many rows of tables
FEWEST = 8  # places for them at least: to compile a smaller program takes longer than it saves


@dataclass(eq=False)
class _Table:
    """A table on its way: ``attempt`` is the next to make, from ``starts`` in ``frame``."""

    job: Job
    canonical: Canonical
    attempts: tuple[Attempt, ...]
    notes: list[Note]
    seconds: float
    attempt: int = 0
    frame: Frame | None = None
    starts: Float[np.ndarray, "chain dim"] | None = None
    chains: Sequence[Chain] = ()

    @property
    def kind(self) -> tuple[int, int, int]:
        """Tables of one kind go through in one batch: (next attempt, padded size, groups)."""
        return self.attempt, len(self.canonical.arrays["y"]), len(self.canonical.groups)


class _Programs(NamedTuple):
    """What runs on the devices, the first axis of everything being the table: ``modes(real, arrays)``,
    ``begin(starts, keys, arrays, frame, target_accept)`` and ``advance(state, arrays, frame, target_accept, n)``;
    ``put`` spreads arrays over the devices."""

    modes: Callable
    begin: Callable
    advance: Callable
    put: Callable


def fit_in_batches[Result](
    jobs: Iterable[Job],
    settings: Settings,
    then: Callable[[Outcome], Result],
    *,
    devices: Sequence[Device],
    batch: int | None = None,
) -> Iterator[Result]:
    """``then(outcome)`` of every job, in the order in which they are finished; see ``jobs.each_fit``."""
    if batch is not None and batch < 1:
        raise FitError(f"batch is {batch}; give the number of tables a device takes at once, at least 1")
    return _in_batches(jobs, settings, then, tuple(devices), batch)


def _in_batches[Result](
    jobs: Iterable[Job],
    settings: Settings,
    then: Callable[[Outcome], Result],
    devices: tuple[Device, ...],
    batch: int | None,
) -> Iterator[Result]:
    waiting: dict[tuple[int, int, int], list[_Table]] = {}
    judging: deque[Future[tuple[_Table | None, Result | None]]] = deque()
    kind_of_device = f"{len(devices)} x {devices[0].device_kind}"

    def failed(job: Job, error: Exception, seconds: float) -> Result:
        return then(Outcome(job, seconds, kind_of_device, error=told(error)))

    def size(kind: tuple[int, int, int]) -> int:
        return len(devices) * (max(1, min(BATCH, CELLS // kind[1])) if batch is None else batch)

    def filled(kind: tuple[int, int, int], count: int) -> int:
        """The size of a batch of so many tables."""
        if batch is not None:
            return size(kind)
        share = -(-count // len(devices))
        return min(size(kind), len(devices) * max(FEWEST, 1 << (share - 1).bit_length()))

    def launch(kind: tuple[int, int, int]) -> Iterator[Result]:
        """Make the attempt that up to a batch of tables of one kind wait for, and hand them to the judges."""
        tables, left = waiting[kind][: size(kind)], waiting.pop(kind)[size(kind) :]
        if left:
            waiting[kind] = left
        begun = time.perf_counter()
        places = filled(kind, len(tables))
        ready = _find_modes(tables, settings, devices, places) if kind[0] == 0 else dict.fromkeys(tables)
        sampled = [table for table, error in ready.items() if error is None]
        if sampled:
            _sample(sampled, settings, devices, places)
        for table in tables:
            table.seconds += (time.perf_counter() - begun) / len(tables)
        judging.extend(pool.submit(judge_one, table) for table in sampled)
        for table, error in ready.items():
            if error is not None:
                yield failed(table.job, error, table.seconds)

    def judge_one(table: _Table) -> tuple[_Table | None, Result | None]:
        """The table where it needs another attempt, otherwise the result."""
        begun = time.perf_counter()
        with on_processor():  # the devices have other work
            try:
                posterior = _judged(table, settings, kind_of_device)
            except Exception as error:
                return None, failed(table.job, error, table.seconds + time.perf_counter() - begun)
            table.seconds += time.perf_counter() - begun
            if posterior is None:
                return table, None
            return None, then(Outcome(table.job, table.seconds, kind_of_device, posterior))

    def collect(most: int) -> Iterator[Result]:
        """What judges have decided, until at most ``most`` tables are still with them."""
        while len(judging) > most:
            table, result = judging.popleft().result()
            if table is None:
                yield result  # type: ignore[misc]
            else:
                waiting.setdefault(table.kind, []).append(table)

    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        for job in jobs:
            begun = time.perf_counter()
            try:
                table = _begun(job, settings)
            except Exception as error:
                yield failed(job, error, time.perf_counter() - begun)
                continue
            waiting.setdefault(table.kind, []).append(table)
            while full := [kind for kind, tables in waiting.items() if len(tables) >= size(kind)]:
                yield from launch(full[0])
                yield from collect(size(full[0]))
        while waiting or judging:
            if not waiting or min(waiting)[0] > 0:  # later attempts wait for all that may join them
                yield from collect(0)
            if waiting:
                yield from launch(min(waiting))
    finally:
        pool.shutdown(cancel_futures=True)


# --- one table, on the host -----------------------------------------------------------------------------


def _begun(job: Job, settings: Settings) -> _Table:
    """A table before its first attempt; raises what :func:`m3bayes.fit` would."""
    begun = time.perf_counter()
    law, noise = settings.law, settings.noise
    check_enough_runs(job.runs, law)
    with jax.enable_x64(True), on_processor():
        table = canonical(job.runs, law, noise, job.constants)
        attempts = attempts_of(
            law, noise, len(table.groups), settings.warmup, settings.draws, settings.precision
        )
        notes = [*job.runs.notes, *identifiability_notes(job.runs, law)]
    return _Table(job, table, attempts, notes, time.perf_counter() - begun)


def _judged(table: _Table, settings: Settings, device: str) -> Posterior | None:
    """The posterior; None where another attempt is to be made, for which the table is then ready."""
    law, noise, attempt = settings.law, settings.noise, table.attempts[table.attempt]
    superchains = superchains_of(settings.chains, settings.draws)
    with jax.enable_x64(True):
        drawn, gate = read_and_judged(law, noise, table.canonical, table.chains, attempt, superchains)
    if not gate.passed and table.attempt + 1 < len(table.attempts):
        table.frame, table.starts = next_starts(table.chains, superchains)
        table.attempt, table.chains = table.attempt + 1, ()
        return None
    told = {
        "seed": table.job.seed,
        "chains": settings.chains,
        "warmup": table.attempts[0].warmup,
        "draws": settings.draws,
        "device": device,
    }
    return posterior_of(
        table.job.runs,
        law,
        noise,
        table.canonical,
        drawn,
        gate,
        table.notes,
        told,
        table.attempt + 1,
        attempt,
    )


# --- a batch, on the devices ----------------------------------------------------------------------------


def _find_modes(
    tables: Sequence[_Table], settings: Settings, devices: tuple[Device, ...], size: int
) -> dict[_Table, FitError | None]:
    """Give every table its frame and starts, or an error."""
    with jax.enable_x64(True):
        run = _programs(
            settings.law,
            settings.noise,
            len(tables[0].canonical.groups),
            tables[0].attempts[0].warmup,
            devices,
        )
        real = [prior_starts(settings.law, random_of(table.job.seed, "mode")) for table in tables]
        q, potential, hessian = map(
            np.asarray, run.modes(run.put(_stacked(real, size)), run.put(_stacked(_arrays(tables), size)))
        )
    ready: dict[_Table, FitError | None] = {}
    for i, table in enumerate(tables):
        try:
            mode = mode_of(settings.law, q[i], potential[i], hessian[i])
        except FitError as error:
            ready[table] = error
            continue
        table.frame, table.starts, notes = first_starts(
            mode, settings.chains, table.job.seed, superchains_of(settings.chains, settings.draws)
        )
        table.notes += notes
        ready[table] = None
    return ready


def _sample(tables: Sequence[_Table], settings: Settings, devices: tuple[Device, ...], size: int) -> None:
    """Give every table the chains of its next attempt, which is the same for all."""
    attempt = tables[0].attempts[tables[0].attempt]
    warmup, total = attempt.warmup, attempt.warmup + attempt.draws
    with computing_in(attempt.precision):
        run = _programs(settings.law, settings.noise, len(tables[0].canonical.groups), warmup, devices)
        arrays, frame, starts, keys = (
            run.put(rounded(_stacked(parts, size), attempt.precision))
            for parts in (
                _arrays(tables),
                [table.frame for table in tables],
                [table.starts for table in tables],
                [key_words_of(table.job.seed, table.attempt + 1, settings.chains) for table in tables],
            )
        )
        state = run.begin(starts, keys, arrays, frame, attempt.target_accept)
        qs, statistics = [], []
        done = 0
        while done < total:
            n = min(CHUNK, (warmup if done < warmup else total) - done)
            state, q, rows = run.advance(state, arrays, frame, attempt.target_accept, n)
            if done >= warmup:  # the rest of the batch is filling
                qs.append(np.asarray(q)[: len(tables), :, :n])
                statistics.append(np.asarray(rows)[: len(tables), :, :n])
            done += n
    q, rows = (np.concatenate(parts, axis=2).astype(float) for parts in (qs, statistics))
    for i, table in enumerate(tables):
        table.chains = [
            Chain(q[i, c], {name: rows[i, c, :, k] for k, name in enumerate(STATISTICS)})
            for c in range(settings.chains)
        ]


def _arrays(tables: Sequence[_Table]) -> list[dict[str, Any]]:
    return [dict(table.canonical.arrays) for table in tables]


def _stacked(trees: Sequence[Any], size: int) -> Any:
    """One tree of arrays with a first axis of ``size``, filled up with the last."""
    filled = [*trees, *[trees[-1]] * (size - len(trees))]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *filled)


@lru_cache(maxsize=32)
def _programs(law: Law, noise: Noise, n_groups: int, warmup: int, devices: tuple[Device, ...]) -> _Programs:
    space = coordinates(law, noise, n_groups)
    one_chain = kernel(space, warmup)
    mesh = Mesh(np.array(devices), ("table",))
    part, whole = PartitionSpec("table"), PartitionSpec()

    def spread(function: Callable, *places: PartitionSpec) -> Callable:
        # shard_map and not jit alone: loops then end on each device when its own tables are done
        return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=places, out_specs=part, check_vma=False))

    def begin(start, words, arrays, frame, target_accept):
        # starts outside the support are brought nearer to the centre, as `sample` does
        q = jax.lax.while_loop(
            lambda q: jnp.isinf(space.potential(q, arrays)), lambda q: (q + frame.centre) / 2, start
        )
        potential, slope = jax.value_and_grad(space.potential)(q, arrays)
        z = jnp.linalg.solve(frame.axes, q - frame.centre)
        inside = ParamInfo(z, potential, slope @ frame.axes)
        return one_chain.begin(inside, jax.random.wrap_key_data(words), target_accept)

    def over_chains(function: Callable, mapped: int, shared: int, settings: int) -> Callable:
        """Over tables and chains: the first arguments are a chain's, the next a table's, the last everyone's."""
        chain = jax.vmap(function, [0] * mapped + [None] * (shared + settings))
        return jax.vmap(chain, [0] * (mapped + shared) + [None] * settings)

    return _Programs(
        modes=spread(descents(law, noise, n_groups), part, part),
        begin=spread(over_chains(begin, 2, 2, 1), part, part, part, part, whole),
        advance=spread(over_chains(one_chain.advance, 1, 2, 2), part, part, part, whole, whole),
        put=lambda tree: jax.device_put(tree, NamedSharding(mesh, part)),
    )
