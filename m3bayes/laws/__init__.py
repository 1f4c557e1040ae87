"""Loss surfaces: pure functions of one recipe and its coefficients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, get_args, get_origin, get_type_hints

from m3bayes.errors import LawError
from m3bayes.laws.atlas import atlas
from m3bayes.laws.chinchilla import chinchilla, chinchilla_optimum
from m3bayes.laws.continued import continued
from m3bayes.laws.data_constrained import data_constrained
from m3bayes.laws.dcpt import dcpt
from m3bayes.laws.farseer import farseer
from m3bayes.laws.law import Coefficient, Law, Reference, additive_law, law, without
from m3bayes.laws.m3 import m3
from m3bayes.laws.multilingual import multilingual
from m3bayes.laws.practical import practical
from m3bayes.laws.prescriptive import prescriptive
from m3bayes.laws.published import PUBLISHED, Constant, Published, published
from m3bayes.laws.staged import staged
from m3bayes.laws.target_ratio import target_ratio

LAWS: Mapping[str, Callable[..., Law]] = MappingProxyType(
    {
        "m3": m3,
        "chinchilla": chinchilla,
        "data_constrained": data_constrained,
        "target_ratio": target_ratio,
        "atlas": atlas,
        "prescriptive": prescriptive,
        "practical": practical,
        "farseer": farseer,
        "dcpt": dcpt,
        "staged": staged,
        "multilingual": multilingual,
        "continued": continued,
    }
)


def named(name: str, **options: object) -> Law:
    """A law by its name and its constructor's options, which may come from a file.

    Raises LawError for an unknown name, an option the law does not take, or a value it cannot have.
    """
    if name not in LAWS:
        raise LawError(f"no law is called {name!r}; known are {', '.join(LAWS)}")
    kinds = {option: kind for option, kind in get_type_hints(LAWS[name]).items() if option != "return"}
    for option, value in options.items():
        if option not in kinds:
            raise LawError(f"law {name} has no option {option!r}; it takes {', '.join(kinds)}")
        allowed = _values(kinds[option])
        if allowed and value not in allowed:
            raise LawError(
                f"law {name}: option {option} is {value!r}; expected {' or '.join(map(repr, allowed))}"
            )
    for option in ("drop", "sources"):
        if isinstance(names := options.get(option), str | list):
            options[option] = (names,) if isinstance(names, str) else tuple(names)
    return LAWS[name](**options)


def all_laws() -> tuple[Law, ...]:
    """Every law with its default options, M3 first."""
    return tuple(constructor() for constructor in LAWS.values())


def _values(kind: object) -> tuple[object, ...]:
    """The values an option of this type can have, () where they cannot be listed."""
    if kind is bool:
        return (False, True)
    return get_args(kind) if get_origin(kind) is Literal else ()


__all__ = [
    "LAWS",
    "PUBLISHED",
    "Coefficient",
    "Constant",
    "Law",
    "Published",
    "Reference",
    "additive_law",
    "all_laws",
    "atlas",
    "chinchilla",
    "chinchilla_optimum",
    "continued",
    "data_constrained",
    "dcpt",
    "farseer",
    "law",
    "m3",
    "multilingual",
    "named",
    "practical",
    "prescriptive",
    "published",
    "staged",
    "target_ratio",
    "without",
]
