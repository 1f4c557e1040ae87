"""The exceptions a caller can meet, and the coded notes that travel with a result.

Exceptions say what was given, what was expected and how to mend it. What is legal but worth
knowing (an unidentified coefficient, an extrapolation) is a :class:`Note`: it has a stable code
and is saved with the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m3bayes.inference.pooled import Pooled
    from m3bayes.inference.posterior import Posterior


class M3BayesError(Exception):
    """Base of every error that m3bayes raises on purpose."""


class RunTableError(M3BayesError, ValueError):
    """A table of runs that cannot be read; the message names row, column and value."""


class RecipeError(M3BayesError, ValueError):
    """A recipe or schedule that no training run could follow."""


class LawError(M3BayesError, ValueError):
    """A law that is not known, or that does not give finite losses."""


class FitError(M3BayesError, RuntimeError):
    """A fit that could not be started or finished."""


class NotConvergedError(FitError):
    """The gate was not passed; ``posterior`` holds the flagged result for a look at it."""

    def __init__(self, message: str, posterior: Posterior | Pooled):
        super().__init__(message)
        self.posterior = posterior


class PosteriorFileError(M3BayesError, ValueError):
    """A file that is not a posterior, is damaged, or belongs to another law, table or version."""


class InfeasibleError(M3BayesError, ValueError):
    """No recipe meets the request; the message names the constraints that exclude each other."""


@dataclass(frozen=True)
class Note:
    """A remark with a stable code, kept with the result it is about.

    ``code`` is in capitals with underscores (``UNIDENTIFIED``, ``EXTRAPOLATION``, ...), ``message``
    is one sentence for people, ``about`` names coefficients, columns, runs or recipes.
    """

    code: str
    message: str
    about: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def unique_notes(notes: Iterable[Note]) -> tuple[Note, ...]:
    """The notes in their order, each once."""
    return tuple(dict.fromkeys(notes))
