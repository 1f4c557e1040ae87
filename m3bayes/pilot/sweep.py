"""Carries out a plan: trains what the table does not have yet, and writes each run's row when it ends.

On a processor runs go one after the other, in the plan's order, in as many processes as asked for, each on a core
of its own. On an accelerator runs of one shape and language train side by side. Killed at any moment, the same
call goes on with the runs that have no row.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import jax
import pandas as pd
from tqdm import tqdm

from m3bayes.errors import M3BayesError, RecipeError
from m3bayes.pilot import results
from m3bayes.pilot.checkpoints import Folders
from m3bayes.pilot.train import CONTEXT
from m3bayes.pilot.trial import Row, Texts, Trial, train_trials, trials

AT_ONCE = 32  # runs side by side on an accelerator
NO_FOLDERS = Folders()

Group = Sequence[Trial]
Report = Callable[[Group, int], object]


def sweep(
    plan: pd.DataFrame,
    texts: Texts,
    out: Path,
    *,
    folders: Folders = NO_FOLDERS,
    workers: int = 1,
    progress: bool | None = None,
) -> None:
    """Train the runs of ``plan`` (see plan.read_plan) that ``out`` does not have, appending a row for each.

    ``folders``   of the models to go on from, and to keep
    ``workers``   processes, on a processor alone
    ``progress``  None shows a bar only where standard error is a terminal

    Raises M3BayesError or RecipeError, before anything is trained, where the plan asks for text or a checkpoint
    that is not there, or the table is of another text or checkpoint.
    """
    check(plan, texts, folders)
    with results.only_writer(out):
        chosen = trials(left(plan, texts, out, folders))
        alone = jax.default_backend() == "cpu"
        groups = _groups(chosen, 1 if alone else AT_ONCE)
        with _bar(chosen, texts.vocabulary, progress) as report:
            finished = (
                _in_processes(groups, texts, folders, workers, report)
                if alone and workers > 1
                else _one_by_one(groups, texts, folders, report)
            )
            for rows in finished:
                results.append(out, rows)


def check(plan: pd.DataFrame, texts: Texts, folders: Folders = NO_FOLDERS) -> None:
    """Raise where a run asks for a language, text or checkpoint that is not there."""
    for trial in trials(plan):
        if trial.language not in texts.targets:
            raise M3BayesError(
                f"run {trial.run}: language {trial.language!r} has no text, there is {', '.join(texts.targets)}; "
                f"give it with --target {trial.language}=PATH"
            )
        U, there = int(trial.recipe.target_tokens), len(texts.targets[trial.language].train)
        if there < U:
            raise M3BayesError(
                f"run {trial.run}: target_tokens is {U}, corpus {trial.language} has {there}; "
                "give more text or a smaller plan"
            )
        try:
            windows = trial.source_windows(texts.sources)
        except RecipeError as error:
            raise RecipeError(f"run {trial.run}: {error}") from None
        for name, count in windows.items():
            there = (len(texts.sources[name].train) - 1) // CONTEXT
            if count > there:
                raise RecipeError(
                    f"run {trial.run}: {count * CONTEXT:,} source tokens of {name} asked for, "
                    f"{there * CONTEXT:,} there are, and source text is never repeated; "
                    "give more source text or a smaller plan"
                )
        trial.loaded(folders, texts.vocabulary)


def left(plan: pd.DataFrame, texts: Texts, out: Path, folders: Folders = NO_FOLDERS) -> pd.DataFrame:
    """The runs of the plan without a row in ``out``.

    Raises M3BayesError where a row is of another text, or began with another checkpoint.
    """
    done = {row["run"]: row for row in results.read_results(out)}
    for trial in trials(plan):
        if trial.run not in done:
            continue
        found, now = done[trial.run]["corpus"], trial.fingerprint(texts, folders)
        if found != now:
            raise M3BayesError(
                f"{out}: run {trial.run} was trained on another text, or went on from another checkpoint (corpus "
                f"{found}, now {now}); give those it was made with, or another --out"
            )
    return plan.take([place for place, run in enumerate(plan["run"]) if run not in done])


# ---- the work ----------------------------------------------------------------------------------


def _groups(chosen: Sequence[Trial], at_once: int) -> list[Group]:
    """Trials to train together: of one shape and language, and of like length since all wait for the longest."""
    if at_once == 1:
        return [[trial] for trial in chosen]
    alike: dict[tuple[int, str], list[Trial]] = {}
    for trial in chosen:
        alike.setdefault((trial.shape.params, trial.language), []).append(trial)
    by_length = [sorted(some, key=lambda trial: trial.steps) for some in alike.values()]
    return [some[first : first + at_once] for some in by_length for first in range(0, len(some), at_once)]


def _one_by_one(
    groups: Sequence[Group], texts: Texts, folders: Folders, report: Report
) -> Iterator[list[Row]]:
    for group in groups:

        def on_steps(steps: int, group: Group = group) -> None:
            report(group, steps)

        yield train_trials(group, texts, on_steps, folders)


def _in_processes(
    groups: Sequence[Group], texts: Texts, folders: Folders, workers: int, report: Report
) -> Iterator[list[Row]]:
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(workers):
        numbers.put(number)
    with ProcessPoolExecutor(workers, context, _begin_worker, (texts, numbers)) as pool:
        waiting: dict[Future[list[Row]], Group] = {}
        remaining = iter(groups)
        while True:
            # no more than can run, so that the plan's order is kept and little is lost by a stop
            for group in islice(remaining, workers - len(waiting)):
                waiting[pool.submit(_train_in_worker, group, folders)] = group
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                group = waiting.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    raise M3BayesError(
                        "a worker process was ended from outside, for want of memory perhaps; "
                        "the same command goes on from here"
                    ) from None
                report(group, sum(trial.steps for trial in group))


_texts: Texts | None = None  # of a worker process


def _begin_worker(texts: Texts, numbers) -> None:
    """One core a worker, since small matrices gain nothing from more; it does not outlive the sweep."""
    global _texts
    _texts = texts
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[numbers.get() % len(cores)]})


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _train_in_worker(group: Group, folders: Folders) -> list[Row]:
    assert _texts is not None
    return train_trials(group, _texts, lambda steps: None, folders)


@contextmanager
def _bar(chosen: Sequence[Trial], vocabulary: int, progress: bool | None) -> Iterator[Report]:
    """A bar in FLOP with runs done and time left."""
    shown = sys.stderr.isatty() if progress is None else progress

    def flops(trial: Trial) -> float:
        return trial.shape.flops(sum(stage.windows for stage in trial.stages) * CONTEXT, CONTEXT, vocabulary)

    to_do: dict[int, int] = {}  # steps left of each group, by its first trial
    done = 0
    total = sum(map(flops, chosen))
    with tqdm(total=total, unit="FLOP", unit_scale=True, disable=not shown, file=sys.stderr) as line:

        def report(group: Group, steps: int) -> None:
            nonlocal done
            all_steps = sum(trial.steps for trial in group)
            to_do[id(group[0])] = to_do.get(id(group[0]), all_steps) - steps
            if to_do[id(group[0])] == 0:
                done += len(group)
            line.set_postfix(runs=f"{done}/{len(chosen)}", refresh=False)
            line.update(sum(map(flops, group)) * steps / all_steps)

        yield report
