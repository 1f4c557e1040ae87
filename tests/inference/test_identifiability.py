"""What tables leave open, against the design's own list of what single tables cannot tell apart."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest

from m3bayes import laws
from m3bayes.errors import RunTableError
from m3bayes.inference.identifiability import check_enough_runs, identifiability_notes
from m3bayes.laws import Coefficient
from m3bayes.runs import Runs, read_runs, runs_from_frame

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
N_RUNS = 60


def runs(n: int = N_RUNS, **columns) -> Runs:
    """Runs that vary everything, but for ``columns``."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "params": 10 ** random.uniform(7, 9, n),
            "target_tokens": 10 ** random.uniform(8, 10, n),
            "epochs": np.exp(random.uniform(-1, 3, n)),
            "target_ratio": random.uniform(0.1, 0.5, n),
            "final_ratio": random.uniform(0.55, 1, n),
            "loss": random.uniform(2, 3, n),
        }
    )
    return runs_from_frame(frame.assign(**columns))


def unidentified(table: Runs, law: laws.Law) -> set[tuple[str, ...]]:
    return {note.about for note in identifiability_notes(table, law) if note.code == "UNIDENTIFIED"}


@pytest.mark.parametrize("law", laws.all_laws(), ids=lambda law: law.name)
def test_runs_that_vary_everything_leave_nothing_open(law: laws.Law):
    n = len(runs())
    further = {"languages": np.arange(n) % 5 + 1.0, "continued": np.arange(n) % 2 * 1.0}
    table = runs(**{name: values for name, values in further.items() if name in law.columns})
    assert identifiability_notes(table, law) == ()
    check_enough_runs(table, law)
    with pytest.raises(RunTableError, match=f"{len(law.names) - 1} runs, expected at least "):
        check_enough_runs(table.select(slice(0, len(law.names) - 1)), law)


def test_one_size():
    table = runs(params=2e8)
    notes = identifiability_notes(table, laws.m3())
    by_name = {note.about: note.message for note in notes}
    assert set(by_name) == {("E", "A", "alpha")}  # N/U varies by U, so that kappa shows
    assert "E + A N^-alpha" in by_name["E", "A", "alpha"]
    assert "params is 2e+08 in every run" in by_name["E", "A", "alpha"]
    assert unidentified(table, laws.chinchilla()) == {("E", "A", "alpha")}


def test_one_size_and_one_corpus():
    assert unidentified(runs(params=2e8, target_tokens=1e9), laws.m3()) == {
        ("E", "A", "alpha"), ("P", "kappa"),
    }  # fmt: skip


def test_sizes_in_proportion_to_corpora():
    table = runs()
    (note,) = identifiability_notes(runs(params=table["target_tokens"] / 20), laws.m3())
    assert note.about == ("P", "kappa") and "P (N/U)^kappa" in note.message
    assert "params or target_tokens independently" in note.message


def test_sizes_in_proportion_where_runs_repeat_is_all_that_counts():
    table = runs()
    params = np.where(table["epochs"] > 1, table["target_tokens"] / 20, table["params"])
    assert unidentified(runs(params=params), laws.m3()) == {("P", "kappa")}


def test_no_repetition():
    table = runs(epochs=np.linspace(0.2, 1, N_RUNS))
    (note,) = identifiability_notes(table, laws.m3())
    assert set(note.about) == {"lambda", "P", "delta", "kappa", "omega"}
    assert "no run has epochs above 1" in note.message
    assert unidentified(table, laws.chinchilla()) == set()


def test_no_source_text():
    open_ = unidentified(runs(target_ratio=1.0, final_ratio=1.0), laws.m3())
    assert open_ == {("tau", "eta"), ("gamma", "omega")}
    messages = [
        note.message for note in identifiability_notes(runs(target_ratio=1.0, final_ratio=1.0), laws.m3())
    ]
    assert any("no run has target_ratio below 1" in message for message in messages)


def test_all_end_on_the_target_alone():
    table = runs(final_ratio=1.0)
    (note,) = identifiability_notes(table, laws.m3())
    assert note.about == ("gamma", "omega") and "no run has final_ratio below 1" in note.message


def test_the_same_name_means_another_thing_in_another_law():
    # gamma is the exponent of r in He's law, and that of r_f in M3
    assert unidentified(runs(final_ratio=1.0), laws.target_ratio()) == set()
    assert unidentified(runs(target_ratio=1.0, final_ratio=1.0), laws.target_ratio()) == {("gamma",)}


def test_one_budget_of_data():
    # D = T is the same in every run, though U and k vary
    U = runs()["target_tokens"]
    table = runs(epochs=1e9 / U)
    (note,) = identifiability_notes(table, laws.chinchilla())
    assert note.about == ("E", "B", "beta") and "E + B D^-beta" in note.message
    assert unidentified(table, laws.chinchilla(tokens="all")) == set()


def test_single_epoch_monolingual_runs_leave_what_only_m3_has():
    table = runs(epochs=1.0, target_ratio=1.0, final_ratio=1.0)
    assert unidentified(table, laws.chinchilla()) == set()
    open_ = set().union(*unidentified(table, laws.m3()))
    assert open_ == {"P", "lambda", "tau", "eta", "gamma", "delta", "kappa", "omega"}
    check_enough_runs(table.select(slice(0, 5)), laws.m3())
    with pytest.raises(RunTableError, match=r"4 runs, expected at least 5: law m3 has 13 .* could tell 5"):
        check_enough_runs(table.select(slice(0, 4)), laws.m3())


def test_dropped_coefficients_are_not_missed():
    table = runs(epochs=1.0, target_ratio=1.0, final_ratio=1.0)
    assert unidentified(table, laws.m3(drop=("lambda", "P", "tau", "gamma"))) == set()


def test_one_recipe_many_times():
    table = runs().select([3] * 20)
    notes = identifiability_notes(table, laws.chinchilla())
    assert [note.code for note in notes] == ["ROWS_ALIKE", "LAST_STAGE_SHARE_CONSTANT", "UNIDENTIFIED"]
    assert notes[-1].about == ("E", "A", "B", "alpha", "beta")
    assert "20 runs" in notes[0].message


def test_few_recipes_many_times():
    table = runs().select(np.repeat([0, 1, 2], 8))
    (note,) = (n for n in identifiability_notes(table, laws.chinchilla()) if n.code == "UNIDENTIFIED")
    assert "3 different recipes, too few to tell 5 coefficients" in note.message
    check_enough_runs(table, laws.chinchilla())


def test_runs_without_weight_do_not_count():
    weight = np.where(np.arange(N_RUNS) < 8, 1.0, 0.0)
    with pytest.raises(RunTableError, match="8 runs, expected at least 13"):
        check_enough_runs(runs(weight=weight), laws.m3())
    params = np.where(weight > 0, 1e8, runs()["params"])
    assert ("E", "A", "alpha") in unidentified(runs(weight=weight, params=params), laws.chinchilla())


def test_last_stages_of_one_share():
    r_f = np.linspace(0.5, 1, N_RUNS)
    table = runs(target_ratio=r_f / 4, final_ratio=r_f)
    (note,) = identifiability_notes(table, laws.m3())
    assert note.code == "LAST_STAGE_SHARE_CONSTANT" and "0.25 of the tokens" in note.message
    one_stage = runs(target_ratio=r_f, final_ratio=r_f)
    assert "LAST_STAGE_SHARE_CONSTANT" not in {n.code for n in identifiability_notes(one_stage, laws.m3())}


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_units_do_not_matter(factor: float):
    table = runs(target_ratio=1.0, final_ratio=1.0)
    scaled = runs(
        target_ratio=1.0, final_ratio=1.0, params=table["params"] * factor,
        target_tokens=table["target_tokens"] * factor,
    )  # fmt: skip
    for law in (laws.m3(), laws.chinchilla()):
        assert unidentified(scaled, law) == unidentified(table, law)


def test_a_law_of_the_user_with_a_column_of_its_own():
    mine = laws.law(
        "mine",
        lambda c, x: jnp.asarray(c["E"] + c["A"] * x["depth"] ** -jnp.asarray(c["a"]) + 0.0 * c["idle"]),
        [
            Coefficient("E", dist.LogNormal(0.0, 1.0), of_loss=True),
            Coefficient("A", dist.LogNormal(0.0, 1.0), of_loss=True),
            Coefficient("a", dist.Beta(2.0, 2.0)),
            Coefficient("idle", dist.Normal(0.0, 1.0)),
        ],
        columns=("depth",),
    )
    assert unidentified(runs(depth=np.linspace(2, 40, N_RUNS)), mine) == {("idle",)}
    notes = identifiability_notes(runs(depth=12.0), mine)
    by_name = {note.about: note.message for note in notes}
    assert set(by_name) == {("E", "A", "a"), ("idle",)}
    assert "depth is 12 in every run" in by_name["E", "A", "a"]
    with pytest.raises(RunTableError, match="depth"):
        identifiability_notes(runs(), mine)


def test_a_table_with_very_many_recipes_is_thinned_but_its_ends_are_kept():
    n = 5000
    random = np.random.default_rng(1)
    epochs = np.full(n, 0.5)
    epochs[1234] = 8.0
    table = runs(
        params=10 ** random.uniform(7, 9, n), n=n, epochs=epochs, target_tokens=10 ** random.uniform(8, 9, n)
    )
    open_ = set().union(*unidentified(table, laws.m3()))
    assert {"lambda", "P"} <= open_  # one run that repeats tells of one combination
    assert all("no run has epochs above 1" not in n.message for n in identifiability_notes(table, laws.m3()))


@pytest.mark.parametrize(
    ("file", "law", "expected"),
    [
        ("two_phase_code_web", laws.m3(), {("E", "A", "alpha"), ("P", "kappa")}),
        ("data_constrained", laws.m3(), {("tau", "eta"), ("gamma", "omega")}),
        ("size_and_tokens", laws.chinchilla(), set()),
    ],
)
def test_real_tables(file: str, law: laws.Law, expected: set):
    path = SHARED / f"{file}.csv"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    table = read_runs(path)
    check_enough_runs(table, law)
    assert unidentified(table, law) == expected
    codes = {note.code for note in identifiability_notes(table, law)}
    assert ("LAST_STAGE_SHARE_CONSTANT" in codes) == (file == "two_phase_code_web")
