"""Trains runs of one model shape, several at once where the device has room.

AdamW (beta2 .98) on matrices with decoupled weight decay, gradients clipped to norm 1. The learning rate warms up
over 2 % of the steps, stays, and falls to 0 over the last 20 %, whatever the recipe: a cosine over the whole
schedule would starve the last of two stages. Rates enter the compiled program as numbers, so that nothing is
compiled again for another recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Integer

from m3bayes.pilot.model import Decoder, Shape, token_losses
from m3bayes.pilot.stream import Stream, gather
from m3bayes.recipe import Number

CONTEXT, BATCH = 64, 8  # tokens a window, windows a step
CHUNK = 256  # steps between two looks at the run
WARM_UP, COOL_DOWN = 0.02, 0.2  # shares of all steps
BETA2, CLIP, WEIGHT_DECAY = 0.98, 1.0, 0.1
EVALUATED_AT_ONCE = 64  # windows

Decay = Literal["linear", "cosine"]


@dataclass(frozen=True, eq=False)
class Job:
    """One run: ``order`` says which windows of ``target`` (its U tokens) and ``source`` (all of it) it reads.

    It begins with the parameters of ``start``, or with fresh ones drawn by ``seed``; AdamW's moments are fresh.
    """

    order: Stream
    target: np.ndarray
    source: np.ndarray
    seed: int
    rate: float
    weight_decay: float = WEIGHT_DECAY
    decay: Decay = "linear"
    start: Decoder | None = None

    @property
    def steps(self) -> int:
        return len(self.order) // BATCH


class Outcome(NamedTuple):
    """Held-out losses at the end, nats a token; both NaN where training diverged."""

    target_loss: float
    source_loss: float


def default_rate(params: Number) -> float:
    """The peak learning rate for N parameters, measured: see data/learning_rate.csv."""
    return RATE_AT * (params / RATE_PARAMS) ** -RATE_EXPONENT


RATE_AT, RATE_PARAMS, RATE_EXPONENT = 2.4e-3, 83_280, 0.43


def rates(steps: int, peak: float, decay: Decay = "linear") -> Float[np.ndarray, " step"]:
    """The learning rate of every step."""
    step = np.arange(steps) + 1.0
    warm = np.minimum(step / max(1.0, WARM_UP * steps), 1.0)
    left = (steps - step + 1) / steps
    if decay == "cosine":
        return peak * warm * 0.5 * (1 - np.cos(np.pi * left))
    return peak * warm * np.minimum(left / COOL_DOWN, 1.0)


def train(
    shape: Shape,
    vocabulary: int,
    jobs: Sequence[Job],
    on_steps: Callable[[int], object] = lambda steps: None,
) -> Decoder:
    """The models of ``jobs``, trained side by side and stacked along the front.

    ``on_steps`` hears how many steps (of all jobs) were done.
    """
    keys = jnp.stack([jax.random.key(job.seed) for job in jobs])
    model, moments = _start(shape, vocabulary)(keys)
    for place, job in enumerate(jobs):
        if job.start is not None:
            model = jax.tree.map(lambda fresh, given, i=place: fresh.at[i].set(given), model, job.start)
    state = model, moments
    by_step = [rates(job.steps, job.rate, job.decay) for job in jobs]
    weight_decay = jnp.asarray([job.weight_decay for job in jobs], jnp.float32)
    for first in range(0, max(job.steps for job in jobs), CHUNK):
        windows = np.stack([_chunk(job, first) for job in jobs])
        peaks = np.stack([_padded(some[first : first + CHUNK]) for some in by_step])
        steps = np.clip([job.steps - first for job in jobs], 0, CHUNK)
        state = _advance(state, windows, peaks.astype(np.float32), weight_decay, steps)
        jax.block_until_ready(state)
        on_steps(int(steps.sum()))
    return state[0]


def measure(models: Decoder, target_validation: np.ndarray, source_validation: np.ndarray) -> list[Outcome]:
    """The held-out losses of models stacked along the front."""
    losses = [evaluate(models, text) for text in (target_validation, source_validation)]
    return [
        Outcome(float(target), float(source))
        if np.isfinite([target, source]).all()
        else Outcome(np.nan, np.nan)
        for target, source in zip(*losses, strict=True)
    ]


def evaluate(models: Decoder, text: np.ndarray) -> Float[np.ndarray, " model"]:
    """Mean loss over the windows that ``text`` is cut into, nats a token, of models stacked along the front."""
    count = (len(text) - 1) // CONTEXT
    windows = text[np.arange(count)[:, None] * CONTEXT + np.arange(CONTEXT + 1)]
    parts = [_loss_sum(models, part) for part in np.array_split(windows, -(-count // EVALUATED_AT_ONCE))]
    return np.sum([np.asarray(part, float) for part in parts], axis=0) / (count * CONTEXT)


def _chunk(job: Job, first: int) -> Integer[np.ndarray, "step window token"]:
    first, last = BATCH * first, BATCH * (first + CHUNK)
    tokens = gather(job.order, job.target, job.source, CONTEXT, first, last)
    return _padded(tokens, BATCH * CHUNK).reshape(CHUNK, BATCH, CONTEXT + 1)


def _padded(values: np.ndarray, length: int = CHUNK) -> np.ndarray:
    return np.concatenate([values, np.zeros((length - len(values), *values.shape[1:]), values.dtype)])


# ---- compiled ----------------------------------------------------------------------------------


def _optimizer(weight_decay: Array) -> optax.GradientTransformation:
    def matrices(params):
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    return optax.chain(
        optax.clip_by_global_norm(CLIP),
        optax.scale_by_adam(b2=BETA2),
        optax.add_decayed_weights(weight_decay, mask=matrices),
    )


@lru_cache
def _start(shape: Shape, vocabulary: int):
    @jax.jit
    @jax.vmap
    def start(key):
        model = Decoder(shape, vocabulary, key)
        return model, _optimizer(jnp.zeros(())).init(eqx.filter(model, eqx.is_array))

    return start


@partial(jax.jit, donate_argnums=0)
@jax.vmap
def _advance(state, windows, peaks, weight_decay, steps):
    """``steps`` of the steps in ``windows``; a job that has ended waits for the others."""
    optimizer = _optimizer(weight_decay)

    def mean_loss(model, batch):
        return jnp.mean(jax.vmap(partial(token_losses, model))(batch))

    def step(i, state):
        model, moments = state
        gradient = eqx.filter_grad(mean_loss)(model, windows[i].astype(jnp.int32))
        update, moments = optimizer.update(gradient, moments, eqx.filter(model, eqx.is_array))
        update = jax.tree.map(lambda leaf: -peaks[i] * leaf, update)
        return eqx.apply_updates(model, update), moments

    return jax.lax.fori_loop(0, steps, step, state)


@jax.jit
def _loss_sum(models, windows):
    def total(model):
        return jnp.sum(jax.vmap(partial(token_losses, model))(windows.astype(jnp.int32)))

    return jax.vmap(total)(models)
