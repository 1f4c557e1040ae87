"""Published coefficients, as their authors state them, for N in parameters and D in tokens.

``chinchilla().loss(published("hoffmann").coefficients, x)`` is the loss they foretell for a recipe x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from m3bayes.errors import LawError


@dataclass(frozen=True)
class Constant:
    """One published number; ``interval`` is its 95 % interval where the authors give one."""

    value: float
    unit: str = "1"
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Published:
    """One published fit.

    ``constants``   by the law's own coefficient names, where it is one of the laws here
    ``law``, ``options``  ``laws.named(law, **options)`` is what they belong to; None where they are about
                    something else than the loss of one recipe
    ``loss_unit``   unit of the losses fitted
    ``fitted_in``   {column: (least, most)} over the runs behind it, empty where those are not public
    """

    name: str
    constants: Mapping[str, Constant]
    source: str
    law: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    loss_unit: str = "nats per token"
    fitted_in: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def coefficients(self) -> dict[str, float]:
        """{name: value}"""
        return {name: constant.value for name, constant in self.constants.items()}


def published(name: str) -> Published:
    """A published fit by name. Raises LawError, with the names there are."""
    if name not in PUBLISHED:
        raise LawError(f"no published fit is called {name!r}; known are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


_FITS = (
    Published(
        "hoffmann",
        {
            "E": Constant(1.69337, "loss"),
            "A": Constant(406.40, "loss params^alpha"),
            "B": Constant(410.72, "loss tokens^beta"),
            "alpha": Constant(0.33917084),
            "beta": Constant(0.2849083),
        },
        source="Hoffmann et al. 2022, arXiv 2203.15556, third approach, unrounded",
        law="chinchilla",
    ),
    Published(
        "besiroglu",
        {
            "E": Constant(1.81686, "loss", (1.769, 1.871)),
            "A": Constant(482.00572, "loss params^alpha", (285.2, 743.6)),
            "B": Constant(2085.43420, "loss tokens^beta", (1042.4, 5810.3)),
            "alpha": Constant(0.34781, interval=(0.317, 0.373)),
            "beta": Constant(0.36585, interval=(0.331, 0.415)),
        },
        source="Besiroglu et al. 2024, arXiv 2404.10102, replication of Hoffmann et al.",
        law="chinchilla",
    ),
    Published(
        "muennighoff",
        {
            "E": Constant(math.exp(0.6254804), "loss"),
            "A": Constant(math.exp(6.255414), "loss params^alpha"),
            "B": Constant(math.exp(7.3049974), "loss tokens^beta"),
            "alpha": Constant(0.3526596),
            "beta": Constant(0.3526596),
            "R_D": Constant(15.387756),
            "R_N": Constant(5.309743),
        },
        source="Muennighoff et al. 2023, arXiv 2305.16264, C4, the authors' code",
        law="data_constrained",
        fitted_in={"params": (7.1e6, 3.9e9), "target_tokens": (1e8, 1.74e11), "epochs": (1.0, 3000.0)},
    ),
    Published(
        "farseer",
        {
            "s": Constant(-0.062465473),
            "B": Constant(230.73437076),
            "A": Constant(-1.665630816),
            "S": Constant(0.1284880679, "log loss"),
            "Q": Constant(-1.544209554, "log loss"),
            "E": Constant(3.1333471988),
            "q": Constant(0.13),
            "b": Constant(-0.1729),
            "a": Constant(0.0459),
        },
        source="Li et al. 2025, arXiv 2506.10972",
        law="farseer",
        loss_unit="bits per character",
        fitted_in={"params": (9.96e7, 6.37e9), "target_tokens": (1e9, 5.12e11)},
    ),
    # K languages sampled alike: L = L_inf + A K^phi N^-alpha + B K^psi D_t^-beta; from K to rho K at equal
    # loss, size, all tokens and compute grow as rho to the three exponents
    Published(
        "atlas_multilinguality",
        {
            "phi": Constant(0.11),
            "psi": Constant(-0.04),
            "size_exponent": Constant(0.243),
            "tokens_exponent": Constant(0.728),
            "compute_exponent": Constant(0.97),
        },
        source="Longpre et al. 2026, arXiv 2510.22037",
    ),
    # training from scratch overtakes finetuning a multilingual checkpoint at C = scale N^exponent
    Published(
        "atlas_finetuning",
        {
            "scale": Constant(1113708.0, "FLOP params^-exponent"),
            "exponent": Constant(1.65),
        },
        source="Longpre et al. 2026, arXiv 2510.22037",
    ),
    # bilingual transfer score: mean over pairs of languages, and the monolingual tokens it is taken at
    Published(
        "atlas_transfer",
        {
            "same_script": Constant(-0.23),
            "other_script": Constant(-0.39),
            "monolingual_tokens": Constant(42e9, "tokens"),
        },
        source="Longpre et al. 2026, arXiv 2510.22037",
    ),
)

PUBLISHED: Mapping[str, Published] = MappingProxyType({fit.name: fit for fit in _FITS})
