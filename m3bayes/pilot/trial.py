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
import numpy as np
import pandas as pd
from jaxtyping import UInt

from m3bayes.errors import RecipeError
from m3bayes.pilot import checkpoints, train
from m3bayes.pilot.checkpoints import Checkpoint, Folders
from m3bayes.pilot.corpus import Corpus, subset
from m3bayes.pilot.model import Shape, nearest_shape
from m3bayes.pilot.plan import source_columns
from m3bayes.pilot.stream import SourceText, StageWindows, realised, shared, stage_windows, stream
from m3bayes.pilot.train import BATCH, CONTEXT, Decay, Job, Outcome
from m3bayes.recipe import Recipe, recipe
from m3bayes.table_checks import REQUIRED, TOKENS_TOLERANCE, VARIABLES

VERSIONS = ("m3bayes", "jax", "equinox", "optax")
DIGITS_OF_TEXT = 12

Row = dict[str, object]


@dataclass(frozen=True, eq=False)
class Texts:
    """The target corpora and the source corpora of a sweep, by name."""

    targets: Mapping[str, Corpus]
    sources: Mapping[str, Corpus]

    @property
    def vocabulary(self) -> int:
        return next(iter(self.sources.values())).vocabulary

    @cached_property
    def source_text(self) -> UInt[np.ndarray, " token"]:
        """All sources, end to end."""
        return _end_to_end([corpus.train for corpus in self.sources.values()])

    @cached_property
    def source_validation(self) -> UInt[np.ndarray, " validation_token"]:
        return _end_to_end([corpus.validation for corpus in self.sources.values()])

    def fingerprint(self, language: str, *more: str) -> str:
        """First digits of the sha256 of the target, of each source, and of what else is given."""
        corpora = (self.targets[language], *self.sources.values())
        digests = (*(corpus.fingerprint for corpus in corpora), *more)
        return "+".join(digest[:DIGITS_OF_TEXT] for digest in digests)


@dataclass(frozen=True)
class Trial:
    """A row of a plan; ``rate``, ``weight_decay`` and ``decay`` are the plan's, or the trainer's rule.

    ``source_tokens`` by source, empty where the plan does not say; ``checkpoint`` is the run whose model this one
    goes on from, "" from scratch and None where the plan has no such column.
    """

    run: str
    block: str
    language: str
    recipe: Recipe
    subset: int
    seed: int
    rate: float
    weight_decay: float
    decay: Decay
    source_tokens: Mapping[str, float]
    checkpoint: str | None

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

    def source_windows(self, sources: Mapping[str, Corpus]) -> dict[str, int]:
        """Windows to read of each source; one source alone is all of it.

        Raises RecipeError where the plan's tokens by source are not those of the recipe.
        """
        windows = sum(stage.windows - stage.target for stage in self.stages)
        needed = self.recipe.source_tokens
        said = self.source_tokens or dict.fromkeys(sources, needed / len(sources))
        if windows and len(sources) > 1 and not self.source_tokens:
            raise RecipeError(
                f"{needed:,.0f} source tokens, but the plan does not say of which source; "
                f"give it columns {', '.join(f'{name}_tokens' for name in sources)}"
            )
        total = sum(said.get(name, 0.0) for name in sources)
        if abs(total - needed) > TOKENS_TOLERANCE * needed + 1:
            raise RecipeError(
                f"{' + '.join(f'{name}_tokens' for name in sources)} is {total:,.0f}, expected "
                f"epochs * target_tokens * (1 - target_ratio) / target_ratio = {needed:,.0f}; correct one of them"
            )
        counts = shared(windows, [said.get(name, 0.0) for name in sources])
        return dict(zip(sources, counts, strict=True))

    def fingerprint(self, texts: Texts, folders: Folders) -> str:
        """Of the texts, and of the checkpoint where there is one."""
        checkpoint = self.loaded(folders, texts.vocabulary)
        return texts.fingerprint(self.language, *([checkpoint.digest] if checkpoint else []))

    def loaded(self, folders: Folders, vocabulary: int) -> Checkpoint | None:
        """Where to start; None is from scratch. Raises M3BayesError naming the file."""
        if not self.checkpoint:
            return None
        return checkpoints.load(folders.checkpoints, self.checkpoint, self.shape, vocabulary)


def trials(plan: pd.DataFrame) -> list[Trial]:
    """The runs of a plan (as plan.read_plan gives it), in its order."""
    rows: list[dict[str, Any]] = [
        dict(zip(plan.columns, row, strict=True)) for row in plan.itertuples(index=False)
    ]
    return [_trial(row) for row in rows]


def train_trials(
    chosen: Sequence[Trial],
    texts: Texts,
    on_steps: Callable[[int], object],
    folders: Folders,
) -> list[Row]:
    """Train trials of one shape and language side by side; ``on_steps`` hears of steps done."""
    begun = time.perf_counter()
    shape, target = chosen[0].shape, texts.targets[chosen[0].language]
    starts = [trial.loaded(folders, target.vocabulary) for trial in chosen]
    jobs = [_job(trial, texts, start) for trial, start in zip(chosen, starts, strict=True)]
    models = train.train(shape, target.vocabulary, jobs, on_steps)
    outcomes = train.measure(models, target.validation, texts.source_validation)
    if folders.keep is not None:
        # before the row: what has a row has its model
        for place, (trial, outcome) in enumerate(zip(chosen, outcomes, strict=True)):
            if math.isfinite(outcome.target_loss):
                checkpoints.save(folders.keep, trial.run, jax.tree.map(lambda leaf, i=place: leaf[i], models))
    where = {
        "source": "+".join(texts.sources),
        "seconds": f"{(time.perf_counter() - begun) / len(jobs):.1f}",
        "device": _device(),
        "versions": " ".join(f"{name}={version(name)}" for name in VERSIONS),
        "date": date.today().isoformat(),
    }
    return [
        _measured(trial, outcome, target.vocabulary)
        | where
        | {"corpus": texts.fingerprint(target.name, *([start.digest] if start else []))}
        | _further(trial, texts)
        for trial, outcome, start in zip(chosen, outcomes, starts, strict=True)
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
        {column.removesuffix("_tokens"): given(column) or 0.0 for column in source_columns(row)},
        row.get("checkpoint"),
    )


def _job(trial: Trial, texts: Texts, start: Checkpoint | None) -> Job:
    U = int(trial.recipe.target_tokens)
    read = trial.source_windows(texts.sources)
    sources, first = [], 0
    for name, corpus in texts.sources.items():
        sources.append(SourceText((len(corpus.train) - 1) // CONTEXT, first, read[name]))
        first += len(corpus.train)
    return Job(
        stream(trial.stages, U, sources, CONTEXT, trial.seed),
        subset(texts.targets[trial.language], U, trial.subset),
        texts.source_text,
        trial.seed,
        trial.rate,
        trial.weight_decay,
        trial.decay,
        start.model if start else None,
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


def _further(trial: Trial, texts: Texts) -> Row:
    """The columns that only some plans have: tokens by source as read, and where the run began."""
    row: Row = {}
    if trial.source_tokens:
        for name, windows in trial.source_windows(texts.sources).items():
            # source text is never repeated
            row |= {f"{name}_tokens": windows * CONTEXT, f"{name}_unique_tokens": windows * CONTEXT}
    if trial.checkpoint is not None:
        row |= {"checkpoint": trial.checkpoint, "continued": int(trial.checkpoint != "")}
    return row


def _end_to_end(texts: Sequence[np.ndarray]) -> np.ndarray:
    return texts[0] if len(texts) == 1 else np.concatenate(texts)


def _device() -> str:
    device = jax.devices()[0]
    return f"{device.platform} {os.uname().machine if device.platform == 'cpu' else device.device_kind}"
