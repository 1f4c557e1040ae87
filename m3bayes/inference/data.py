"""Runs in canonical form: what the engine sees, and the way back to the table's units.

Rounding of 1e-16 in the input changes every draw of a chain. So that neither the order of the rows nor
the units of N and U matter, inputs are made canonical: N and U are divided by their geometric means and
their logs rounded to 1e-9, losses are divided by their median, rows are sorted, and the table is padded
with weightless rows to a bucket of sizes so that compiled code is reused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from m3bayes.errors import LawError, M3BayesError, RunTableError
from m3bayes.inference.noise import Noise
from m3bayes.laws.atlas import sources_of, tokens_of, unique_tokens_of
from m3bayes.laws.law import Law
from m3bayes.runs import Runs
from m3bayes.table_cells import as_number, show
from m3bayes.table_checks import TOKENS_TOLERANCE, VARIABLES, Place, refuse
from m3bayes.table_file import first_line

DECIMALS = 9
SMALLEST_BUCKET = 32


@dataclass(frozen=True)
class Canonical:
    """One table in canonical form.

    ``arrays``  what compiled functions take: ``x`` {column: (padded,)}, ``y`` log of loss / median loss,
                ``weight`` (0 for padding), ``relative_se``, ``group`` (index), ``reference`` {name: log value}
    ``order``   position in the table of each canonical row, padding left out
    ``groups``  values of the noise's column
    ``scale``   {"params", "tokens", "loss"}: table value of the canonical unit
    """

    arrays: Mapping[str, Any]
    order: Int[np.ndarray, " run"]
    groups: tuple[str, ...]
    scale: Mapping[str, float]

    def constants(self, law: Law) -> dict[str, float]:
        """Reference quantities in the table's units, by name; ``L`` is the median loss."""
        reference = self.arrays["reference"]
        constants = {"L": self.scale["loss"]}
        for name, log_value in reference.items():
            constants[name] = float(np.exp(log_value) * _unit(law, name, self.scale))
        return constants


@lru_cache(maxsize=32)
def _check_formula(law: Law) -> None:
    """LawError unless the law's function gives one real number; nothing is computed or compiled for it."""
    reads = f"coefficients {', '.join(law.names)} and columns {', '.join(law.columns)}"
    try:
        with jax.enable_x64(True):
            number = jax.ShapeDtypeStruct((), float)
            found = jax.eval_shape(
                law.loss, dict.fromkeys(law.names, number), dict.fromkeys(law.columns, number)
            )
    except M3BayesError:
        raise
    except Exception as error:  # whatever a law of the user's raises
        raise LawError(
            f"law {law.name} cannot be evaluated ({type(error).__name__}: {first_line(error)}); "
            f"expected a loss made with jax.numpy from scalar {reads}"
        ) from error
    if not isinstance(found, jax.ShapeDtypeStruct) or found.shape or found.dtype.kind not in "fiu":
        given = (
            f"{found.dtype} {found.shape}"
            if isinstance(found, jax.ShapeDtypeStruct)
            else type(found).__name__
        )
        raise LawError(
            f"law {law.name} gives {given} for one recipe, expected one real number from scalar {reads}"
        )


def bucket(n: int) -> int:
    """The padded size of a table of n rows: 32, 48, 64, 96, 128, ... (powers of two and three halves of them)."""
    size = SMALLEST_BUCKET
    while size < n:
        power_of_two = size & (size - 1) == 0
        size = size * 3 // 2 if power_of_two else 1 << size.bit_length()
    return size


def canonical(runs: Runs, law: Law, noise: Noise, constants: Mapping[str, float] | None = None) -> Canonical:
    """Bring runs into canonical form for a law.

    ``constants`` are reference quantities in the table's units (as :meth:`Canonical.constants` gives them),
    where the prior is that of another table; by default they are taken from these runs.
    Raises RunTableError when the table lacks a column that the law or the noise reads, LawError where the law
    does not give one number for one recipe.
    """
    _check_formula(law)
    for name in (*law.columns, *((noise.by,) if noise.by else ()), *(("loss_se",) if noise.known else ())):
        if name not in runs.columns and name != "first_ratio":  # a column that is not there is blank
            why = f"law {law.name}" if name in law.columns else "the noise"
            raise RunTableError(
                f"{why} reads column {name!r}, which {runs.name} does not have; it has {', '.join(runs.columns)}"
            )
    scale = {"params": 1.0, "tokens": 1.0, "loss": 1.0}
    if not law.equivariant and not runs.unit_params == runs.unit_tokens == 1:
        raise RunTableError(
            f"law {law.name} has its coefficients in parameters and tokens, {runs.name} is in units of "
            f"{runs.unit_params:g} and {runs.unit_tokens:g}; give the table in parameters and tokens"
        )
    if law.equivariant:
        scale = {
            "params": _geometric_mean(runs["params"]),
            "tokens": _geometric_mean(runs["target_tokens"]),
            "loss": float(np.median(runs["loss"])) if constants is None else constants["L"],
        }
    _check_columns(runs, law)
    blank = np.full(len(runs), np.nan)
    x = {
        name: _in_units(name, np.asarray(runs.columns.get(name, blank), float), scale) for name in law.columns
    }
    y = np.log(runs["loss"]) - np.log(scale["loss"])
    weight = runs["weight"] if "weight" in runs.columns else np.ones(len(runs))
    weight = np.where(np.isnan(weight), 1.0, weight)
    relative_se = np.nan_to_num(runs["loss_se"]) / runs["loss"] if noise.known else np.zeros(len(runs))
    groups, group = _groups(runs, noise)

    keys = (relative_se, weight, group, *(x[name] for name in reversed(law.columns)), y)
    order = np.lexsort(keys)
    padded = bucket(len(runs))

    def pad(values: np.ndarray, filler: float | int | None = None) -> np.ndarray:
        values = values[order]
        last = values[-1] if filler is None else filler
        return np.concatenate([values, np.full(padded - len(values), last, values.dtype)])

    arrays = {
        "x": {name: pad(values) for name, values in x.items()},
        "y": pad(y),
        "weight": pad(weight.astype(float), 0.0),
        "relative_se": pad(relative_se),
        "group": pad(group),
    }
    if constants is None:
        arrays["reference"] = _references(
            runs, law, {name: values[order] for name, values in x.items()}, order
        )
    else:
        arrays["reference"] = {
            name: round(float(np.log(constants[name] / _unit(law, name, scale))), DECIMALS)
            for name in _quantities(law)
        }
    return Canonical(arrays, order, groups, scale)


def unscale(
    law: Law, scaled: Mapping[str, ArrayLike], reference: Mapping[str, ArrayLike]
) -> dict[str, jax.Array]:
    """Canonical coefficients from reference-scaled ones (``reference`` holds logs)."""
    factor = {
        c.name: jnp.exp(-log_at_reference(law, c.name, scaled, reference)) for c in law.coefficients if c.at
    }
    return {name: jnp.asarray(scaled[name]) * factor.get(name, 1.0) for name in law.names}


def log_at_reference(
    law: Law, name: str, exponents: Mapping[str, ArrayLike], reference: Mapping[str, ArrayLike]
) -> jax.Array:
    """Log of what multiplies a coefficient in its reference-scaled form, product of ref^exponent."""
    total = jnp.zeros(())
    for quantity, power in law[name].at.items():
        sign = -1.0 if power.startswith("-") else 1.0
        total = total + sign * exponents[power.lstrip("-")] * reference[quantity]
    return total


def to_table_units(law: Law, canonical_draws: Mapping[str, np.ndarray], scale: Mapping[str, float]):
    """Coefficients in the table's units from canonical ones, any shape."""
    result = {}
    for c in law.coefficients:
        values = canonical_draws[c.name]
        log_factor = np.zeros_like(values)
        for quantity, power in c.at.items():
            sign = -1.0 if power.startswith("-") else 1.0
            log_unit = np.log(_unit(law, quantity, scale))
            log_factor = log_factor - sign * canonical_draws[power.lstrip("-")] * log_unit
        if c.of_loss:
            log_factor = log_factor + np.log(scale["loss"])
        result[c.name] = values * np.exp(log_factor)
    return result


def _quantities(law: Law) -> tuple[str, ...]:
    """The reference quantities that the law's coefficients are scaled at."""
    return tuple(sorted({quantity for c in law.coefficients for quantity in c.at}))


def _unit(law: Law, quantity: str, scale: Mapping[str, float]) -> float:
    """The canonical unit of a reference quantity, in the table's units."""
    of = law.references[quantity]
    return scale["params"] ** of.params * scale["tokens"] ** of.tokens


def _geometric_mean(values: Float[np.ndarray, " run"]) -> float:
    return float(np.exp(np.mean(np.sort(np.log(values)))))


def _in_units(name: str, values: np.ndarray, scale: Mapping[str, float]) -> np.ndarray:
    # by convention a column named ...params or ...tokens is in that unit
    unit = next((scale[u] for u in ("params", "tokens") if name.endswith(u)), None)
    if unit is None:
        return values
    with np.errstate(divide="ignore"):
        return np.exp(np.round(np.log(values) - np.log(unit), DECIMALS))


def _groups(runs: Runs, noise: Noise) -> tuple[tuple[str, ...], np.ndarray]:
    if noise.by is None:
        return (), np.zeros(len(runs), int)
    labels = np.array([str(v) for v in runs[noise.by]])
    names, index = np.unique(labels, return_inverse=True)
    return tuple(str(n) for n in names), index.astype(int)


def _check_columns(runs: Runs, law: Law) -> None:
    """RunTableError for the first cell of the law's own columns that is text, blank, infinite, or tokens below 0."""

    def place(row: int, column: str) -> str:
        return f"{runs.name}: {runs.names[row]}, column {column}"

    for name in _own_columns(law):
        cells = runs[name]
        values = np.array([as_number(cell) for cell in cells])
        tokens = name.endswith(("params", "tokens"))
        expected = f"a finite number{' of 0 or more' * tokens}, since law {law.name} reads it"
        refuse(~np.isfinite(values) | (tokens & (values < 0)), cells, name, expected, place, RunTableError)
    if law.options.get("sources"):
        _check_sources(runs, law, place)


def _check_sources(runs: Runs, law: Law, place: Place) -> None:
    """RunTableError where the named sources have more tokens than were seen of source text, or none that differ."""
    named = {source: np.asarray(runs[tokens_of(source)], float) for source in sources_of(law)}
    for source, seen in named.items():
        column = unique_tokens_of(source)
        unique = np.asarray(runs[column], float)
        expected = f"a number above 0, since {tokens_of(source)} is"
        refuse((seen > 0) & (unique == 0), unique, column, expected, place, RunTableError)
    total = np.sum(list(named.values()), axis=0)
    refuse(
        total > runs.source_tokens * (1 + TOKENS_TOLERANCE),
        total,
        " + ".join(map(tokens_of, named)),
        lambda row: (
            f"at most the source tokens seen, epochs * target_tokens * (1 / target_ratio - 1) = "
            f"{runs.source_tokens[row]:.6g}"
        ),
        place,
        RunTableError,
    )


def _own_columns(law: Law) -> list[str]:
    """Columns that the law reads and other laws need not have; those were checked when the table was read."""
    return [name for name in law.columns if name not in VARIABLES]


def _references(
    runs: Runs, law: Law, x: Mapping[str, np.ndarray], order: Int[np.ndarray, " run"]
) -> dict[str, float]:
    """Mean log of each reference quantity the law uses, 0 where no run has it; ``x`` are canonical rows."""
    with jax.enable_x64(True):
        values = {name: np.asarray(logs) for name, logs in _log_values(law)(dict(x)).items()}
    result = {}
    for name, logs in values.items():
        finite = logs[~np.isnan(logs)]
        if np.isinf(finite).any():
            _refuse_reference(runs, law, name, int(order[np.isinf(logs)].min()))
        result[name] = round(float(finite.mean()), DECIMALS) if finite.size else 0.0
    return result


def _refuse_reference(runs: Runs, law: Law, name: str, row: int) -> None:
    """RunTableError naming the cells of the law's own columns in a row where a reference quantity is not finite."""
    columns = _own_columns(law) or list(law.columns)
    given = ", ".join(f"{column} {show(runs[column][row])}" for column in columns)
    raise RunTableError(
        f"{runs.name}: {runs.names[row]}: {given}, expected values at which {name}, which law {law.name} is scaled at, "
        "is above 0 and finite"
    )


@lru_cache(maxsize=32)
def _log_values(law: Law):
    """{column: (run,)} -> {reference quantity: (run,)}"""
    return jax.jit(lambda x: {q: jax.vmap(law.references[q].log_value)(x) for q in _quantities(law)})
