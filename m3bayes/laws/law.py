"""What a law is: coefficients with their priors, and the loss of ONE recipe.

A law is a pure function ``loss(c, x)`` of coefficients ``c`` and a recipe ``x`` (both mappings from a
name to a scalar) with a tuple of :class:`Coefficient`. Callers ``vmap`` it. Nothing is registered: a
user's law is a function, a tuple of coefficients and :func:`law` or :func:`additive_law`.

The recipe's columns are those of the run table: ``params`` (N), ``target_tokens`` (U), ``epochs`` (k),
``target_ratio`` (r), ``final_ratio`` (r_f), plus whatever else the law declares.

Priors are stated for *reference-scaled* coefficients, so that they do not depend on units: a
coefficient A with ``of_loss=True`` and ``at={"N": "-alpha"}`` has its prior on ``A N0^-alpha / L0``,
with N0 the geometric mean of N over the runs and L0 their median loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from m3bayes.errors import LawError

Coefficients = Mapping[str, ArrayLike]
Columns = Mapping[str, ArrayLike]
Shapes = Callable[[Coefficients, Columns], Mapping[str, Array]]

# What a law without r takes for its data: target tokens seen, or all tokens.
Tokens = Literal["target", "all"]

RECIPE_COLUMNS = ("params", "target_tokens", "epochs", "target_ratio", "final_ratio")


@dataclass(frozen=True)
class Coefficient:
    """One coefficient of a law.

    ``prior``     of the reference-scaled coefficient (see the module's text)
    ``unit``      unit of the coefficient itself, for people
    ``of_loss``   its unit has the loss in it (E, A, B, P): the prior is on its ratio to the median loss
    ``at``        powers of reference quantities in its unit, as ``{quantity: signed exponent's name}``
    ``off``       the value that switches its term off, None where nothing does
    ``owner``     the coefficient it is meaningless without (``delta`` without ``P``)
    ``repeated``  says what repeating text does: groups of runs share it unless a pooled fit is told otherwise
    """

    name: str
    prior: dist.Distribution
    unit: str = "1"
    of_loss: bool = False
    at: Mapping[str, str] = field(default_factory=dict)
    off: float | None = None
    owner: str | None = None
    meaning: str = ""
    repeated: bool = False


@dataclass(frozen=True)
class Reference:
    """A reference quantity: ``log_value(x)`` of one recipe, averaged over the runs where it is not NaN.

    ``params`` and ``tokens`` are the powers of the units of N and U in it.
    """

    log_value: Callable[[Columns], Array]
    params: int = 0
    tokens: int = 0


def power(base: ArrayLike, exponent: ArrayLike) -> Array:
    """base^exponent for base > 0: simpler derivatives than the general power's, so faster to compile."""
    return jnp.exp(exponent * jnp.log(base))


def target_tokens_seen(x: Columns) -> Array:
    """T = k U."""
    return jnp.asarray(x["epochs"]) * x["target_tokens"]


def tokens_seen(x: Columns) -> Array:
    """D = T / r."""
    return target_tokens_seen(x) / x["target_ratio"]


def source_tokens_seen(x: Columns) -> Array:
    """S = D - T, exactly 0 at r = 1."""
    r = jnp.asarray(x["target_ratio"])
    return target_tokens_seen(x) * (1 - r) / r


def data_seen(tokens: str) -> tuple[Callable[[Columns], Array], str]:
    """The data D of a law without r, and its reference quantity: T for ``"target"``, T / r for ``"all"``.

    Raises LawError for anything else.
    """
    if tokens not in ("target", "all"):
        raise LawError(f"tokens is {tokens!r}; expected 'target' (T = k U) or 'all' (D = T / r)")
    return (target_tokens_seen, "T") if tokens == "target" else (tokens_seen, "D")


def _repeated(x: Columns, value: Array) -> Array:
    return jnp.where(jnp.asarray(x["epochs"]) > 1, value, jnp.nan)


# Available to every law's ``at``; a law may replace or add some.
REFERENCES: Mapping[str, Reference] = MappingProxyType(
    {
        "N": Reference(lambda x: jnp.log(x["params"]), params=1),
        "U": Reference(lambda x: jnp.log(x["target_tokens"]), tokens=1),
        "T": Reference(lambda x: jnp.log(target_tokens_seen(x)), tokens=1),
        "D": Reference(lambda x: jnp.log(tokens_seen(x)), tokens=1),
        # over runs that repeat: extra epochs, and parameters a unique token
        "k": Reference(lambda x: _repeated(x, jnp.log(jnp.maximum(jnp.asarray(x["epochs"]) - 1, 1e-12)))),
        "v": Reference(
            lambda x: _repeated(x, jnp.log(x["params"]) - jnp.log(x["target_tokens"])),
            params=1,
            tokens=-1,
        ),
    }
)


@dataclass(frozen=True, eq=False)
class Law:
    """A loss surface. Build one with :func:`law` or :func:`additive_law`.

    ``loss``      (c, x) -> loss of one recipe, in the unit of the table's losses; c in table units
    ``log_shapes``  for additive laws (c, x) -> {scale coefficient: log of its term divided by it}, -inf where
                  the term is absent, c without the scales. None for laws of another form.
    ``columns``   the columns of a run it reads
    ``equivariant``  a change of the units of N, U and the loss is a change of coefficients
    ``options``   what the constructor was given, for files: ``laws.named(name, **options)`` is this law
    """

    name: str
    coefficients: tuple[Coefficient, ...]
    loss: Callable[[Coefficients, Columns], Array]
    log_shapes: Shapes | None = None
    columns: tuple[str, ...] = RECIPE_COLUMNS
    references: Mapping[str, Reference] = REFERENCES
    equivariant: bool = True
    options: Mapping[str, object] = field(default_factory=dict)
    source: str = ""
    formula: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.coefficients)

    def __getitem__(self, name: str) -> Coefficient:
        for coefficient in self.coefficients:
            if coefficient.name == name:
                return coefficient
        raise LawError(f"law {self.name} has no coefficient {name!r}; it has {', '.join(self.names)}")

    def log_loss(self, c: Coefficients, x: Columns) -> Array:
        return jnp.log(self.loss(c, x))

    def __repr__(self) -> str:
        return f"Law({self.name}: {', '.join(self.names)})"


def law(
    name: str,
    loss: Callable[[Coefficients, Columns], Array],
    coefficients: Sequence[Coefficient],
    *,
    columns: tuple[str, ...] = RECIPE_COLUMNS,
    references: Mapping[str, Reference] = MappingProxyType({}),
    equivariant: bool = True,
    options: Mapping[str, object] = MappingProxyType({}),
    source: str = "",
    formula: str = "",
) -> Law:
    """A law of any form. Raises LawError when names repeat or ``at`` names what is not there."""
    result = Law(
        name=name,
        coefficients=tuple(coefficients),
        loss=loss,
        columns=columns,
        references={**REFERENCES, **references},
        equivariant=equivariant,
        options=dict(options),
        source=source,
        formula=formula,
    )
    _check(result)
    return result


def additive_law(
    name: str,
    shapes: Shapes,
    coefficients: Sequence[Coefficient],
    *,
    logs: bool = False,
    **details,
) -> Law:
    """A law that is a sum of terms, L = sum_j scale_j * shape_j(c, x).

    ``shapes`` gives ``{scale's name: shape}``, or with ``logs=True`` the logs of the shapes (-inf where a term
    is absent), and must not read the scales themselves. Such laws are fitted in coordinates where the size of
    each term on the runs is a coordinate of its own, which is what makes weakly identified terms sampleable.
    Logs spare the sampler an exponential and a logarithm a term. ``details`` as for :func:`law`.
    """

    def loss(c: Coefficients, x: Columns) -> Array:
        terms = shapes(c, x).items()
        return sum((jnp.asarray(c[n]) * (jnp.exp(v) if logs else v) for n, v in terms), start=jnp.zeros(()))

    def log_shapes(c: Coefficients, x: Columns) -> Mapping[str, Array]:
        return {name: _log(jnp.asarray(shape)) for name, shape in shapes(c, x).items()}

    result = replace(law(name, loss, coefficients, **details), log_shapes=shapes if logs else log_shapes)
    _check_shapes(result)
    return result


def _log(shape: Array) -> Array:
    """log, -inf at 0, where it has the gradient 0."""
    present = shape > 0
    return jnp.where(present, jnp.log(jnp.where(present, shape, 1.0)), -jnp.inf)


def without(full: Law, names: Sequence[str]) -> Law:
    """The nested law without ``names``: each is held at the value that switches it off.

    Coefficients that mean nothing without a dropped one go with it. Raises LawError where a
    coefficient has no value that switches it off.
    """
    if not names:
        return full
    for name in names:
        if full[name].off is None:
            able = [c.name for c in full.coefficients if c.off is not None]
            raise LawError(
                f"{name} cannot be dropped from {full.name}: no value switches it off; "
                f"these can be: {', '.join(able) or 'none'}"
            )
    gone = {name: full[name] for name in names}
    while orphans := [c for c in full.coefficients if c.owner in gone and c.name not in gone]:
        gone |= {c.name: c for c in orphans}
    # an owned coefficient's value does not matter once its owner is off; 1 keeps powers finite
    held = {n: float(c.off) if c.off is not None and n in names else 1.0 for n, c in gone.items()}
    inner_loss, inner_shapes = full.loss, full.log_shapes

    def loss(c: Coefficients, x: Columns) -> Array:
        return inner_loss({**held, **c}, x)

    def log_shapes(c: Coefficients, x: Columns) -> Mapping[str, Array]:
        assert inner_shapes is not None
        all_shapes = inner_shapes({**held, **c}, x)
        return {name: shape for name, shape in all_shapes.items() if name not in gone}

    kept = (c for c in full.coefficients if c.name not in gone)
    return replace(
        full,
        coefficients=tuple(
            replace(c, at={q: power for q, power in c.at.items() if power.lstrip("-") not in gone})
            for c in kept
        ),
        loss=loss,
        log_shapes=None if inner_shapes is None else log_shapes,
        options={**full.options, "drop": (*_dropped(full), *names)},
    )


def _dropped(full: Law) -> tuple[str, ...]:
    return tuple(full.options.get("drop", ()))  # type: ignore[arg-type]


def _check(candidate: Law) -> None:
    names = candidate.names
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        raise LawError(f"law {candidate.name} declares {', '.join(repeated)} more than once")
    for coefficient in candidate.coefficients:
        if coefficient.owner not in (None, *names):
            raise LawError(
                f"law {candidate.name}: the owner of {coefficient.name} is {coefficient.owner!r}, "
                f"but the law has no such coefficient; it has {', '.join(names)}"
            )
        for quantity, power in coefficient.at.items():
            if quantity not in candidate.references:
                raise LawError(
                    f"law {candidate.name}: {coefficient.name} is scaled at {quantity!r}, which is no "
                    f"reference quantity; known are {', '.join(candidate.references)}"
                )
            if power.lstrip("-") not in names:
                raise LawError(
                    f"law {candidate.name}: {coefficient.name} is scaled by {quantity}^({power}), "
                    f"but the law has no coefficient {power.lstrip('-')!r}"
                )


def _check_shapes(candidate: Law) -> None:
    """LawError unless the shapes are of scales the law has, and read only its other coefficients and columns."""
    assert candidate.log_shapes is not None
    x = dict.fromkeys(candidate.columns, 1.0)
    c = dict.fromkeys(candidate.names, 1.0)
    try:
        scales = tuple(jax.eval_shape(candidate.log_shapes, c, x))
        missing = [name for name in scales if name not in c]
        if missing:
            raise LawError(
                f"law {candidate.name} has a shape for {missing[0]!r}, but no coefficient of that name"
            )
        jax.eval_shape(candidate.log_shapes, {name: 1.0 for name in c if name not in scales}, x)
    except KeyError as error:
        raise LawError(
            f"law {candidate.name}: its shapes read {error}, which is neither one of its columns "
            f"({', '.join(x)}) nor one of its coefficients that are not scales"
        ) from error
