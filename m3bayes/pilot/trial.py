"""A planned run, and what becomes of it: a row for the table (columns: see results)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from importlib.metadata import version
from typing import Any

import jax
import pandas as pd

from m3bayes.pilot import train
from m3bayes.pilot.corpus import Corpus, subset
from m3bayes.pilot.model import Shape, nearest_shape
from m3bayes.pilot.stream import StageWindows, realised, stage_windows, stream
from m3bayes.pilot.train import BATCH, CONTEXT, Decay, Job, Outcome
from m3bayes.recipe import Recipe, recipe
from m3bayes.table_checks import REQUIRED, VARIABLES

VERSIONS = ("m3bayes", "jax", "equinox", "optax")
DIGITS_OF_TEXT = 12

Row = dict[str, object]


@dataclass(frozen=True, eq=False)
class Texts:
    """The target corpora by language and the source corpus of a sweep."""

    targets: Mapping[str, Corpus]
    source: Corpus

    @property
    def source_windows(self) -> int:
        return (len(self.source.train) - 1) // CONTEXT

    def fingerprint(self, language: str) -> str:
        corpora = (self.targets[language], self.source)
        return "+".join(corpus.fingerprint[:DIGITS_OF_TEXT] for corpus in corpora)


@dataclass(frozen=True)
class Trial:
    """A row of a plan; ``rate``, ``weight_decay`` and ``decay`` are the plan's, or the trainer's rule."""

    run: str
    block: str
    language: str
    recipe: Recipe
    subset: int
    seed: int
    rate: float
    weight_decay: float
    decay: Decay

    @property
    def shape(self) -> Shape:
        return nearest_shape(self.recipe.params)

    @cached_property
    def stages(self) -> tuple[StageWindows, ...]:
        """Raises RecipeError where the recipe is too short for its stages."""
        return stage_windows(self.recipe, CONTEXT, BATCH)

    @property
    def steps(self) -> int:
        return sum(stage.windows for stage in self.stages) // BATCH


def trials(plan: pd.DataFrame) -> list[Trial]:
    """The runs of a plan (as plan.read_plan gives it), in its order."""
    rows: list[dict[str, Any]] = [
        dict(zip(plan.columns, row, strict=True)) for row in plan.itertuples(index=False)
    ]
    return [_trial(row) for row in rows]


def train_trials(chosen: Sequence[Trial], texts: Texts, on_steps: Callable[[int], object]) -> list[Row]:
    """Train trials of one shape and language side by side; ``on_steps`` hears of steps done."""
    begun = time.perf_counter()
    shape, target = chosen[0].shape, texts.targets[chosen[0].language]
    jobs = [_job(trial, texts) for trial in chosen]
    outcomes = train.train(
        shape, target.vocabulary, jobs, target.validation, texts.source.validation, on_steps
    )
    where = {
        "source": texts.source.name,
        "seconds": f"{(time.perf_counter() - begun) / len(jobs):.1f}",
        "device": _device(),
        "versions": " ".join(f"{name}={version(name)}" for name in VERSIONS),
        "corpus": texts.fingerprint(target.name),
        "date": date.today().isoformat(),
    }
    return [
        _measured(trial, outcome, target.vocabulary) | where
        for trial, outcome in zip(chosen, outcomes, strict=True)
    ]


def _trial(row: dict[str, Any]) -> Trial:
    def given(name: str) -> Any:
        """None where the plan leaves it to the rule."""
        value = row.get(name)
        return None if value is None or value == "" or value != value else value

    return Trial(
        row["run"],
        row["block"],
        row["language"],
        Recipe(**{name: row[name] for name in REQUIRED}, first_ratio=given("first_ratio")),
        int(row["subset"]),
        int(row["seed"]),
        given("lr") or train.default_rate(row["params"]),
        train.WEIGHT_DECAY if given("weight_decay") is None else given("weight_decay"),
        given("decay") or "linear",
    )


def _job(trial: Trial, texts: Texts) -> Job:
    U = int(trial.recipe.target_tokens)
    return Job(
        stream(trial.stages, U, texts.source_windows, CONTEXT, trial.seed),
        subset(texts.targets[trial.language], U, trial.subset),
        texts.source.train,
        trial.seed,
        trial.rate,
        trial.weight_decay,
        trial.decay,
    )


def _measured(trial: Trial, outcome: Outcome, vocabulary: int) -> Row:
    """The recipe as it was carried out, and the losses."""
    done = realised(trial.recipe, trial.stages, CONTEXT)
    trained = recipe(done)
    fine = math.isfinite(outcome.target_loss)
    *before, last = done.stages
    recipe_cells = {name: getattr(trained, name) for name in VARIABLES}
    return {
        "run": trial.run,
        "block": trial.block,
        "language": trial.language,
        **{name: "" if value is None else repr(value) for name, value in recipe_cells.items()},
        "params": trial.shape.params,
        "target_tokens": int(trained.target_tokens),
        "loss": f"{outcome.target_loss:.6f}" if fine else "",
        "source_loss": f"{outcome.source_loss:.6f}" if fine else "",
        "tokens": int(done.tokens),
        "first_stage_tokens": int(sum(stage.tokens for stage in before)) if before else "",
        "last_stage_tokens": int(last.tokens),
        "flops": f"{trial.shape.flops(done.tokens, CONTEXT, vocabulary):.6g}",
        "lr": f"{trial.rate:.6g}",
        "weight_decay": trial.weight_decay,
        "decay": trial.decay,
        "steps": trial.steps,
        "subset": trial.subset,
        "seed": trial.seed,
        "status": "ok" if fine else "diverged",
    }


def _device() -> str:
    device = jax.devices()[0]
    return f"{device.platform} {os.uname().machine if device.platform == 'cpu' else device.device_kind}"
