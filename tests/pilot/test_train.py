from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from m3bayes.pilot import train as trainer
from m3bayes.pilot.model import Decoder, Shape, token_losses
from m3bayes.pilot.stream import SourceText, StageWindows, gather, stream
from m3bayes.pilot.train import (
    BATCH,
    CONTEXT,
    Job,
    Outcome,
    default_rate,
    evaluate,
    measure,
    rates,
    train,
)

TINY = Shape(1, 16, 2)
V = 32


def text(tokens: int, seed: int) -> np.ndarray:
    """A cycle of 1 to 20 with a few tokens replaced: easy to learn, not to the end."""
    random = np.random.default_rng(seed)
    noise = random.random(tokens) < 0.05
    return np.where(noise, random.integers(1, V, tokens), np.arange(tokens) % 20 + 1).astype(np.uint8)


def job(steps: int, rate: float = 1e-2, seed: int = 0, **settings) -> Job:
    windows = steps * BATCH
    target, source = text(4000, 1), text(200_000, 2)
    texts = [SourceText(len(source) // CONTEXT - 1)]
    order = stream([StageWindows(windows, windows // 2)], len(target), texts, CONTEXT, seed)
    return Job(order, target, source, seed, rate, **settings)


def outcomes(jobs: Sequence[Job], target: np.ndarray, source: np.ndarray, *rest) -> list[Outcome]:
    return measure(train(TINY, V, jobs, *rest), target, source)


def test_rates_warm_up_stay_and_fall_to_nothing():
    found = rates(1000, 2.0)
    assert found.max() == 2.0
    assert found[0] == pytest.approx(2.0 / 20)
    assert (found[20:800] == 2.0).all()
    assert found[900] == pytest.approx(1.0)
    assert 0 < found[-1] <= 2.0 / 200 + 1e-12
    assert (np.diff(found[:20]) > 0).all()
    assert (np.diff(found[801:]) < 0).all()
    assert rates(1, 1.0).shape == (1,)


def test_a_cosine_falls_from_the_start():
    found = rates(1000, 1.0, "cosine")
    assert found[500] == pytest.approx(0.5, abs=2e-3)
    assert (np.diff(found[20:]) < 0).all()


def test_bigger_models_want_smaller_rates():
    assert default_rate(1e6) < default_rate(1e5) < default_rate(1e4)


@pytest.mark.parametrize("continued", [False, True])
def test_training_is_adamw_step_by_step(monkeypatch, continued):
    """A plain loop with optax's own adamw, not padded, not compiled as a whole."""
    monkeypatch.setattr(trainer, "CHUNK", 7)
    model = Decoder(TINY, V, jax.random.key(9 if continued else 0))
    one = job(steps=10, start=model if continued else None)
    matrices = jax.tree.map(lambda leaf: leaf.ndim > 1, eqx.filter(model, eqx.is_array))
    by_step = rates(10, one.rate)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(lambda i: jnp.asarray(by_step)[i], b2=0.98, weight_decay=0.1, mask=matrices),
    )
    moments = optimizer.init(eqx.filter(model, eqx.is_array))
    for step in range(10):
        tokens = gather(one.order, one.target, one.source, CONTEXT, BATCH * step, BATCH * (step + 1))
        gradient = eqx.filter_grad(
            lambda model, tokens: jnp.mean(jax.vmap(partial(token_losses, model))(tokens))
        )(model, jnp.asarray(tokens, jnp.int32))
        update, moments = optimizer.update(gradient, moments, eqx.filter(model, eqx.is_array))
        model = eqx.apply_updates(model, update)
    held_out = text(1000, 3)
    expected = np.mean(
        [
            token_losses(model, jnp.asarray(held_out[i : i + CONTEXT + 1], jnp.int32))
            for i in range(0, 960, CONTEXT)
        ]
    )
    (outcome,) = outcomes([one], held_out, held_out[:200])
    assert outcome.target_loss == pytest.approx(expected, rel=2e-4)


def test_runs_side_by_side_end_as_they_do_alone():
    held_out = text(500, 3)
    jobs = [job(12, seed=1), job(300, seed=2, rate=5e-3), job(40, seed=3, weight_decay=0.0)]
    heard: list[int] = []
    together = outcomes(jobs, held_out, held_out, heard.append)
    assert sum(heard) == 12 + 300 + 40
    alone = [outcomes([one], held_out, held_out)[0] for one in jobs]
    assert np.allclose(together, alone, rtol=1e-4)


def test_a_run_from_a_checkpoint_leaves_those_beside_it_alone():
    held_out = text(500, 3)
    start = jax.tree.map(lambda leaf: leaf[0], train(TINY, V, [job(60)]))
    jobs = [job(12, seed=1), job(12, seed=2, start=start), job(12, seed=3)]
    together = outcomes(jobs, held_out, held_out)
    alone = [outcomes([one], held_out, held_out)[0] for one in jobs]
    assert np.allclose(together, alone, rtol=1e-4)
    (again,) = outcomes([job(12, seed=2)], held_out, held_out)
    assert together[1].target_loss < again.target_loss - 0.5


def test_it_learns():
    held_out = text(3000, 3)
    short, long = (outcomes([job(steps)], held_out, held_out)[0].target_loss for steps in (2, 400))
    assert short > 3.0 > 1.0 > long


def test_the_same_seed_gives_the_same_losses_and_another_does_not():
    held_out = text(500, 3)
    a, b, c = (outcomes([job(20, seed=seed)], held_out, held_out)[0] for seed in (4, 4, 5))
    assert a == b
    assert a != c


def test_a_run_that_diverges_says_so_with_nan():
    held_out = text(500, 3)
    (outcome,) = outcomes([job(20, rate=1e30)], held_out, held_out)
    assert np.isnan(outcome).all()


def test_evaluation_counts_every_whole_window_once():
    models = jax.vmap(lambda key: Decoder(TINY, V, key))(jax.random.split(jax.random.key(0), 2))
    held_out = text(70 * CONTEXT + 10, 4)  # more windows than are evaluated at once
    first = jax.tree.map(lambda leaf: leaf[0], models)
    naive = [
        np.mean(token_losses(first, jnp.asarray(held_out[i : i + CONTEXT + 1], jnp.int32)))
        for i in range(0, 70 * CONTEXT, CONTEXT)
    ]
    assert evaluate(models, held_out).shape == (2,)
    assert evaluate(models, held_out)[0] == pytest.approx(np.mean(naive), rel=1e-5)
