"""Any table at all: runs that are sound, or one line that says where it is wrong. Nothing else, and soon."""

from __future__ import annotations

import contextlib
import datetime
import io
import math
import re
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from m3bayes.errors import FitError, RecipeError, RunTableError
from m3bayes.inference.fit import fit
from m3bayes.inference.noise import Noise, normal
from m3bayes.inference.posterior import Posterior
from m3bayes.laws import chinchilla
from m3bayes.recipe import recipe_columns
from m3bayes.runs import Runs, read_runs, runs_from_frame
from m3bayes.table_checks import NUMERIC, REQUIRED
from tests.inference import simulated
from tests.test_bad_tables import GOOD, HEADER, csv

QUIET = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
# a cell is named by its row and column; what is wrong with the whole table by what it is
OF_A_CELL = re.compile(r"row \d+( \(line .*\))?, column \w+: ")
OF_THE_TABLE = re.compile(
    r"missing|no row|is there \d+ times|is empty|has no name|first line holds numbers|cells \(|not CSV|not UTF-8|"
    r"null bytes|longer than|carriage return|separated by|expected a CSV or parquet file|parquet file that cannot"
)


def outcome(read, *given, **options) -> Runs | str:
    """Sound runs, or the line with which they are refused; any other exception passes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            runs = read(*given, **options)
    except RunTableError as error:
        message = str(error)
        assert "\n" not in message and len(message) < 700, message
        return message
    check_sound(runs)
    return runs


def check_sound(runs: Runs) -> None:
    """What everything behind the table takes for granted."""
    for column in (*REQUIRED, "loss"):
        values = runs[column]
        assert values.dtype == np.float64 and values.shape == (len(runs),)
        assert np.isfinite(values).all() and (values > 0).all(), column
    for column in ("target_ratio", "final_ratio"):
        assert (runs[column] <= 1).all()
    for column in set(NUMERIC) & set(runs.columns):
        assert not np.isinf(runs[column]).any(), column
    assert len(runs) > 0 and len(runs.names) == len(runs)
    for derived in (
        runs.tokens,
        runs.source_tokens,
        runs.target_tokens_seen,
        runs.last_stage_share,
        runs.compute,
    ):
        assert np.isfinite(derived).all() and (derived >= 0).all()
    assert (runs.tokens > 0).all() and (runs.compute > 0).all()
    assert all(np.isfinite(np.log(runs[column])).all() for column in (*REQUIRED, "loss"))
    for note in runs.notes:
        assert "\n" not in str(note) and "nan" not in note.message.lower().split()
    assert len(runs.fingerprint()) == 64
    assert runs_from_frame(runs.frame(), unit_params=runs.unit_params, unit_tokens=runs.unit_tokens).names


# --- frames ---------------------------------------------------------------------------------------------

PLAIN = {
    "params": [1e8, 2e8, 3e8], "target_tokens": [1e9, 1e9, 2e9], "epochs": [1, 2, 3],
    "target_ratio": [1.0, 0.5, 0.5], "final_ratio": [1.0, 0.5, 0.75], "first_ratio": [np.nan, np.nan, 0.25],
    "loss": [3.0, 2.9, 2.8], "language": ["de", "de", "fi"], "run": ["a", "b", "c"], "weight": [1, 1, 1],
    "loss_se": [0.1, np.nan, 0.1], "tokens": [1e9, 4e9, 12e9], "flops": [6e17, 4.8e18, 2.16e19],
}  # fmt: skip
FLOATS = st.one_of(
    st.floats(),
    st.sampled_from(
        [0.0, -0.0, 5e-324, 1e-300, 1e-10, 1.0, 1 + 1e-12, 1e150, 1e300, 1.7e308, -1.0, 0.3, 0.5]
    ),
)
CELLS = st.one_of(
    FLOATS,
    st.integers(),
    st.integers(10**300, 10**320),
    st.text(max_size=8),
    st.sampled_from(
        ["1e8", " 2 ", "1_0", "nan", "-", "0x10", "١٢", "1e999", "1,5", "50%", "1.5B", "=A1", "#REF!"]
    ),
    st.sampled_from([None, pd.NA, pd.NaT, True, False, np.bool_(True), np.float32(2), np.int8(3), b"7", 1j]),
    st.sampled_from(
        [Decimal("3.5"), Decimal("NaN"), Fraction(1, 3), datetime.date(2026, 1, 1), pd.Timestamp(0)]
    ),
    st.sampled_from(
        [[1, 2], [], {"a": 1}, (1,), {1}, np.array([1.0]), np.array([1.0, 2.0]), np.array(5), object, print]
    ),
    st.sampled_from(
        [pd.Interval(0, 1), pd.Timedelta("1s"), np.datetime64("NaT", "s"), range(3), pd.Series([1.0])]
    ),
)
TYPES = st.sampled_from(
    ["Int64", "Float64", "string", "category", "boolean", "float32", "int8", "uint64", "complex128", "str", "object",
     "datetime64[ns]", "double[pyarrow]", "Sparse[float]"]
)  # fmt: skip
NAMES = st.one_of(
    st.sampled_from([*PLAIN, *(c.upper() for c in PLAIN), "N", " loss ", "lo\nss", "line", ""]),
    st.text(max_size=6),
    st.sampled_from([0, 1.5, None, np.nan, ("a", "b"), pd.Timestamp(0), True]),
)


@st.composite
def frames(draw) -> pd.DataFrame:
    """A good table of three rows, changed in a few cells, types, names or its index."""
    columns = {name: list(values) for name, values in PLAIN.items()}
    for _ in range(draw(st.integers(0, 3))):
        columns[draw(st.sampled_from(list(columns)))][draw(st.integers(0, 2))] = draw(CELLS)
    series = {}
    for name, values in columns.items():
        cells = np.empty(3, dtype=object)
        for row, value in enumerate(values):
            cells[row] = value
        plain = all(isinstance(value, int | float) for value in values) and draw(st.booleans())
        series[name] = (
            pd.Series(cells).astype(float) if plain and max(map(abs, values)) < 1e308 else pd.Series(cells)
        )
    frame = pd.DataFrame(series)
    if draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(list(columns)))
        with contextlib.suppress(Exception):  # not every cell has that type
            frame[name] = frame[name].astype(draw(TYPES))
    if draw(st.integers(0, 3)) == 0:
        names = list(frame.columns)
        names[draw(st.integers(0, len(names) - 1))] = draw(NAMES)
        frame.columns = pd.Index(names, dtype=object)
    if draw(st.integers(0, 4)) == 0:
        frame = frame.drop(columns=frame.columns[draw(st.integers(0, len(columns) - 1))])
    frame = frame.iloc[draw(st.sampled_from([[0, 1, 2], [0], [], [0, 0], [2, 1, 0], [1, 1, 2, 2]]))]
    index = draw(st.sampled_from(["as it is", "plain", "lines", "odd lines", "two levels"]))
    if index == "plain":
        return frame.reset_index(drop=True)
    if index in ("lines", "odd lines"):
        return frame.set_axis(pd.Index([index] * len(frame), name="line", dtype=object))
    if index == "two levels":
        return frame.set_axis(pd.MultiIndex.from_arrays([range(len(frame))] * 2, names=["line", "b"]))
    return frame


@settings(QUIET, max_examples=200)
@given(frame=frames(), units=st.tuples(*[st.sampled_from([1.0, 1e-9, 1e9, 7])] * 2))
def test_any_frame_is_refused_where_it_is_wrong_or_sound(frame: pd.DataFrame, units):
    found = outcome(runs_from_frame, frame, unit_params=units[0], unit_tokens=units[1])
    if isinstance(found, str):
        assert OF_A_CELL.search(found) or OF_THE_TABLE.search(found), found


@settings(QUIET, max_examples=150)
@given(
    rows=st.lists(st.tuples(*[FLOATS] * 6), min_size=1, max_size=4),
    units=st.tuples(*[st.floats()] * 2),
    further=st.dictionaries(
        st.sampled_from(["tokens", "flops", "weight", "loss_se", "lr"]), FLOATS, max_size=3
    ),
)
@example(rows=[(1e-300, 1e-300, 1.0, 1.0, 1.0, 1.0)], units=(1.0, 1.0), further={})
@example(rows=[(1e150, 1e150, 1.0, 1.0, 1.0, 1.0)], units=(1e10, 1.0), further={})
@example(
    rows=[(1.0, 1e-200, 1.0, 1.0, 1.0, 1.0)], units=(1.0, 1.0), further={"tokens": 1e200, "flops": 1e300}
)
def test_any_numbers_at_all(rows, units, further):
    """Every number a float can be, in every column."""
    frame = pd.DataFrame(
        rows, columns=["params", "target_tokens", "epochs", "target_ratio", "final_ratio", "loss"]
    )
    found = outcome(runs_from_frame, frame.assign(**further), unit_params=units[0], unit_tokens=units[1])
    if isinstance(found, str):
        assert OF_A_CELL.search(found) or "unit_" in found, found


@settings(QUIET, max_examples=100)
@given(frame=frames())
def test_any_frame_of_recipes(frame: pd.DataFrame):
    try:
        columns = recipe_columns(frame)
    except RecipeError as error:
        assert "\n" not in str(error)
    else:
        assert all(np.isfinite(columns[name]).all() for name in REQUIRED)


# --- files ----------------------------------------------------------------------------------------------

WHOLE = csv({"run": "b", "language": "français"}, {"run": "ç", "params": "2e8", "loss": "2.5"})
ENCODINGS = st.sampled_from(
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "cp500", "utf-7"]
)
PIECES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [b"\0", b"\r", b"\n", b"\r\n", b'"', b'""', b",", b",,,", b";", b"\t", b"\xff", b"\xef\xbb\xbf", b"x" * 200_000,
         b"9" * 5000, b"," * 3000, b"nan", b"inf", b"-", b"1e999", b"loss", HEADER.encode() + b"\n", b"\x1a", b"\x0c",
         "\u2028".encode(), "\u0661".encode(), b"=cmd|' /C calc'!A0", b"'", b"\\"]
    ),
)  # fmt: skip


@st.composite
def files(draw) -> bytes:
    """A good CSV file in some encoding, in which bytes were flipped, lost, put in or cut off."""
    data = bytearray(WHOLE.encode(draw(ENCODINGS), errors="replace"))
    for _ in range(draw(st.integers(1, 3))):
        kind, at = (
            draw(st.sampled_from(["flip", "lose", "insert", "cut", "repeat"])),
            draw(st.integers(0, len(data))),
        )
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "lose":
            del data[at : at + draw(st.integers(1, 30))]
        elif kind == "insert":
            data[at:at] = draw(PIECES)
        elif kind == "cut":
            del data[at:]
        elif kind == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 200))]
    return bytes(data)


@settings(QUIET, max_examples=200)
@given(data=files())
def test_any_bytes_in_a_csv_file(tmp_path: Path, data: bytes):
    path = tmp_path / "runs.csv"
    path.write_bytes(data)
    found = outcome(read_runs, path)
    if isinstance(found, str):
        assert found.startswith("runs.csv")
        assert OF_A_CELL.search(found) or OF_THE_TABLE.search(found), found


@pytest.fixture(scope="module")
def parquet() -> bytes:
    image = io.BytesIO()
    pd.DataFrame(PLAIN).to_parquet(image)
    return image.getvalue()


@settings(QUIET, max_examples=80)
@given(data=st.data())
def test_any_bytes_in_a_parquet_file(tmp_path: Path, parquet: bytes, data):
    changed = bytearray(parquet)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(4, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "runs.parquet"
    path.write_bytes(changed[: data.draw(st.integers(4, len(changed))) if data.draw(st.booleans()) else None])
    outcome(read_runs, path)


# --- valid, and nasty all the same -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain() -> pd.DataFrame:
    return simulated.measured(
        chinchilla(), simulated.CHINCHILLA, simulated.monolingual(30), sigma=0.01
    ).frame()


def posterior_of(frame: pd.DataFrame, noise: Noise | None = None) -> Posterior | str:
    """A few draws, all of them finite, or the line with which the fit is refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            post = fit(
                runs_from_frame(frame), chinchilla(), noise=noise or normal(),
                draws=20, warmup=20, chains=2, allow="flagged", progress=False,
            )  # fmt: skip
    except (RunTableError, FitError) as error:
        assert "\n" not in str(error)
        return str(error)
    assert post.log_likelihood is not None and np.isfinite(post.log_likelihood).all()
    assert all(np.isfinite(values).all() for values in post.draws.values())
    assert all("\n" not in note.message for note in post.notes)
    return post


WAVE = np.arange(30)
# change of a good table of 30 rows -> coefficients that its notes must name
NASTY: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], set[str]]] = {
    "one size": (lambda t: t.assign(params=1e8), {"E", "A", "alpha"}),
    "nearly one size": (lambda t: t.assign(params=np.where(WAVE % 2, 1e8, 1e8 + 0.01)), {"E", "A", "alpha"}),
    "one amount of text": (lambda t: t.assign(target_tokens=1e9), {"E", "B", "beta"}),
    "the smallest amount of text there is": (lambda t: t.assign(target_tokens=1e-300), {"E", "B", "beta"}),
    "one recipe": (lambda t: pd.concat([t.iloc[:1]] * 12), {"E", "A", "alpha", "B", "beta"}),
    "one loss": (lambda t: t.assign(loss=3.0), set()),
    "losses of 1e-99": (lambda t: t.assign(loss=t.loss * 1e-99), set()),
    "losses of 1e99": (lambda t: t.assign(loss=t.loss * 1e99), set()),
    "losses of noise": (lambda t: t.assign(loss=np.exp(np.sin(WAVE**2) * 3)), set()),
    "losses that rise with size": (lambda t: t.assign(loss=3 * (t.params / 1e8) ** 0.3), set()),
    "tokens in step with size": (lambda t: t.assign(target_tokens=20 * t.params), set()),
    "sizes over 290 decades": (lambda t: t.assign(params=10.0 ** np.linspace(-150, 140, 30)), set()),
    "weights of next to nothing": (lambda t: t.assign(weight=1e-300), {"A", "alpha", "B", "beta"}),
    "huge weights": (lambda t: t.assign(weight=1e12), set()),
    "five rows": (lambda t: t.iloc[:5], set()),
}


@pytest.mark.parametrize("kind", NASTY)
def test_nasty_tables_give_finite_draws_and_notes(plain: pd.DataFrame, kind: str):
    change, unidentified = NASTY[kind]
    post = posterior_of(change(plain))
    assert isinstance(post, Posterior), post
    named = {name for note in post.notes if note.code == "UNIDENTIFIED" for name in note.about}
    assert named >= unidentified


REFUSED = {
    "two rows": (lambda t: t.iloc[:2], normal(), "2 runs, expected at least"),
    "one row that counts": (
        lambda t: t.assign(weight=[1.0] + [0.0] * 29),
        normal(),
        "1 runs, expected at least",
    ),
    "losses of 1e-300": (lambda t: t.assign(loss=t.loss * 1e-300), normal(), "column loss"),
    "losses too large to add": (lambda t: t.assign(loss=1.7e308), normal(), "column loss"),
    "losses over 190 decades": (
        lambda t: t.assign(loss=np.where(WAVE % 2, 1e-95, 1e95)),
        normal(),
        "finite likelihood",
    ),
    "weights of 1e13": (lambda t: t.assign(weight=1e13), normal(), "column weight"),
    "errors of 1e300": (lambda t: t.assign(loss_se=1e300), normal(known=True), "column loss_se"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_tables_that_no_fit_can_use_are_refused(plain: pd.DataFrame, kind: str):
    change, noise, said = REFUSED[kind]
    found = posterior_of(change(plain), noise)
    assert isinstance(found, str) and said in found


@settings(QUIET, max_examples=12)
@given(data=st.data())
def test_any_valid_table_is_fitted_or_refused(data):
    """Few values a column, far apart or all the same, in any combination."""
    rows = data.draw(st.integers(5, 30))
    values = {"params": (-100, 100), "target_tokens": (-100, 100), "epochs": (-2, 3), "loss": (-3, 3)}
    columns = {}
    for name, (low, high) in values.items():
        few = data.draw(st.lists(st.floats(low, high), min_size=1, max_size=4), label=name)
        chosen = data.draw(st.lists(st.integers(0, len(few) - 1), min_size=rows, max_size=rows))
        columns[name] = [10.0 ** few[i] for i in chosen]
    posterior_of(pd.DataFrame(columns))


def test_the_table_that_is_changed_is_a_good_one(tmp_path: Path):
    """Else the tests above would refuse it for another reason."""
    assert math.isnan(runs_from_frame(pd.DataFrame(PLAIN))["first_ratio"][0])
    (tmp_path / "runs.csv").write_text(WHOLE)
    assert len(read_runs(tmp_path / "runs.csv")) == 3
    assert set(GOOD) == set(HEADER.split(","))
