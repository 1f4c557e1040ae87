"""What callers give, looked at before the work: one line that says what it is and what was expected."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from m3bayes.errors import M3BayesError
from m3bayes.inference.noise import Noise
from m3bayes.inference.posterior import Posterior
from m3bayes.runs import Runs


def check_runs(runs: object) -> None:
    if not isinstance(runs, Runs):
        raise M3BayesError(
            f"runs is {_kind(runs)}; give a table of runs, as m3bayes.runs_from_frame makes it"
        )


def check_posterior(post: object) -> None:
    if not isinstance(post, Posterior):
        raise M3BayesError(
            f"post is {_kind(post)}; give a posterior, as m3bayes.fit and m3bayes.load give it"
        )


def check_noise(noise: object) -> None:
    if noise is not None and not isinstance(noise, Noise):
        raise M3BayesError(f"noise is {noise!r}; give one of m3bayes.noise, as noise.student_t()")


def check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise M3BayesError(f"{name} is {value!r}; give a whole number, at least {least}")


def is_share(value: object) -> bool:
    """Whether it is a number between 0 and 1."""
    return isinstance(value, float | int | np.floating | np.integer) and 0 < float(value) < 1


def check_share(name: str, value: object, example: str) -> None:
    if not is_share(value):
        raise M3BayesError(f"{name} is {value!r}; give a number between 0 and 1, {example}")


def check_functions(quantities: object) -> None:
    """{name: f}, as :data:`m3bayes.evaluation.observed.Quantities` are."""
    if not isinstance(quantities, Mapping) or not all(callable(f) for f in quantities.values()):
        raise M3BayesError(
            f"quantities is {quantities!r}; give functions by name, as {{'E': lambda c: c['E']}}"
        )


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
