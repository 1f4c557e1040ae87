"""What every table of runs or recipes must fulfil; the first cell that does not is named in the error.

| symbol | column | unit |
|---|---|---|
| N | params | the table's unit of parameters |
| U | target_tokens, unique tokens of the target text | the table's unit of tokens |
| k | epochs over U | - |
| r | target_ratio, target tokens seen / all tokens seen | - |
| r_f | final_ratio, the ratio in the last stage | - |
| r_1 | first_ratio, the ratio before the last stage; blank = 0 | - |
| T = k U, D = T / r | target tokens seen, all tokens seen | the table's unit of tokens |

A check gets columns as arrays and ``place(row, column)``, which words where a cell is.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from m3bayes.errors import M3BayesError, Note, RunTableError
from m3bayes.table_cells import how_to_mend, is_blank, show

RATIO_TOLERANCE = 1e-9  # ratios closer than this, relative, are one ratio (they are often computed)
TOKENS_TOLERANCE = 0.01  # how far a stated number of tokens may be from k U / r
FLOPS_TOLERANCE = 0.10  # how far logged FLOP may be from 6 N D without a note
# losses and their errors are squared and summed later, beyond these to infinity or to nothing
SMALLEST, LARGEST = 1e-100, 1e100
HEAVIEST = 1e12  # sums of log likelihoods that weigh more have no digits left for differences

REQUIRED = ("params", "target_tokens", "epochs", "target_ratio", "final_ratio")
RATIOS = ("target_ratio", "final_ratio")
NUMERIC = (*REQUIRED, "first_ratio", "loss", "loss_se", "weight", "lr", "weight_decay", "tokens", "flops")
LABELS = ("run", "language", "source")
VARIABLES = (*REQUIRED, "first_ratio")

Place = Callable[[int, str], str]
Problem = type[M3BayesError]

_SYMBOLS = {"n": "params", "u": "target_tokens", "d_t": "target_tokens", "k": "epochs", "r": "target_ratio"}
_SYMBOLS |= {"r_f": "final_ratio", "rf": "final_ratio", "r_1": "first_ratio", "l": "loss"}


def place_in_frame(frame: pd.DataFrame, name: str) -> Place:
    """Words for a place in a table; rows count from 1, an index called ``line`` is the line in the file."""
    lines = frame.index.to_numpy() if frame.index.name == "line" else None

    def place(row: int, column: str) -> str:
        line = "" if lines is None else f" (line {lines[row]})"
        return f"{name}: row {row + 1}{line}" + (f", column {column}" if column else "")

    return place


# ---- columns -----------------------------------------------------------------------------------


def cells_by_column(
    frame: pd.DataFrame, required: Sequence[str], name: str, error: Problem
) -> dict[str, pd.Series]:
    """The frame's columns by name, with the required ones; r and r_f are 1 where neither is given."""
    given = [" ".join(str(column).split()) for column in frame.columns]
    for column in given:
        if given.count(column) > 1:
            raise error(
                f"{name}: column {column!r} is there {given.count(column)} times, expected once; "
                "rename or remove the others"
            )
    if not any(column in given for column in RATIOS):
        required = [column for column in required if column not in RATIOS]
    missing = [column for column in required if column not in given]
    if missing:
        raise error(f"{name}: {_missing(missing, given)}")
    if len(frame) == 0:
        raise error(f"{name} has column names but no row, expected one row a run or recipe")
    cells = {column: frame.iloc[:, position].rename(column) for position, column in enumerate(given)}
    return cells | {c: pd.Series(1.0, index=frame.index, name=c) for c in RATIOS if c not in given}


def _missing(missing: Sequence[str], given: Sequence[str]) -> str:
    what = f"column{'s' * (len(missing) > 1)} {', '.join(missing)} missing"
    if len(missing) == 1 and missing[0] in RATIOS:
        other = RATIOS[1 - RATIOS.index(missing[0])]
        return (
            f"{what} though {other} is there; add {missing[0]} (equal to {other} for single-stage runs), "
            "or leave out both for runs on the target language alone"
        )
    meant = []
    for column in given:
        lower = column.lower().replace(" ", "_").replace("-", "_")
        close = _SYMBOLS.get(lower) or next(iter(difflib.get_close_matches(lower, missing, 1, 0.75)), None)
        if close in missing:
            meant.append(f"rename {column!r} to {close}?")
    hint = "; " + " ".join(meant) if meant else ""
    return f"{what}; it has {', '.join(given)[:200] or 'none'}{hint}"


# ---- values ------------------------------------------------------------------------------------


def refuse(
    bad: Bool[np.ndarray, " row"],
    values: Mapping[str, np.ndarray] | np.ndarray,
    column: str,
    expected: str | Callable[[int], str],
    place: Place,
    error: Problem,
) -> None:
    """Raise ``error`` for the first row that is ``bad``, naming place, value and what was expected."""
    rows = np.flatnonzero(bad)
    if not len(rows):
        return
    first = int(rows[0])
    cells = values[column] if isinstance(values, Mapping) else values
    wanted = expected if isinstance(expected, str) else expected(first)
    others = (
        f" (and {len(rows) - 1} more rows)" if len(rows) > 2 else " (and one more row)" * (len(rows) == 2)
    )
    raise error(f"{place(first, column)}: {show(cells[first])}{others}, expected {wanted}")


def check_readable(
    column: pd.Series, values: Float[np.ndarray, " row"], place: Place, error: Problem
) -> None:
    """Refuse cells whose ``values`` are NaN though they are not blank: what they hold is no number."""
    suspects = np.flatnonzero(np.isnan(values))
    cells = column.iloc[suspects].to_numpy(dtype=object)
    unread = np.array([not is_blank(cell) for cell in cells], dtype=bool)
    refuse(
        unread, cells, str(column.name), lambda i: "a number; " + how_to_mend(cells[i]),
        lambda i, name: place(int(suspects[i]), name), error,
    )  # fmt: skip


def check_recipe_columns(columns: Mapping[str, np.ndarray], place: Place, error: Problem) -> None:
    """N, U, k > 0; 0 < r, r_f <= 1; and r, r_f and r_1 of one schedule. Raises ``error``."""
    for column in ("params", "target_tokens", "epochs"):
        _check_positive(columns, column, place, error)
    for column in RATIOS:
        values = columns[column]
        refuse(~((values > 0) & (values <= 1)), columns, column, _ratio_expected(values), place, error)
    with np.errstate(over="ignore", under="ignore"):
        tokens = columns["epochs"] * columns["target_tokens"] / columns["target_ratio"]
        compute = 6 * columns["params"] * tokens
    countable = np.isfinite(compute) & (compute > 0) & (tokens > 0)
    expected = "numbers of parameters, tokens and epochs of which floating point can hold the product"
    refuse(~countable, columns, "epochs", expected, place, error)
    _check_stages(columns, place, error)


def _check_positive(columns: Mapping[str, np.ndarray], column: str, place: Place, error: Problem) -> None:
    values = columns[column]
    refuse(~(np.isfinite(values) & (values > 0)), columns, column, "a finite number above 0", place, error)


def _ratio_expected(values: np.ndarray, range_: str = "above 0 and at most 1") -> Callable[[int], str]:
    def expected(row: int) -> str:
        percent = f"; if it is in percent, divide by 100: {values[row] / 100:g}"
        return f"a ratio {range_}{percent if 2 <= values[row] <= 100 else ''}"

    return expected


def same_ratio(a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    """Whether two ratios are one ratio up to the rounding of their computation."""
    return np.asarray(np.abs(np.subtract(a, b)) <= RATIO_TOLERANCE * np.maximum(a, b))


def _check_stages(columns: Mapping[str, np.ndarray], place: Place, error: Problem) -> None:
    r, r_f = columns["target_ratio"], columns["final_ratio"]
    r_1 = columns.get("first_ratio", np.full(r.shape, np.nan))
    given = ~np.isnan(r_1)
    refuse(
        given & ~((r_1 >= 0) & (r_1 <= 1)),
        r_1,
        "first_ratio",
        _ratio_expected(r_1, "from 0 to 1"),
        place,
        error,
    )
    single = same_ratio(r, r_f)
    refuse(
        (r_f < r) & ~single & ~given, r_1, "first_ratio",
        lambda i: f"the ratio of the stages before the last, since final_ratio {r_f[i]:g} is below "
        f"target_ratio {r[i]:g}", place, error,
    )  # fmt: skip
    start = np.where(given, r_1, 0.0)
    refuse(
        given & single & ~same_ratio(start, r), r_1, "first_ratio",
        lambda i: f"{r[i]:g} or blank, since target_ratio and final_ratio are both {r[i]:g}: "
        "one stage alone", place, error,
    )  # fmt: skip
    refuse(
        ~single & same_ratio(start, r), r_1, "first_ratio",
        lambda i: f"a ratio on the other side of target_ratio {r[i]:g} than final_ratio {r_f[i]:g}: "
        "as it is, the last stage has no tokens", place, error,
    )  # fmt: skip
    between = (np.minimum(start, r_f) <= r) & (r <= np.maximum(start, r_f))
    refuse(
        ~single & ~between, r, "target_ratio",
        lambda i: f"the average of the stages, between first_ratio {start[i]:g} and final_ratio {r_f[i]:g}",
        place, error,
    )  # fmt: skip


def last_stage_share(
    r: Float[np.ndarray, "*row"], r_f: Float[np.ndarray, "*row"], r_1: Float[np.ndarray, "*row"]
) -> Float[np.ndarray, "*row"]:
    """Tokens of the last stage / all tokens, (r - r_1) / (r_f - r_1); 1 at one stage, a NaN r_1 is 0."""
    start = np.where(np.isnan(r_1), 0.0, r_1)
    single = same_ratio(r, r_f)
    return np.where(single, 1.0, (r - start) / np.where(single, 1.0, r_f - start))


def check_measurements(columns: Mapping[str, np.ndarray], place: Place) -> None:
    """loss > 0; loss_se > 0, weight >= 0, flops > 0 or blank; stated tokens within 1 % of k U / r."""
    loss = columns["loss"]
    good = np.isfinite(loss) & (loss > 0)
    expected = "a finite loss above 0; leave out runs without one"
    refuse(~good, columns, "loss", expected, place, RunTableError)
    held = (loss >= SMALLEST) & (loss <= LARGEST)
    expected = f"a loss from {SMALLEST:g} to {LARGEST:g}; count it in another unit"
    refuse(~held, columns, "loss", expected, place, RunTableError)
    optional = {
        "loss_se": (
            lambda v: (v > 0) & (v <= LARGEST * loss),
            f"a finite standard error above 0, at most {LARGEST:g} losses, or blank",
        ),
        "weight": (
            lambda v: (v >= 0) & (v <= HEAVIEST),
            f"a finite weight of 0 or more, at most {HEAVIEST:g}, or blank",
        ),
        "tokens": (lambda v: v > 0, "a finite number above 0, or blank"),
        "flops": (lambda v: v > 0, "a finite number above 0, or blank"),
        "lr": (lambda v: v >= 0, "a finite number of 0 or more, or blank"),
        "weight_decay": (lambda v: v >= 0, "a finite number of 0 or more, or blank"),
    }
    for column, (holds, expected) in optional.items():
        if column in columns:
            values = columns[column]
            fine = np.isnan(values) | (np.isfinite(values) & holds(values))
            refuse(~fine, columns, column, expected, place, RunTableError)
    if "weight" in columns and not (columns["weight"] != 0).any():
        raise RunTableError(f"{place(0, 'weight')}: 0, as in every row, expected some runs to count")
    if "tokens" in columns:
        tokens = columns["epochs"] * columns["target_tokens"] / columns["target_ratio"]
        with np.errstate(over="ignore"):
            off = np.abs(columns["tokens"] / tokens - 1) > TOKENS_TOLERANCE  # False where blank
        refuse(
            off, columns, "tokens",
            lambda i: f"epochs * target_tokens / target_ratio = {tokens[i]:.6g} "
            f"within {TOKENS_TOLERANCE:.0%}; correct one of the four", place, RunTableError,
        )  # fmt: skip


def check_run_names(columns: Mapping[str, np.ndarray], place: Place) -> None:
    """No name twice; blank names are legal."""
    seen: dict[str, int] = {}
    for row, name in enumerate(columns.get("run", ())):
        if name in seen:
            raise RunTableError(
                f"{place(row, 'run')}: {show(name)} is also the run of {place(seen[name], '')}, "
                "expected a name of its own (repeated recipes are legal, repeated names are not)"
            )
        if name:
            seen[name] = row


# ---- notes -------------------------------------------------------------------------------------


def table_notes(
    columns: Mapping[str, np.ndarray], unit_params: float, unit_tokens: float
) -> tuple[Note, ...]:
    """What is legal but worth knowing: FLOPS_DIFFER, MIXED_LOSS_UNITS, UNITS_SUSPECT."""
    notes = (
        _flops_note(columns, unit_params, unit_tokens),
        _loss_units_note(columns),
        _units_note(columns, unit_params, unit_tokens),
    )
    return tuple(note for note in notes if note is not None)


def _flops_note(columns: Mapping[str, np.ndarray], unit_params: float, unit_tokens: float) -> Note | None:
    if "flops" not in columns:
        return None
    tokens = columns["epochs"] * columns["target_tokens"] / columns["target_ratio"]
    with np.errstate(over="ignore"):
        ratio = columns["flops"] / (6.0 * columns["params"] * unit_params * tokens * unit_tokens)
    differ = np.abs(ratio - 1) > FLOPS_TOLERANCE
    if not differ.any():
        return None
    return Note(
        "FLOPS_DIFFER",
        f"logged flops are more than {FLOPS_TOLERANCE:.0%} off 6 N D in {differ.sum()} of {len(ratio)} "
        f"runs (flops / 6ND: median {np.median(ratio[differ]):.3g}, {ratio[differ].min():.3g} to "
        f"{ratio[differ].max():.3g}); budgets count 6 N D unless they are given cost fitted",
        ("flops",),
    )


def _loss_units_note(columns: Mapping[str, np.ndarray]) -> Note | None:
    """Nats and bits are a factor ln 2 apart; two languages' losses seldom differ by more than 2."""
    if "language" not in columns:
        return None
    language, log_loss = columns["language"], np.log(columns["loss"])
    names, counts = np.unique(language.astype(str), return_counts=True)
    medians = {str(name): float(np.median(log_loss[language == name])) for name in names}
    reference = str(names[np.argmax(counts)])
    factors = {name: math.exp(median - medians[reference]) for name, median in medians.items()}
    bits = -math.log(math.log(2))
    odd = [
        name for name, factor in factors.items()
        if abs(math.log(factor)) > math.log(2) or abs(abs(math.log(factor)) - bits) < 0.03
    ]  # fmt: skip
    if not odd:
        return None
    listed = ", ".join(f"{name or '(blank)'} {factors[name]:.3g}" for name in odd)
    return Note(
        "MIXED_LOSS_UNITS",
        f"median losses relative to language {reference or '(blank)'}: {listed}; nats and bits differ by "
        "a factor of 0.693: check that all losses are in one unit",
        (reference, *odd),
    )


def _units_note(columns: Mapping[str, np.ndarray], unit_params: float, unit_tokens: float) -> Note | None:
    units = {"params": ("unit_params", unit_params), "target_tokens": ("unit_tokens", unit_tokens)}
    small = [column for column, (_, unit) in units.items() if (columns[column] * unit < 1).any()]
    if not small:
        return None
    said = " and ".join(
        f"{column} goes down to {columns[column].min() * units[column][1]:.3g}" for column in small
    )
    return Note(
        "UNITS_SUSPECT",
        f"{said}; if the table counts in millions or billions, say so with "
        f"{' and '.join(units[column][0] for column in small)}, since budgets are in FLOP",
        tuple(small),
    )
