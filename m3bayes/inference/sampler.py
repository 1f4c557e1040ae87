"""NUTS: NumPyro's kernel inside one jitted function, preconditioned at the mode.

A chain is a state that `advance` moves on by up to CHUNK transitions at a time, so that progress can be
shown and a checkpoint written between two calls; the chunks do not change the draws. Chains run one a
thread over the same compiled function, and each chain's draws depend on its key alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import lru_cache
from threading import Event
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo

from m3bayes.inference.coordinates import Coordinates
from m3bayes.inference.evaluation import PLAIN_SUMS, Evaluate, evaluator
from m3bayes.inference.precision import Precision, computing_in, rounded
from m3bayes.inference.threads import one_a_thread

CHUNK = 250
# beyond so many coordinates warm-up adapts their scales only: it has too few transitions to tell a whole matrix
DENSE = 40
STATISTICS = ("lp", "energy", "diverging", "acceptance_rate", "n_steps", "step_size")


class Frame(NamedTuple):
    """The whitened frame in which chains move: q = centre + axes z."""

    centre: Float[np.ndarray, " dim"]
    axes: Float[np.ndarray, "dim dim"]


@dataclass(frozen=True)
class Chain:
    """``q`` (draw, dim) and ``statistics`` {name: (draw,)} after warm-up."""

    q: Float[np.ndarray, "draw dim"]
    statistics: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ChainStore:
    """Where a chain's unfinished state is kept: ``read(chain)`` gives the arrays last written, or None."""

    read: Callable[[int], Mapping[str, np.ndarray] | None]
    write: Callable[[int, Mapping[str, np.ndarray]], None]


def frame_at(q: Float[np.ndarray, " dim"], hessian: Float[np.ndarray, "dim dim"]) -> Frame:
    """The frame in which a Gaussian with this mode and Hessian is standard normal."""
    curvature, axes = np.linalg.eigh(hessian)
    # no direction is taken as wider than 3 prior-sized units or as negative
    curvature = np.maximum(np.abs(curvature), 0.1)
    return Frame(q, axes / np.sqrt(curvature))


def frame_of(qs: Float[np.ndarray, "draw dim"]) -> Frame:
    """The frame in which draws have zero mean and unit covariance."""
    covariance = np.cov(qs, rowvar=False)
    widths, axes = np.linalg.eigh(covariance)
    return Frame(qs.mean(0), axes * np.sqrt(np.maximum(widths, 1e-18)))


def sample(
    space: Coordinates,
    arrays: Mapping,
    frame: Frame,
    starts: Float[np.ndarray, "chain dim"],
    keys: Sequence[Array],
    *,
    warmup: int,
    draws: int,
    target_accept: float,
    precision: Precision = "float64",
    report: Callable[[int, int, int], None] = lambda chain, done, divergences: None,
    store: ChainStore | None = None,
) -> list[Chain]:
    """Run one chain from each of ``starts`` (in q).

    ``report(chain, transitions done, divergences after warm-up)`` is called after every chunk, from the
    chain's thread. With ``store``, a chain goes on from where it was last written. On Ctrl-C, and where one chain
    raises, the others end with the chunk they are in.
    """
    stopped = Event()
    compiled = _kernel(space, warmup)
    inside = _inside(evaluator(space, arrays), starts, frame)
    fixed = rounded((dict(arrays), frame), precision)

    def run(chain: int) -> Chain:
        start = rounded(ParamInfo(*(part[chain] for part in inside)), precision)
        with computing_in(precision):
            return _run_chain(
                compiled, *fixed, start, keys[chain], target_accept,
                warmup, draws, lambda done, bad: report(chain, done, bad),
                None if store is None else _ChainSlot(store, chain), stopped,
            )  # fmt: skip

    return one_a_thread(run, range(len(keys)), stopped)


def is_chain(
    space: Coordinates,
    saved: Mapping[str, np.ndarray],
    warmup: int,
    draws: int,
    precision: Precision = "float64",
) -> bool:
    """Whether ``saved`` has the arrays that a chain of this length writes, of their shapes and kinds."""
    dim = space.dim
    start = rounded(ParamInfo(np.zeros(dim), np.zeros(()), np.zeros(dim)), precision)
    with computing_in(precision):
        begin = _kernel(space, warmup).begin
        state = jax.tree.leaves(jax.eval_shape(begin, start, jax.random.key(0), 0.9))
        keys = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    done = saved.get("done", np.zeros(()))
    if done.shape or done.dtype.kind != "i" or not 0 < done <= warmup + draws:
        return False
    kept = max(int(done) - warmup, 0)
    expected = {f"state{i}": keys if _is_key(leaf) else leaf for i, leaf in enumerate(state)}
    expected |= {
        "done": done,
        "q": np.empty((kept, dim)),
        "statistics": np.empty((kept, len(STATISTICS))),
    }
    return saved.keys() == expected.keys() and all(
        saved[name].shape == like.shape and saved[name].dtype == like.dtype for name, like in expected.items()
    )


def prepare(space: Coordinates, arrays: Mapping, warmup: int, precision: Precision = "float64") -> None:
    """Compile what :func:`sample` needs, by a call that makes no transition; for a thread of its own."""
    compiled, dim = _kernel(space, warmup), space.dim
    frame = Frame(np.zeros(dim), np.eye(dim))
    start = ParamInfo(np.zeros(dim), np.zeros(()), np.zeros(dim))
    start, frame, given = rounded((start, frame, dict(arrays)), precision)
    with computing_in(precision):
        state = compiled.begin(start, jax.random.key(0), 0.9)
        compiled.advance(state, given, frame, 0.9, 0)


def _inside(evaluate: Evaluate, q: Float[np.ndarray, "chain dim"], frame: Frame) -> ParamInfo:
    """Starts in the frame, with potential and gradient there, stacked; those outside the support are brought
    nearer to the centre, which has a finite density."""
    while True:
        potential, gradient = evaluate(q)
        outside = ~np.isfinite(potential)
        if not outside.any():
            z = np.linalg.solve(frame.axes, (q - frame.centre).T).T
            return ParamInfo(z, potential, gradient @ frame.axes)
        q = np.where(outside[:, None], (q + frame.centre) / 2, q)


class _ChainSlot(NamedTuple):
    store: ChainStore
    chain: int


class Kernel(NamedTuple):
    """``begin(start, key, target_accept)`` gives the state of a chain; ``advance(state, arrays, frame,
    target_accept, n)`` makes n transitions, at most CHUNK, and gives the state, q (CHUNK, dim) and STATISTICS
    (CHUNK, statistic) of them. Tracing one of them is for one thread at a time."""

    begin: Callable
    advance: Callable


@lru_cache(maxsize=32)
def _kernel(space: Coordinates, warmup: int) -> Kernel:
    begin, advance = kernel(space, warmup)
    return Kernel(jax.jit(begin), jax.jit(advance, compiler_options=PLAIN_SUMS))


def kernel(space: Coordinates, warmup: int) -> Kernel:
    """The transitions of one chain, not compiled."""
    dense = space.dim <= DENSE

    def potential_of(arrays, frame):
        return lambda z: space.potential(frame.centre + frame.axes @ z, arrays)

    initialise, transition = hmc(potential_fn_gen=potential_of, algo="NUTS")

    def begin(start, key, target_accept):
        return initialise(
            ParamInfo(*map(jnp.asarray, start)), warmup, step_size=0.5, dense_mass=dense,
            target_accept_prob=target_accept, inverse_mass_matrix=np.eye(space.dim) if dense else np.ones(space.dim),
            model_args=(None, None), rng_key=key,
        )  # fmt: skip

    def advance(state, arrays, frame, target_accept, n):
        # the kernel's own closure is set while `begin` is traced, for this target
        start = ParamInfo(state.z, state.potential_energy, state.z_grad)
        jax.eval_shape(lambda start: begin(start, jax.random.key(0), target_accept), start)

        def body(i, carry):
            state, qs, statistics = carry
            state = transition(state, (arrays, frame), {})
            row = jnp.stack(
                [
                    -state.potential_energy,
                    state.energy,
                    state.diverging.astype(float),
                    state.accept_prob,
                    state.num_steps.astype(float),
                    state.adapt_state.step_size,
                ]
            )
            return state, qs.at[i].set(frame.centre + frame.axes @ state.z), statistics.at[i].set(row)

        empty = (state, jnp.zeros((CHUNK, space.dim)), jnp.zeros((CHUNK, len(STATISTICS))))
        return jax.lax.fori_loop(0, n, body, empty)

    return Kernel(begin, advance)


def _run_chain(
    compiled: Kernel, arrays, frame, start, key, target_accept, warmup, draws, report, slot, stopped: Event
) -> Chain:
    """Raises CancelledError once ``stopped``, with what is done in the slot."""
    total = warmup + draws
    saved = None if slot is None else slot.store.read(slot.chain)
    state = compiled.begin(start, key, target_accept)
    if saved is None:
        done, qs, statistics = 0, [], []
    else:
        done, qs, statistics = int(saved["done"]), [saved["q"]], [saved["statistics"]]
        state = _unpack(state, saved)
    while done < total:
        if stopped.is_set():
            raise CancelledError
        # a chunk never crosses the end of warm-up
        n = min(CHUNK, (warmup if done < warmup else total) - done)
        state, q, rows = compiled.advance(state, arrays, frame, target_accept, n)
        if done >= warmup:
            qs.append(np.asarray(q)[:n])
            statistics.append(np.asarray(rows)[:n])
        done += n
        bad = int(sum(rows[:, STATISTICS.index("diverging")].sum() for rows in statistics))
        if slot is not None:
            slot.store.write(slot.chain, _pack(state, done, qs, statistics))
        report(done, bad)
    qs, rows = (np.concatenate(parts).astype(float) for parts in (qs, statistics))
    return Chain(qs, {name: rows[:, i] for i, name in enumerate(STATISTICS)})


def _pack(state, done: int, qs, statistics) -> dict[str, np.ndarray]:
    leaves = [jax.random.key_data(v) if _is_key(v) else v for v in jax.tree.leaves(state)]
    packed = {f"state{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    dim = state.z.shape[0]
    return packed | {
        "done": np.asarray(done),
        "q": np.concatenate([np.empty((0, dim)), *qs]),
        "statistics": np.concatenate([np.empty((0, len(STATISTICS))), *statistics]),
    }


def _unpack(template, saved: Mapping[str, np.ndarray]):
    leaves, structure = jax.tree.flatten(template)
    restored = [
        jax.random.wrap_key_data(jnp.asarray(saved[f"state{i}"]))
        if _is_key(leaf)
        else jnp.asarray(saved[f"state{i}"])
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, restored)


def _is_key(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
