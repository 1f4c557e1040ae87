"""The laws that are compared: their names, which of them a table can feed, and their fits."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool

from m3bayes.errors import LawError, Note, RunTableError
from m3bayes.inference import gate
from m3bayes.inference.data import canonical
from m3bayes.inference.identifiability import check_enough_runs
from m3bayes.inference.noise import Noise
from m3bayes.inference.posterior import Posterior
from m3bayes.laws import all_laws
from m3bayes.laws.law import Law
from m3bayes.runs import Runs


def named_apart(laws: Law | Sequence[Law]) -> dict[str, Law]:
    """{name: law}, the name with the options that were given, as ``m3:drop=P``, and numbered where two agree.

    Raises LawError where there is none.
    """
    laws = (laws,) if isinstance(laws, Law | str) else tuple(laws)
    if not laws:
        raise LawError("no law given, expected at least one, as laws.m3()")
    for law in laws:
        if not isinstance(law, Law):
            raise LawError(f"law {law!r} is a {type(law).__name__}; give a law, as m3bayes.laws.named('m3')")
    result: dict[str, Law] = {}
    for law in laws:
        name = _with_options(law)
        same = sum(_with_options(other) == name for other in result.values())
        result[f"{name} #{same + 1}" if same else name] = law
    return result


def laws_for(runs: Runs, noise: Noise) -> tuple[Law, ...]:
    """The shipped laws that the table has columns, units and runs enough for. Raises LawError where none is."""
    found = []
    for law in all_laws():
        try:
            check_feeds(runs, {law.name: law}, noise)
            check_enough_runs(runs, law)
            found.append(law)
        except RunTableError:
            continue
    if not found:
        raise LawError(f"{runs.name} has too few runs for any of the laws, expected 5 or more")
    return tuple(found)


def check_feeds(runs: Runs, laws: dict[str, Law], noise: Noise) -> None:
    """Raise RunTableError where the table lacks a column that a law or the noise reads, or has other units."""
    with jax.enable_x64(True):
        for law in laws.values():
            canonical(runs, law, noise)


def counts(runs: Runs) -> Bool[np.ndarray, " run"]:
    """Which runs count: those whose weight is not 0."""
    return runs["weight"] != 0 if "weight" in runs.columns else np.ones(len(runs), bool)


def flagged_note(name: str, what: str, post: Posterior) -> Note:
    codes = ", ".join(note.code for note in post.notes if note.code in gate.CODES)
    return Note("FLAGGED", f"{name}, {what}: did not pass the gate ({codes}); read with care", (name,))


def failed_note(name: str, what: str, error: Exception) -> Note:
    return Note("FAILED", f"{name}, {what}: {error}", (name,))


def _with_options(law: Law) -> str:
    options = (f"{key}={_text(value)}" for key, value in law.options.items())
    return law.name if not law.options else f"{law.name}:{','.join(options)}"


def _text(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
