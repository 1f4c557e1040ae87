"""Many fits, one after the other of a stream: the jobs, what came of them, and the threads that do them.

On the processor a table is fitted by :func:`m3bayes.fit` itself, one table a thread: while one looks for its
mode or is judged, which keeps one core busy, others sample. On accelerators tables go through in batches, see
``batched.py``. Either way a fit that fails is an outcome like others, and no more tables are held than are
worked on.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from m3bayes.errors import M3BayesError
from m3bayes.inference.data import bucket
from m3bayes.inference.fit import fit
from m3bayes.inference.noise import Noise
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.precision import Precision
from m3bayes.laws.law import Law
from m3bayes.runs import Runs

Device = Any  # jax.Device, which is no type to a type checker


@dataclass(frozen=True, eq=False)
class Job:
    """A table to be fitted; ``seed`` and ``constants`` as for :func:`m3bayes.fit`."""

    name: str
    runs: Runs
    seed: int = 0
    constants: Mapping[str, float] | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a job: a posterior, passed or flagged by the gate, or the ``error`` why there is none.

    ``seconds`` is wall time; in a batch, of the device, the share of a table. ``device`` is what it was sampled on.
    """

    job: Job
    seconds: float
    device: str
    posterior: Posterior | None = None
    error: str = ""

    @property
    def verdict(self) -> str:
        return "failed" if self.posterior is None else self.posterior.verdict


@dataclass(frozen=True, eq=False)
class Settings:
    """What all fits of a stream share, as for :func:`m3bayes.fit`."""

    law: Law
    noise: Noise
    chains: int = 4
    warmup: int | None = None
    draws: int = 1000
    precision: Precision = "float64"


def each_fit[Result](
    jobs: Iterable[Job],
    settings: Settings,
    then: Callable[[Outcome], Result],
    *,
    devices: Sequence[Device] = (),
    batch: int | None = None,
    fit: Callable[..., Posterior] | None = None,
) -> Iterator[Result]:
    """``then(outcome)`` of every job, called in the thread that finished the fit.

    ``devices``  accelerators for batches of ``batch`` tables each; none is the processor, where results come in
                 the order of the jobs. In batches they come as they are finished
    ``fit``      in place of :func:`m3bayes.fit`, one table at a time: ``fit(runs, law, noise=, seed=, constants=)``
    """
    if devices:
        from m3bayes.inference.batched import fit_in_batches

        return fit_in_batches(jobs, settings, then, devices=devices, batch=batch)
    if fit is not None:
        return (then(outcome_of(job, settings, fit)) for job in jobs)
    return _on_the_processor(jobs, settings, then)


def outcome_of(job: Job, settings: Settings, fit: Callable[..., Posterior]) -> Outcome:
    """Do one job; whatever goes wrong is the outcome's, so that one table does not stop thousands."""
    begun = time.perf_counter()
    posterior, error = None, ""
    try:
        posterior = fit(job.runs, settings.law, noise=settings.noise, seed=job.seed, constants=job.constants)
    except Exception as found:
        error = told(found)
    return Outcome(job, time.perf_counter() - begun, "cpu", posterior, error)


def told(error: Exception) -> str:
    """What an error says, on one line; of one that is not m3bayes's, its kind too."""
    text = " ".join(str(error).split())
    return text if isinstance(error, M3BayesError) else f"{type(error).__name__}: {text}"


def shape_of(runs: Runs, noise: Noise) -> tuple[int, int]:
    """(padded size, groups): tables of one shape share compiled programs."""
    labels = runs.columns.get(noise.by or "")
    return bucket(len(runs)), 0 if labels is None else len({str(label) for label in labels})


def on_processor() -> AbstractContextManager:
    """Within it this thread computes on the processor, whatever the default device is."""
    if jax.default_backend() == "cpu":
        return nullcontext()  # naming the device that it is anyway would compile everything again
    return jax.default_device(jax.local_devices(backend="cpu")[0])


def _on_the_processor[Result](
    jobs: Iterable[Job], settings: Settings, then: Callable[[Outcome], Result]
) -> Iterator[Result]:
    one = partial(
        fit,
        chains=settings.chains,
        warmup=settings.warmup,
        draws=settings.draws,
        precision=settings.precision,
        allow="flagged",
        progress=False,
    )

    def work(job: Job) -> Result:
        with on_processor():
            return then(outcome_of(job, settings, one))

    threads = os.cpu_count() or 1
    compiled: set[tuple[int, int]] = set()
    working: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for job in jobs:
            shape = shape_of(job.runs, settings.noise)
            if shape not in compiled:  # the first of a shape compiles, which is for one thread at a time
                while working:
                    yield working.popleft().result()
                compiled.add(shape)
                yield work(job)
                continue
            working.append(pool.submit(work, job))
            if len(working) > 2 * threads:
                yield working.popleft().result()
        while working:
            yield working.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
