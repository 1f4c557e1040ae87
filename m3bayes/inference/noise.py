"""Observation models: how a measured loss scatters about the law, on the log scale.

    log L_i = log L(x_i) + s_i t_i,   t_i ~ StudentT(nu) or Normal(0, 1)

s_i is one sigma, one sigma a group of runs, or, with known standard errors, sqrt(sigma^2 + (se_i / L_i)^2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Noise:
    """``kind`` of the scatter; ``by`` names the column whose values have a sigma each; ``known`` adds the
    table's ``loss_se`` to sigma in quadrature."""

    kind: Literal["student-t", "normal"] = "student-t"
    by: str | None = None
    known: bool = False


def student_t(by: str | None = None, known: bool = False) -> Noise:
    """Heavy-tailed scatter: a diverged or mistyped run does not drag the surface along."""
    return Noise("student-t", by, known)


def normal(by: str | None = None, known: bool = False) -> Noise:
    return Noise("normal", by, known)
