"""fit(runs, law) -> Posterior: mode, NUTS, gate, and more effort where the gate is not passed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt32

from m3bayes.errors import FitError, NotConvergedError, Note, unique_notes
from m3bayes.inference import checkpoint as checkpoints
from m3bayes.inference.coordinates import coordinates, prior_on_real_line
from m3bayes.inference.data import Canonical, canonical
from m3bayes.inference.diagnostics import SHORT, SUPERCHAINS, superchains_of
from m3bayes.inference.evaluation import evaluator
from m3bayes.inference.gate import Gate, judge, unidentified
from m3bayes.inference.identifiability import check_enough_runs, identifiability_notes
from m3bayes.inference.mode import Mode, find_mode
from m3bayes.inference.noise import Noise, student_t
from m3bayes.inference.not_finite import where_not_finite
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.precision import Precision, check_precision, shifted
from m3bayes.inference.progress import bar
from m3bayes.inference.reading import Drawn, read_chains
from m3bayes.inference.sampler import Chain, ChainStore, Frame, frame_at, frame_of, is_chain, prepare, sample
from m3bayes.inference.threads import as_caller
from m3bayes.laws.law import Law
from m3bayes.laws.m3 import m3
from m3bayes.runs import Runs

if TYPE_CHECKING:
    from m3bayes.inference.pooled import Pooled
    from m3bayes.inference.pooled_model import Pooling

Allow = Literal["passed", "flagged"]

# posteriors of this many coordinates are close to normal in the frame of their mode, so that less care will do
SMALL = 8
# optima this close to the best (in nats) are worth a chain
NEARBY_OPTIMUM = 10.0
PACKAGES = ("m3bayes", "jax", "numpyro", "numpy")


@dataclass(frozen=True)
class Attempt:
    """One run of the sampler; later attempts go on from what earlier ones learned."""

    target_accept: float
    warmup: int
    draws: int
    precision: Precision = "float64"


@overload
def fit(
    runs: Runs,
    law: Law | None = None,
    *,
    pool: None = None,
    pooling: None = None,
    noise: Noise | None = None,
    seed: int = 0,
    chains: int = 4,
    warmup: int | None = None,
    draws: int = 1000,
    precision: Precision = "float64",
    allow: Allow = "passed",
    checkpoint: Path | str | None = None,
    resume: bool = False,
    progress: bool | None = None,
    constants: Mapping[str, float] | None = None,
) -> Posterior: ...


@overload
def fit(
    runs: Runs,
    law: Law | None = None,
    *,
    pool: str,
    pooling: Mapping[str, Pooling] | None = None,
    noise: Noise | None = None,
    seed: int = 0,
    chains: int = 4,
    warmup: int | None = None,
    draws: int = 1000,
    allow: Allow = "passed",
    progress: bool | None = None,
    constants: Mapping[str, float] | None = None,
) -> Pooled: ...


def fit(
    runs: Runs,
    law: Law | None = None,
    *,
    pool: str | None = None,
    pooling: Mapping[str, Pooling] | None = None,
    noise: Noise | None = None,
    seed: int = 0,
    chains: int = 4,
    warmup: int | None = None,
    draws: int = 1000,
    precision: Precision = "float64",
    allow: Allow = "passed",
    checkpoint: Path | str | None = None,
    resume: bool = False,
    progress: bool | None = None,
    constants: Mapping[str, float] | None = None,
) -> Posterior | Pooled:
    """The posterior of a law's coefficients given runs.

    ``law``         default M3; ``noise`` default Student-t on log loss
    ``pool``        a column whose values (languages, say) are groups with coefficients of their own, all fitted
                    together; gives a :class:`m3bayes.Pooled`. ``pooling`` {coefficient: "shared", "partial" or
                    "free"} changes how: by default what repetition does is shared, floors and scales are free, the
                    rest is partially pooled
    ``warmup``      transitions a chain before draws are kept; default 200 for up to 8 coordinates, else 800
    ``chains``      32 or more with fewer than 200 draws each are short chains: they start from 16 places, and the gate
                    takes the nested R-hat of the groups that started together, of which there have to be 16
    ``draws``       draws a chain. Where the gate is not passed, up to two further attempts are made, with
                    smaller steps, 2 and 4 times the draws, in the frame of the draws before; the note
                    ESCALATED says so.
    ``allow``       "passed" raises NotConvergedError unless the gate is passed, "flagged" returns anyway
    ``precision``   "float32" makes the chains of the first attempt in float32, which is faster. Where the draws' means
                    or standard deviations move by more than .05 standard deviations when they are weighed with
                    the density in float64, they are refused: further attempts are in float64
    ``checkpoint``  a folder that keeps the chains while they run; with ``resume`` chains go on from there
                    and give the draws of an uninterrupted run, bit for bit. Ctrl-C ends the chains with the 250
                    transitions they are in, which are kept. No other fit can use the folder meanwhile. It
                    stays: remove it with ``m3bayes.inference.checkpoint.remove`` once the posterior is saved
    ``progress``    show a bar; None shows it on a terminal
    ``constants``   reference quantities of the priors, as in ``Posterior.constants``; None takes them from the
                    runs. Refits of part of a table pass those of the whole, so that the prior stays the same.

    The same seed gives the same draws whatever the number of threads, the order of the rows and the units
    of N and U. Raises RunTableError (columns missing, too few runs), LawError (no finite losses), FitError
    (nothing to start from, or a checkpoint of another fit, or one that another fit is using) and
    NotConvergedError, which carries the flagged posterior.
    """
    law = m3() if law is None else law
    noise = student_t() if noise is None else noise
    check_settings(seed, chains, warmup, draws)
    check_precision(precision)
    if pool is not None:
        if not isinstance(pool, str):
            raise FitError(f'pool is {pool!r}; give the name of one column, as "language"')
        if precision != "float64":
            raise FitError("a pooled fit is made in float64: leave out precision, or pool")
        if checkpoint is not None:
            raise FitError("a pooled fit keeps no checkpoint: leave out checkpoint, or pool")
        from m3bayes.inference.pooling import fit_pooled

        return fit_pooled(
            runs, law, pool, pooling=pooling, noise=noise, seed=seed, chains=chains, warmup=warmup, draws=draws,
            flagged=allow == "flagged", progress=progress, constants=constants,
        )  # fmt: skip
    if pooling is not None:
        raise FitError(
            'pooling is given without pool; give the column that the groups are in, as pool="language"'
        )
    check_enough_runs(runs, law)
    with jax.enable_x64(True), nullcontext() if checkpoint is None else checkpoints.held(checkpoint):
        table = canonical(runs, law, noise, constants)
        space = coordinates(law, noise, len(table.groups))
        attempts = attempts_of(law, noise, len(table.groups), warmup, draws, precision)
        warmup = attempts[0].warmup
        with ThreadPoolExecutor(1) as beside:  # compilation takes a while: the sampler's beside the mode's
            prepared = beside.submit(as_caller(prepare), space, table.arrays, warmup, precision)
            mode = _mode(runs, law, noise, table, seed)
            prepared.result()
        settings = {"seed": seed, "chains": chains, "warmup": warmup, "draws": draws, "precision": precision}
        identity = _identity(runs, law, noise, settings, table.constants(law))

        superchains = superchains_of(chains, draws)
        frame, starts, multimodal = first_starts(mode, chains, seed, superchains)
        notes = [*runs.notes, *identifiability_notes(runs, law), *multimodal]

        def right(chain: int, arrays: Mapping[str, np.ndarray]) -> bool:
            attempt = attempts[chain // chains]
            return is_chain(space, arrays, attempt.warmup, attempt.draws, attempt.precision)

        kept, damaged = _kept_chains(checkpoint, resume, identity, chains * len(attempts), right)
        notes += damaged
        for number, attempt in enumerate(attempts, start=1):
            store = None if checkpoint is None else _store(checkpoint, kept, (number - 1) * chains)
            label = "sampling" if number == 1 else f"sampling, attempt {number}"
            with bar(label, chains * (attempt.warmup + attempt.draws), progress) as report:
                ran = sample(
                    space, table.arrays, frame, starts,
                    list(jax.random.wrap_key_data(jnp.asarray(key_words_of(seed, number, chains)))),
                    warmup=attempt.warmup, draws=attempt.draws, target_accept=attempt.target_accept,
                    precision=attempt.precision, report=report, store=store,
                )  # fmt: skip
            drawn, gate = read_and_judged(law, noise, table, ran, attempt, superchains)
            if gate.passed:
                break
            frame, starts = next_starts(ran, superchains)
        result = posterior_of(runs, law, noise, table, drawn, gate, notes, settings, number, attempt)
    if not gate.passed and allow == "passed":
        raise NotConvergedError(
            f"the fit of {law.name} to {runs.name} did not converge in {number} attempts: "
            f'{"; ".join(note.message for note in gate.notes)}; allow="flagged" returns it all the same',
            result,
        )
    return result


def _mode(runs: Runs, law: Law, noise: Noise, table: Canonical, seed: int) -> Mode:
    try:
        return find_mode(law, noise, len(table.groups), table.arrays, random_of(seed, "mode"))
    except FitError as error:
        raise (where_not_finite(law, table, runs, random_of(seed, "mode")) or error) from None


def check_settings(seed: int, chains: int, warmup: int | None, draws: int) -> None:
    """Raise FitError where one of them is no number to sample with."""
    counts = {"seed": (seed, 0), "chains": (chains, 1), "warmup": (warmup, 20), "draws": (draws, 4)}
    for name, (value, least) in counts.items():
        if name == "warmup" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise FitError(f"{name} is {value!r}; give a whole number, at least {least}")
    if superchains_of(chains, draws) and chains % SUPERCHAINS:
        raise FitError(
            f"chains is {chains}, with {draws} draws each: chains so short are judged in {SUPERCHAINS} groups; give "
            f"{chains - chains % SUPERCHAINS} or {chains - chains % SUPERCHAINS + SUPERCHAINS}, or {SHORT} draws"
        )


def attempts_of(
    law: Law, noise: Noise, n_groups: int, warmup: int | None, draws: int, precision: Precision = "float64"
) -> tuple[Attempt, ...]:
    """The attempts that a fit makes at most, in turn; ``warmup`` None is the default of :func:`fit`."""
    small = coordinates(law, noise, n_groups).dim <= SMALL
    if warmup is None:
        warmup = 200 if small else 800
    return (
        Attempt(0.8 if small else 0.9, warmup, draws, precision),
        Attempt(0.95, warmup, 2 * draws),
        Attempt(0.99, warmup, 4 * draws),
    )


def first_starts(
    mode: Mode, chains: int, seed: int, superchains: int = 0
) -> tuple[Frame, Float[np.ndarray, "chain dim"], tuple[Note, ...]]:
    """The frame at the best optimum, starts spread about every optimum worth one, and a note where they are several.

    With ``superchains``, neighbouring chains share a start.
    """
    frame = frame_at(mode.q[0], mode.hessian)
    optima = _worthwhile_optima(mode, frame)
    notes = (_multimodal(mode, len(optima)),) if len(optima) > 1 else ()
    places = superchains or chains
    starts = _overdispersed(optima, frame, places, random_of(seed, "starts"))
    return frame, np.repeat(starts, chains // places, axis=0), notes


def next_starts(ran: Sequence[Chain], superchains: int = 0) -> tuple[Frame, Float[np.ndarray, "chain dim"]]:
    """The frame of an attempt's draws, and the places where its chains ended, of superchains the first."""
    frame = frame_of(np.concatenate([chain.q for chain in ran]))
    together = len(ran) // (superchains or len(ran))
    return frame, np.repeat([chain.q[-1] for chain in ran[::together]], together, axis=0)


def read_and_judged(
    law: Law, noise: Noise, table: Canonical, chains: Sequence[Chain], attempt: Attempt, superchains: int
) -> tuple[Drawn, Gate]:
    """What the chains of an attempt say, and whether it may be believed."""
    drawn = read_chains(law, noise, table, chains)
    gate = judge(drawn.quantities, drawn.statistics, superchains)
    if attempt.precision == "float64":
        return drawn, gate
    potential, _ = evaluator(coordinates(law, noise, len(table.groups)), table.arrays)(
        np.concatenate([chain.q for chain in chains])
    )
    moved = shifted(drawn.quantities, drawn.statistics["lp"], -potential.reshape(len(chains), -1))
    return drawn, replace(gate, notes=(*gate.notes, *moved))


def posterior_of(
    runs: Runs,
    law: Law,
    noise: Noise,
    table: Canonical,
    drawn: Drawn,
    gate: Gate,
    notes: Sequence[Note],
    settings: Mapping[str, float | int | str],
    number: int,
    attempt: Attempt,
) -> Posterior:
    """The posterior of the last ``attempt`` made, the ``number``-th, with the gate's notes added to ``notes``."""
    notes = list(notes)
    if number > 1:
        notes.append(escalated(number, attempt, gate))
    named = {name for note in notes if note.code == "UNIDENTIFIED" for name in note.about}
    unseen = unidentified(drawn.on_real_line(), prior_on_real_line(law))
    notes += [*gate.notes, *(note for note in unseen if note.about[0] not in named)]
    return Posterior(
        law=law,
        noise=noise,
        runs=runs,
        verdict="passed" if gate.passed else "flagged",
        notes=unique_notes(notes),
        settings={
            **settings,
            "attempts": number,
            "final_warmup": attempt.warmup,
            "final_draws": attempt.draws,
            "target_accept": attempt.target_accept,
            "precision": attempt.precision,
        },
        versions=versions(),
        draws=drawn.in_table_units(law, table),
        sample_stats=drawn.statistics,
        log_likelihood=drawn.likelihood_by_row(table),
        constants=table.constants(law),
        groups=table.groups,
    )


def random_of(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one purpose."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def key_words_of(seed: int, number: int, chains: int) -> UInt32[np.ndarray, "chain 2"]:
    """The data of the random keys of the chains of attempt ``number``."""
    randoms = [random_of(seed, f"attempt {number} chain {c}") for c in range(chains)]
    return np.stack([random.integers(1 << 32, size=2, dtype=np.uint32) for random in randoms])


def _identity(runs: Runs, law: Law, noise: Noise, settings, constants) -> dict[str, object]:
    """What two fits must share for one to go on from the other's checkpoint."""
    return {
        "law": law.name,
        "law_options": {key: str(value) for key, value in law.options.items()},
        "coefficients": list(law.names),
        "noise": {"kind": noise.kind, "by": noise.by, "known": noise.known},
        "table": runs.fingerprint(),
        "settings": dict(settings),
        "constants": dict(constants),
        "versions": versions(),
    }


@lru_cache
def versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def _kept_chains(folder, resume: bool, identity, count: int, right):
    """What a checkpoint holds of each chain of each attempt, and notes; FitError where it is of another fit."""
    if folder is not None and resume and checkpoints.check_header(folder, identity):
        return checkpoints.read_chains(folder, count, right)
    if folder is not None:
        checkpoints.write_header(folder, identity)
    return [None] * count, ()


def _store(folder, kept, offset: int) -> ChainStore:
    """The checkpoint of one attempt; the chains of attempt n are numbered after those before it."""
    return ChainStore(
        lambda chain: kept[offset + chain],
        lambda chain, arrays: checkpoints.write_chain(folder, offset + chain, arrays),
    )


def _worthwhile_optima(mode: Mode, frame: Frame) -> np.ndarray:
    """(optimum, dim) the best optimum and every distinct one not much worse."""
    kept = [mode.q[0]]
    inverse = np.linalg.inv(frame.axes)
    for q, potential in zip(mode.q[1:], mode.potential[1:], strict=True):
        if potential - mode.potential[0] > NEARBY_OPTIMUM:
            break
        if all(np.abs(inverse @ (q - other)).max() > 1.0 for other in kept):
            kept.append(q)
    return np.stack(kept)


def _multimodal(mode: Mode, count: int) -> Note:
    return Note(
        "MULTIMODAL",
        f"the posterior has {count} optima within {NEARBY_OPTIMUM:.0f} nats of the best; "
        "each of them started a chain where there are enough chains",
    )


def escalated(number: int, attempt: Attempt, gate: Gate) -> Note:
    outcome = "passed the gate" if gate.passed else "did not pass the gate either"
    return Note(
        "ESCALATED",
        f"attempt {number}, with {attempt.warmup} warm-up transitions and {attempt.draws} draws a chain at "
        f"target acceptance {attempt.target_accept}, {outcome}",
    )


def _overdispersed(optima: np.ndarray, frame: Frame, chains: int, random: np.random.Generator) -> np.ndarray:
    """(chain, dim): starts spread about the optima, wider than the posterior."""
    spread = 1.5 * random.standard_normal((chains, optima.shape[1]))
    centres = np.stack([optima[c % len(optima)] for c in range(chains)])
    return centres + spread @ frame.axes.T
