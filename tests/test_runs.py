"""Tables that are legal: what is read from them, what is derived, what is noted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.errors import RecipeError, RunTableError
from m3bayes.recipe import Recipe, Schedule, Stage, schedule
from m3bayes.runs import Runs, read_runs, runs_from_frame, runs_from_stages

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


def table(n: int = 6, **columns) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "params": 1e8 * np.arange(1, n + 1),
            "target_tokens": np.full(n, 1e9),
            "epochs": np.linspace(0.5, 4, n),
            "target_ratio": np.full(n, 0.25),
            "final_ratio": np.full(n, 0.5),
            "loss": np.linspace(3, 2.5, n),
        }
    )
    return frame.assign(**columns)


@pytest.mark.parametrize(
    ("file", "rows"), [("data_constrained", 250), ("two_phase_code_web", 56), ("size_and_tokens", 404)]
)
def test_real_tables_are_read(file: str, rows: int):
    path = SHARED / f"{file}.csv"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    runs = read_runs(path)
    plain = pd.read_csv(path)
    assert len(runs) == rows and runs.notes == () and runs.name == path.name
    assert list(runs.columns) == list(plain.columns)
    for name in ("params", "target_tokens", "epochs", "target_ratio", "final_ratio", "loss"):
        np.testing.assert_allclose(runs[name], plain[name], rtol=1e-15)
    assert ((runs.last_stage_share > 0) & (runs.last_stage_share <= 1)).all()
    if file == "data_constrained":
        assert len(read_runs(path, where="in_authors_fit == 1")) == 161


def test_csv_parquet_and_frame_give_the_same_runs(tmp_path: Path):
    frame = table(run=[f"run {i}" for i in range(6)], seed=[1, 2, None, 4, 5, 6], language=["de", "fr"] * 3)
    frame.to_csv(tmp_path / "runs.csv", index=False)
    frame.to_parquet(tmp_path / "runs.parquet")
    runs = runs_from_frame(frame)
    for path in (tmp_path / "runs.csv", tmp_path / "runs.parquet"):
        assert read_runs(str(path)).fingerprint() == runs.fingerprint()
        assert read_runs(path).name == path.name


@pytest.mark.parametrize(
    "text",
    [
        "params,target_tokens,epochs,loss\n1e8,1e9,1,3\n2e8,1e9,1,2.5\n",
        "\ufeffparams,target_tokens,epochs,loss\n1e8,1e9,1,3\n2e8,1e9,1,2.5\n",
        "params,target_tokens,epochs,loss\r\n1e8,1e9,1,3\r\n2e8,1e9,1,2.5",
        '"params", "target_tokens", epochs , loss\n\n 100000000,"1000000000", 1.,3\n   \n+2E8,1e9,1,2.5\n\n',
    ],
    ids=["plain", "mark", "crlf", "blanks and quotes"],
)
def test_ways_to_write_a_csv(tmp_path: Path, text: str):
    path = tmp_path / "runs.csv"
    path.write_bytes(text.encode())
    runs = read_runs(path)
    assert runs["params"].tolist() == [1e8, 2e8]
    assert runs["loss"].tolist() == [3, 2.5]
    assert runs["target_ratio"].tolist() == runs["final_ratio"].tolist() == [1, 1]


def test_optional_cells_may_be_blank_and_other_columns_are_kept():
    frame = table(
        4,
        run=["a", "", None, "b"], first_ratio=[None, 0.0, 0.125, ""], loss_se=[0.1, None, None, 0.2],
        weight=[1, None, 0, 2], tokens=[None] * 4, flops=[np.nan] * 4, lr=[1e-3, None, None, None],
        note=["x", None, "1", "2"], shots=["1", "", "2", "NA"], good=["True", "", "false", "true"],
        empty=[None] * 4, day=pd.Timestamp("2026-01-01"),
    )  # fmt: skip
    runs = runs_from_frame(frame)
    assert runs.names == ("a", "row 2", "row 3", "b")
    assert runs["run"].tolist() == ["a", "", "", "b"]
    assert runs["weight"].tolist() == [1, 1, 0, 2]
    np.testing.assert_array_equal(runs["first_ratio"], [np.nan, 0, 0.125, np.nan])
    np.testing.assert_array_equal(runs["shots"], [1, np.nan, 2, np.nan])
    np.testing.assert_array_equal(runs["good"], [1, np.nan, 0, 1])
    assert runs["note"].tolist() == ["x", "", "1", "2"]
    assert np.isnan(runs["empty"]).all() and np.isnan(runs["tokens"]).all()
    assert runs["day"].dtype == object


def test_names_stay_as_they_are_written(tmp_path: Path):
    (tmp_path / "t.csv").write_text("run,params,target_tokens,epochs,loss\n001,1,1,1,1\n1e3,2,2,2,2\n")
    assert read_runs(tmp_path / "t.csv", unit_params=1e9, unit_tokens=1e9).names == ("001", "1e3")
    assert runs_from_frame(table(3)).names == ("row 1", "row 2", "row 3")


def test_replicates_ends_on_the_source_and_part_of_an_epoch_are_legal():
    frame = pd.concat([table(2)] * 3).assign(epochs=0.25, target_ratio=0.4, final_ratio=0.1, first_ratio=0.5)
    runs = runs_from_frame(frame)
    assert len(runs) == 6 and runs.notes == ()
    np.testing.assert_allclose(runs.last_stage_share, 0.25)


@given(
    st.lists(
        st.tuples(st.floats(1e6, 1e12), st.floats(1e6, 1e12), st.floats(1e-3, 1e3), st.floats(0.01, 1)),
        min_size=1,
        max_size=5,
    ),
    st.floats(1e-9, 1e9),
    st.floats(1e-9, 1e9),
)
@settings(max_examples=50, deadline=None)
def test_derived_columns_against_formulas_and_units(rows, unit_params, unit_tokens):
    N, U, k, r = (np.array(column) for column in zip(*rows, strict=True))
    frame = pd.DataFrame(
        {"params": N, "target_tokens": U, "epochs": k, "target_ratio": r, "final_ratio": 1.0}
    )
    frame["loss"] = 2.0
    runs = runs_from_frame(frame)
    for i in range(len(rows)):
        T = k[i] * U[i]
        assert runs.target_tokens_seen[i] == T
        assert runs.tokens[i] == T / r[i]
        np.testing.assert_allclose(runs.source_tokens[i], T / r[i] - T, rtol=1e-9, atol=1e-12 * T / r[i])
        np.testing.assert_allclose(runs.compute[i], 6 * N[i] * T / r[i], rtol=1e-14)
        np.testing.assert_allclose(runs.last_stage_share[i], r[i], rtol=1e-14)
    scaled = runs_from_frame(
        frame.assign(params=N / unit_params, target_tokens=U / unit_tokens),
        unit_params=unit_params,
        unit_tokens=unit_tokens,
    )
    np.testing.assert_allclose(scaled.compute, runs.compute, rtol=1e-13)
    np.testing.assert_allclose(scaled.tokens * unit_tokens, runs.tokens, rtol=1e-13)


def test_last_stage_share_as_in_the_stages():
    made = [
        Recipe(1e8, 1e9, 2, 0.3, 0.9, 0.1),
        Recipe(1e8, 1e9, 2, 0.3, 0.1, 0.4),
        Recipe(1e8, 1e9, 2, 0.3, 0.3),
    ]
    runs = runs_from_stages([schedule(x) for x in made], [3, 3, 3])
    for share, x in zip(runs.last_stage_share, made, strict=True):
        stages = schedule(x).stages
        np.testing.assert_allclose(share, stages[-1].tokens / sum(stage.tokens for stage in stages))
        np.testing.assert_allclose(share, x.last_stage_share)


def test_runs_cannot_be_changed():
    frame = table(3, run=["a", "b", "c"])
    given_loss = frame["loss"].to_numpy().copy()
    arrays = {name: frame[name].to_numpy(copy=True) for name in frame if name != "run"}
    runs = Runs({**arrays, "run": np.array(["a", "b", "c"], dtype=object)})
    for name in runs.columns:
        with pytest.raises(ValueError, match="read-only"):
            runs[name][0] = runs[name][1]
    with pytest.raises(TypeError):
        runs.columns["loss"] = given_loss  # pyright: ignore[reportIndexIssue]
    with pytest.raises(AttributeError):
        runs.name = "x"  # pyright: ignore[reportAttributeAccessIssue]
    arrays["loss"][:] = 9
    copy = runs.frame()
    copy.loc[:, "loss"] = 9
    assert runs["loss"].tolist() == given_loss.tolist()


def test_a_missing_column_is_named_with_those_there_are():
    with pytest.raises(RunTableError, match=r"no column 'tokenz'; it has params, target_tokens"):
        runs_from_frame(table())["tokenz"]


def test_select_by_mask_indices_and_slice():
    runs = runs_from_frame(table(run=list("abcdef")))
    mask = runs["loss"] < 2.75
    assert runs.select(mask).names == ("d", "e", "f")
    assert runs.select(np.array([4, 1])).names == ("e", "b")
    assert runs.select([0, 0, 2]).names == ("a", "a", "c")  # bootstrap samples repeat runs
    assert runs.select(slice(0, 2)).names == ("a", "b")
    assert runs.select(mask).unit_params == runs.unit_params
    for wrong in (mask & False, [], [17], np.array([True, False])):
        with pytest.raises(RunTableError):
            runs.select(wrong)


def test_where_keeps_rows_and_spares_the_others_from_the_checks():
    frame = table(
        run=list("abcdef"), loss=[3, -1, "diverged", None, 2, 2.5], keep=[1, 0, 0, 0, 1, 1], language="de"
    )
    assert runs_from_frame(frame, where="keep == 1").names == ("a", "e", "f")
    assert runs_from_frame(frame, where="loss > 0 and epochs < 3.8").names == ("a", "e")
    runs = runs_from_frame(frame, where="keep == 1")
    assert runs.where("run in ['a', 'f']").names == ("a", "f")
    assert runs.where("not (loss > 2.2) | (run == 'f')").names == ("e", "f")
    assert runs.where("epochs * target_tokens / target_ratio < 1.5e10").names == ("a", "e")
    assert runs.where("language == 'de' and 2 < loss").names == ("a", "f")


def test_where_reads_columns_of_any_name():
    runs = runs_from_frame(table(**{"learning rate": [1, 2, 3, 4, 5, 6], "lambda": 0.0}))
    assert len(runs.where("`learning rate` > 4 and `lambda` == 0")) == 2


def test_rows_keep_their_numbers_behind_where(tmp_path: Path):
    path = tmp_path / "runs.csv"
    table(loss=[3, 3, 3, 3, -1, 3], keep=[0, 0, 1, 1, 1, 1]).to_csv(path, index=False)
    with pytest.raises(RunTableError, match=r"row 5 \(line 6\), column loss: -1"):
        read_runs(path, where="keep == 1")


def test_fingerprint_follows_content_and_units_only():
    runs = runs_from_frame(table(run=list("abcdef"), first_ratio=np.nan))
    same = runs_from_frame(table(run=list("abcdef"), first_ratio=np.nan).iloc[:, ::-1], name="other")
    assert runs.fingerprint() == same.fingerprint() == Runs(runs.columns).fingerprint()
    others = [
        runs_from_frame(table(run=list("abcdeg"), first_ratio=np.nan)),
        runs_from_frame(table(run=list("abcdef"), first_ratio=0.0)),
        runs_from_frame(table(run=list("abcdef"))),
        runs_from_frame(table(run=list("abcdef"), first_ratio=np.nan), unit_params=2.0),
        runs.select(slice(0, 5)),
        runs.select([1, 0, 2, 3, 4, 5]),
    ]
    assert len({runs.fingerprint(), *(other.fingerprint() for other in others)}) == 7


def test_runs_from_stages():
    schedules = [
        Schedule(1e8, 1e9, [Stage(2e9, 0.0), Stage(1e9, 0.5), Stage(1e9, 1.0)]),
        Schedule(2e8, 1e9, [Stage(1e9, 1.0)]),
    ]
    runs = runs_from_stages(schedules, [3.0, 2.5], run=["a", "b"], target_ratio=[0.375, 1])
    assert runs.names == ("a", "b")
    np.testing.assert_allclose(runs["epochs"], [1.5, 1])
    np.testing.assert_allclose(runs["target_ratio"], [0.375, 1])
    np.testing.assert_allclose(runs["final_ratio"], [1, 1])
    np.testing.assert_allclose(runs.last_stage_share, [0.25, 1])
    with pytest.raises(
        RunTableError, match=r"row 2, column target_ratio: 0.5, expected 1 as in its schedule"
    ):
        runs_from_stages(schedules, [3.0, 2.5], target_ratio=[0.375, 0.5])
    with pytest.raises(RunTableError, match="1 values of loss for 2 schedules"):
        runs_from_stages(schedules, [3.0])
    with pytest.raises(RunTableError, match=r"row 1, column loss: -3"):
        runs_from_stages(schedules, [-3.0, 2.5])
    with pytest.raises(RecipeError):
        runs_from_stages([], [])


@pytest.mark.parametrize("unit", [0.0, -1.0, np.nan, np.inf])
def test_units_must_be_positive_numbers(unit: float):
    with pytest.raises(RunTableError, match="unit_params is"):
        runs_from_frame(table(), unit_params=unit)
    with pytest.raises(RunTableError, match="unit_tokens is"):
        runs_from_frame(table(), unit_tokens=unit)


def test_stated_tokens_may_be_one_percent_off():
    frame = table()
    tokens = frame["epochs"] * frame["target_tokens"] / frame["target_ratio"]
    assert runs_from_frame(frame.assign(tokens=1.0099 * tokens)).notes == ()
    with pytest.raises(RunTableError, match=r"row 1, column tokens"):
        runs_from_frame(frame.assign(tokens=1.0101 * tokens))


def test_flops_that_differ_are_one_note():
    frame = table(unused=1)
    six_nd = 6 * frame["params"] * frame["epochs"] * frame["target_tokens"] / frame["target_ratio"]
    assert runs_from_frame(frame.assign(flops=1.09 * six_nd)).notes == ()
    runs = runs_from_frame(frame.assign(flops=six_nd * [1, 1, 2, 3, 4, np.nan]))
    (note,) = runs.notes
    assert note.code == "FLOPS_DIFFER" and "3 of 6 runs" in note.message and "median 3" in note.message
    assert runs.select(slice(0, 2)).notes == ()
    assert len(runs.select(slice(0, 3)).notes) == 1
    in_millions = frame.assign(params=frame["params"] / 1e6, flops=six_nd)
    assert runs_from_frame(in_millions, unit_params=1e6).notes == ()


@pytest.mark.parametrize(
    ("losses", "named"),
    [
        ({"de": 3.0, "fr": 3.2, "sw": 3.0 / np.log(2)}, ["sw"]),
        ({"de": 3.0, "fr": 3.2, "sw": 3.0 * np.log(2)}, ["sw"]),
        ({"de": 3.0, "fr": 7.0, "sw": 3.1}, ["fr"]),
        ({"de": 3.0, "fr": 3.5, "sw": 2.4}, []),
    ],
)
def test_loss_units_that_look_mixed_are_a_note(losses: dict[str, float], named: list[str]):
    languages = ["de", "de", "fr", "sw", "de", "fr"]
    frame = table(
        language=languages, loss=[losses[name] * (1 + 0.001 * i) for i, name in enumerate(languages)]
    )
    notes = runs_from_frame(frame).notes
    assert [note.code for note in notes] == ["MIXED_LOSS_UNITS"] * bool(named)
    for note in notes:
        assert list(note.about) == ["de", *named]
        assert all(name in note.message for name in named)


def test_tables_in_undeclared_units_are_a_note():
    frame = table(params=[0.1, 0.2, 0.3, 1, 2, 3])
    (note,) = runs_from_frame(frame).notes
    assert note.code == "UNITS_SUSPECT" and note.about == ("params",) and "unit_params" in note.message
    assert runs_from_frame(frame, unit_params=1e9).notes == ()


def test_parquet_without_its_engine_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table().to_parquet(tmp_path / "runs.parquet")
    for engine in ("pyarrow", "pyarrow.parquet", "fastparquet"):
        monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(RunTableError, match=r"pip install 'm3bayes\[parquet\]'"):
        read_runs(tmp_path / "runs.parquet")


def test_repr_is_short():
    assert repr(runs_from_frame(table())) == (
        "Runs(table: 6 runs of params, target_tokens, epochs, target_ratio, final_ratio, loss)"
    )
