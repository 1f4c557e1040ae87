"""Plans of the pilot: what each block holds, the order, and bad plans refused by name."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3bayes.errors import RecipeError, RunTableError
from m3bayes.files import write_text
from m3bayes.pilot.designs import CELL_EPOCHS, CELL_RATIO, interleave
from m3bayes.pilot.model import SHAPES, Shape
from m3bayes.pilot.plan import generate_plan, plan_cost, plan_from_frame, read_plan, source_columns
from m3bayes.recipe import recipe_columns
from m3bayes.table_checks import VARIABLES, last_stage_share

SOURCE = 40_000_000
BUDGETS = (6e10, 2.5e11)
SCARCITIES = (2e4, 8e4, 3.2e5, 1.28e6)
RECIPE = list(VARIABLES)


@pytest.fixture(scope="module")
def plan() -> pd.DataFrame:
    return generate_plan(["de", "ja", "fr"], source_tokens=SOURCE)


def derived(plan: pd.DataFrame) -> pd.DataFrame:
    """The plan with D, S, C, the regime and the last stage's share, by the naive formulas."""
    T = plan["epochs"] * plan["target_tokens"]
    D = T / plan["target_ratio"]
    share = last_stage_share(*(plan[name].to_numpy() for name in RECIPE[3:]))
    mixed = np.where(plan["final_ratio"] == plan["target_ratio"], "single", "two")
    regime = np.where(plan["target_ratio"] == 1, "mono", mixed)
    return plan.assign(D=D, S=D - T, C=6 * plan["params"] * D, regime=regime, share=share)


def block(plan: pd.DataFrame, name: str, language: str = "de") -> pd.DataFrame:
    return plan[(plan["block"] == name) & (plan["language"] == language)]


def cells(plan: pd.DataFrame, budgets=BUDGETS) -> dict[tuple, pd.DataFrame]:
    """Runs of the epochs block by regime, nearest budget and U."""
    rows = block(derived(plan), "epochs")
    nearest = [min(budgets, key=lambda budget: abs(math.log(budget / C))) for C in rows["C"]]
    groups = rows.assign(budget=nearest).groupby(["regime", "budget", "target_tokens"])
    return {key: frame for key, frame in groups if isinstance(key, tuple)}


# ---- every run ---------------------------------------------------------------------------------


def test_every_run_is_a_recipe_within_the_limits(plan):
    recipe_columns(plan[RECIPE])  # raises where one is none
    rows = derived(plan)
    assert rows["params"].isin([shape.params for shape in SHAPES]).all()
    assert rows["D"].between(65_536 * 0.999, 8e6 * 1.001).all()
    assert (rows["S"] <= SOURCE).all()
    assert rows["C"].between(1e10, 4e12).all()


def test_columns_and_their_types(plan):
    assert list(plan.columns) == ["run", "block", "language", *RECIPE, "subset", "seed"]
    for column in ("params", "target_tokens", "subset", "seed"):
        assert plan[column].dtype == np.int64
    assert plan["run"].is_unique
    assert (plan["run"].str.split("-").str[0] == plan["language"]).all()
    one_stage = plan["final_ratio"] == plan["target_ratio"]
    assert (plan["first_ratio"].isna() == one_stage).all()


def test_counts_of_each_block(plan):
    counts = plan.groupby(["language", "block"]).size().unstack()
    assert (counts["sobol"] == 64).all()
    assert (counts["ratio"] == 6).all()
    assert (counts["first_stage"] == 8).all()
    assert (counts["replicates"] == 10).all()
    assert (counts["epochs"] == 3 * len(block(plan, "epochs")[RECIPE].drop_duplicates())).all()


def test_designed_recipes_are_those_of_every_language_and_sobol_ones_its_own(plan):
    for name in ("epochs", "ratio", "first_stage"):
        for other in ("ja", "fr"):
            left, right = (block(plan, name, language)[RECIPE] for language in ("de", other))
            pd.testing.assert_frame_equal(left.reset_index(drop=True), right.reset_index(drop=True))
    both = pd.concat([block(plan, "sobol", language)[RECIPE] for language in ("de", "ja")])
    assert not both.duplicated().any()


# ---- blocks ------------------------------------------------------------------------------------


def test_sobol_block_holds_its_ranges_and_shares(plan):
    rows = derived(plan)
    rows = rows[rows["block"] == "sobol"]
    for _, one in rows.groupby("language"):
        assert Counter(one["regime"]) == {"mono": 19, "single": 19, "two": 26}
    assert rows["target_tokens"].between(5e4, 8e5).all()
    assert rows["epochs"].between(0.5, 64).all()
    assert rows["target_ratio"].between(0.03, 1).all()
    two = rows[rows["regime"] == "two"]
    assert (two["final_ratio"] > two["target_ratio"]).all()
    assert (two["first_ratio"] < two["target_ratio"]).all()
    assert two["share"].between(0.05 * 0.99, 0.9 * 1.01).all()
    assert 0.3 <= (two["first_ratio"] == 0).mean() <= 0.7
    assert rows["params"].nunique() >= 5
    for column in ("epochs", "target_tokens"):  # spread on a log scale, not bunched
        quarters = np.quantile(np.log(rows[column]), [0.25, 0.75])
        assert np.diff(quarters)[0] > 1


def test_epochs_block_has_equal_flop_and_tokens_in_a_cell(plan):
    for (regime, budget, U), rows in cells(plan).items():
        assert np.allclose(rows["C"], budget, rtol=0.01), (regime, budget, U)
        assert rows["epochs"].between(*CELL_EPOCHS).all()
        recipes = rows[RECIPE].drop_duplicates()
        assert (rows.groupby("epochs").size() == 3).all()
        assert len(recipes) == recipes["epochs"].nunique()
        assert (rows.groupby("epochs")["seed"].nunique() == 3).all()
        if regime != "mono":
            assert recipes["params"].nunique() == 1
            assert rows["target_ratio"].between(*CELL_RATIO).all()
        if regime == "two":
            assert (rows["final_ratio"] == 1).all()
            assert (rows["first_ratio"] == 0).all()


def test_mixed_regimes_have_the_same_four_epochs(plan):
    found = cells(plan)
    for budget in BUDGETS:
        for U in SCARCITIES:
            single, two = (found.get((regime, budget, U)) for regime in ("single", "two"))
            largest = budget / (6 * min(shape.params for shape in SHAPES))
            if 0.9 * largest / U < 2 * CELL_EPOCHS[0]:  # more target text than the budget can read
                assert single is None and two is None
                continue
            assert single is not None and two is not None
            assert set(single["epochs"]) == set(two["epochs"])
            assert single["epochs"].nunique() == 4
            assert single["epochs"].max() / single["epochs"].min() >= 2


def test_monolingual_cells_have_every_shape_that_fits(plan):
    found = cells(plan)
    for budget in BUDGETS:
        for U in SCARCITIES:
            tokens = {shape.params: budget / (6 * shape.params) for shape in SHAPES}
            fit = {N for N, D in tokens.items() if 65_536 <= D <= 8e6 and 0.25 <= D / U <= 128}
            cell = found.get(("mono", budget, U))
            assert set([] if cell is None else cell["params"]) == fit


def test_every_regime_has_four_epochs_at_equal_flop_in_several_cells(plan):
    enough = Counter(key[0] for key, rows in cells(plan).items() if rows["epochs"].nunique() >= 4)
    assert all(enough[regime] >= 3 for regime in ("mono", "single", "two"))


def test_more_shapes_fill_the_monolingual_cells(monkeypatch):
    shapes = tuple(sorted((*SHAPES, Shape(2, 24, 2)), key=lambda shape: shape.params))
    monkeypatch.setattr("m3bayes.pilot.plan.SHAPES", shapes)
    found = cells(generate_plan(["de"], source_tokens=SOURCE, shapes=shapes, sobol=8))
    scarce = [key for key in found if key[1:] != (BUDGETS[0], SCARCITIES[-1])]
    assert all(found[key]["epochs"].nunique() >= 4 for key in scarce)


def test_ratio_block_is_a_line_at_one_n_and_d(plan):
    rows = block(derived(plan), "ratio")
    assert rows["params"].nunique() == rows["target_tokens"].nunique() == 1
    assert np.allclose(rows["D"], rows["D"].iloc[0], rtol=0.01)
    assert rows["target_ratio"].min() == 0.03 and rows["target_ratio"].max() == 1
    assert (rows["epochs"] <= 4.01).all()
    assert (rows["final_ratio"] == rows["target_ratio"]).all()


def test_first_stage_block_is_pairs_that_differ_in_first_ratio_alone(plan):
    rows = block(plan, "first_stage")
    assert (rows["first_ratio"] == 0).sum() == 4
    shared = [column for column in (*RECIPE, "subset", "seed") if column != "first_ratio"]
    pairs = [pair for _, pair in rows.groupby(shared)]
    assert [len(pair) for pair in pairs] == [2] * 4
    for pair in pairs:
        assert sorted(pair["first_ratio"]) == [0, pair["target_ratio"].iloc[0] / 2]


def test_replicates_are_sobol_recipes_with_other_weights_and_text(plan):
    for language in ("de", "ja", "fr"):
        again = block(plan, "replicates", language)
        both = again.merge(block(plan, "sobol", language), on=RECIPE, suffixes=("", "_first"))
        assert len(both) == len(again) == 10
        assert (both["seed"] != both["seed_first"]).all()
        assert (both["subset"] != both["subset_first"]).all()
        one = plan[(plan["language"] == language) & plan["block"].isin(["sobol", "replicates"])]
        assert one["seed"].is_unique and one["subset"].is_unique


# ---- order -------------------------------------------------------------------------------------


def test_languages_take_turns(plan):
    assert (plan["language"].to_numpy().reshape(-1, 3) == ["de", "ja", "fr"]).all()


def test_any_prefix_is_a_balanced_small_version(plan):
    rows = derived(plan)[plan["language"] == "de"].reset_index(drop=True)
    designed = rows["block"].isin(["epochs", "ratio", "first_stage"])
    groups = {"designed": designed}
    groups |= {name: rows["block"] == name for name in ("sobol", "replicates")}
    for name, members in groups.items():
        share = members.mean()
        so_far = np.cumsum(members) - share * np.arange(1, len(rows) + 1)
        assert np.abs(so_far).max() <= 2, name
    for name in ("sobol", "epochs"):
        regimes = rows[rows["block"] == name]["regime"].to_numpy()
        for prefix in (10, 20, 40):
            for regime in ("mono", "single", "two"):
                expected = (regimes == regime).mean() * prefix
                assert abs((regimes[:prefix] == regime).sum() - expected) <= 2, (name, prefix, regime)


def test_first_seeds_come_before_second_ones(plan):
    rows = plan[(plan["language"] == "de") & plan["block"].isin(["epochs", "ratio", "first_stage"])]
    assert rows["seed"].is_monotonic_increasing
    first = rows[rows["seed"] == rows["seed"].min()]
    assert not first[RECIPE].duplicated().any()
    assert len(first[RECIPE]) == len(rows[RECIPE].drop_duplicates())


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_interleave_keeps_each_order_and_proportion(sizes):
    groups = [[(number, place) for place in range(size)] for number, size in enumerate(sizes)]
    merged = interleave(groups)
    for number, group in enumerate(groups):
        assert [item for item in merged if item[0] == number] == group
    for end in range(len(merged) + 1):
        for number, size in enumerate(sizes):
            there = sum(item[0] == number for item in merged[:end])
            assert abs(there - size * end / max(len(merged), 1)) <= len(sizes) / 2 + 0.5


# ---- the request -------------------------------------------------------------------------------


def test_a_plan_is_reproducible_and_its_seed_counts(plan):
    again = generate_plan(["de", "ja", "fr"], source_tokens=SOURCE)
    pd.testing.assert_frame_equal(plan, again)
    other = generate_plan(["de"], source_tokens=SOURCE, seed=1)
    assert not set(other["seed"]) & set(plan["seed"])
    assert set(map(tuple, block(other, "ratio")[RECIPE[:4]].to_numpy())) == set(
        map(tuple, block(plan, "ratio")[RECIPE[:4]].to_numpy())
    )
    assert not pd.concat([block(other, "sobol"), block(plan, "sobol")])[RECIPE].duplicated().any()


def test_a_language_has_its_plan_whichever_others_there_are(plan):
    alone = generate_plan(["ja"], source_tokens=SOURCE)
    pd.testing.assert_frame_equal(alone, plan[plan["language"] == "ja"].reset_index(drop=True))


@given(
    st.integers(0, 40),
    st.integers(1, 4),
    st.integers(0, 100_000),
    st.floats(2e5, 1e7),
    st.floats(1e11, 4e11),
    st.sampled_from([SHAPES, SHAPES[:5], SHAPES[1:6]]),
)
@settings(max_examples=8, deadline=None)
def test_any_request_keeps_the_limits(sobol, seeds, seed, source, budget, shapes):
    plan = generate_plan(
        ["de", "sw"],
        source_tokens=source,
        shapes=shapes,
        budgets=(budget,),
        seeds=seeds,
        sobol=sobol,
        seed=seed,
    )
    rows = derived(plan)
    assert (plan["block"] == "sobol").sum() == 2 * sobol
    assert (plan["block"] == "replicates").sum() == 2 * min(sobol, 10)
    assert rows["D"].between(65_536 * 0.998, 8e6 * 1.002).all()
    assert (rows["S"] <= source).all()
    epochs = rows[rows["block"] == "epochs"]
    assert np.allclose(epochs["C"], budget, rtol=0.01)
    assert plan["run"].is_unique
    assert plan["seed"].max() < 2**31


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"languages": []}, "languages"),
        ({"languages": ["de", "de"]}, "each once"),
        ({"languages": ["de", ""]}, "languages"),
        ({"seeds": 0}, "seeds: 0, expected a whole number from 1"),
        ({"sobol": -1}, "sobol: -1"),
        ({"seed": -1}, "seed: -1"),
        ({"source_tokens": 0}, "source_tokens"),
        ({"budgets": ()}, "budgets"),
        ({"budgets": (1e6,)}, "budgets: 1e[+]06 FLOP trains none of the shapes"),
        ({"scarcities": (2e4, math.nan)}, "scarcities"),
        ({"compute": (4e12, 1e10)}, "compute: .*least first"),
        ({"min_tokens": 9e6}, "min_tokens, max_tokens"),
        ({"compute": (1e10, 1.0001e10)}, "0 of 19 monolingual, .* widen these limits"),
    ],
)
def test_requests_that_cannot_be_met_say_why(request_, said):
    with pytest.raises(RecipeError, match=said):
        generate_plan(**{"languages": ["de"], "source_tokens": SOURCE} | request_)


# ---- cost --------------------------------------------------------------------------------------


def test_cost_is_that_of_the_shapes(plan):
    cost = plan_cost(plan, context=64, vocabulary=256)
    assert list(cost["run"]) == list(plan["run"])
    shapes = {shape.params: shape for shape in SHAPES}
    for i in (0, 100, len(plan) - 1):
        row = plan.iloc[i]
        D = row["epochs"] * row["target_tokens"] / row["target_ratio"]
        assert cost["tokens"].iloc[i] == pytest.approx(D)
        assert cost["compute"].iloc[i] == pytest.approx(6 * row["params"] * D)
        assert cost["flops"].iloc[i] == pytest.approx(shapes[row["params"]].flops(D, 64, 256))


# ---- files -------------------------------------------------------------------------------------


def test_csv_round_trip_is_exact(plan, tmp_path):
    write_text(tmp_path / "plan.csv", plan.to_csv(index=False))
    pd.testing.assert_frame_equal(read_plan(tmp_path / "plan.csv"), plan)


def test_optional_and_further_columns_are_kept(plan, tmp_path):
    given = plan.head(3).assign(
        lr=[0.01, np.nan, 0.02], weight_decay=0.1, decay=["linear", "", "cosine"], note="x"
    )
    write_text(tmp_path / "plan.csv", given.to_csv(index=False))
    again = read_plan(tmp_path / "plan.csv")
    assert again["lr"].tolist()[::2] == [0.01, 0.02] and math.isnan(again["lr"][1])
    assert again["decay"].tolist() == ["linear", "", "cosine"]
    assert again["note"].tolist() == ["x"] * 3


def test_sources_and_checkpoints_are_read_as_numbers_and_names(plan, tmp_path):
    given = plan.head(3).assign(en_tokens=[100, np.nan, 0], checkpoint=["7", "", "a"])
    write_text(tmp_path / "plan.csv", given.to_csv(index=False))
    again = read_plan(tmp_path / "plan.csv")
    assert again["en_tokens"].tolist()[::2] == [100.0, 0.0] and math.isnan(again["en_tokens"][1])
    assert again["checkpoint"].tolist() == ["7", "", "a"]
    assert source_columns([*again.columns, "tokens", "last_stage_tokens", "en_unique_tokens"]) == [
        "en_tokens"
    ]
    alone = read_plan(_written(plan.head(2).assign(checkpoint=""), tmp_path / "blank.csv"))
    assert alone["checkpoint"].tolist() == ["", ""]


def _written(plan, path):
    write_text(path, plan.to_csv(index=False))
    return path


def test_ratios_and_first_ratio_may_be_left_out(plan):
    rows = plan.head(4).drop(columns=["target_ratio", "final_ratio", "first_ratio"])
    again = plan_from_frame(rows)
    assert (again["target_ratio"] == 1).all() and (again["final_ratio"] == 1).all()
    assert again["first_ratio"].isna().all()


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("run", "", "column run: blank, expected a name"),
        ("run", "de-epochs-001", "is also the run of"),
        ("language", "", "column language: blank"),
        ("block", " ", "column block: blank"),
        ("params", "25000", "column params: 25000, expected the parameters of a shape: 24736"),
        ("target_tokens", "1000.5", "column target_tokens: 1000.5, expected a whole number"),
        ("epochs", "0", "column epochs: 0, expected a finite number above 0"),
        ("epochs", "two", "column epochs: 'two', expected a number"),
        ("target_ratio", "20", "divide by 100: 0.2"),
        ("first_ratio", "1.5", "column first_ratio: 1.5, expected a ratio from 0 to 1"),
        ("subset", "", "column subset: blank or NaN, expected a whole number"),
        ("subset", "1.5", "column subset: 1.5, expected a whole number"),
        ("seed", "-1", "column seed: -1, expected a whole number"),
        ("seed", "3000000000", "column seed: 3000000000, expected a whole number from 0"),
        ("seed", "x", "column seed: 'x', expected a number"),
        ("lr", "0", "column lr: 0, expected a finite number above 0"),
        ("lr", "1e-3 or so", "column lr: '1e-3 or so', expected a number"),
        ("weight_decay", "-0.1", "column weight_decay: -0.1"),
        ("decay", "step", "column decay: 'step', expected linear or cosine"),
        ("en_tokens", "-1", "column en_tokens: -1, expected a finite number of tokens, 0 or more"),
        ("en_tokens", "half", "column en_tokens: 'half', expected a number"),
    ],
)
def test_bad_cells_are_named(plan, tmp_path, column, value, said):
    given = plan.head(6).assign(lr="", weight_decay="", decay="", en_tokens="").astype(object)
    given.loc[4, column] = value
    write_text(tmp_path / "odd.csv", given.to_csv(index=False))
    with pytest.raises(RunTableError, match=r"^odd\.csv: row 5 \(line 6\)") as problem:
        read_plan(tmp_path / "odd.csv")
    assert said in str(problem.value)


@pytest.mark.parametrize("column", ["run", "block", "language", "params", "epochs", "subset", "seed"])
def test_missing_columns_are_named(plan, column):
    with pytest.raises(RunTableError, match=f"plan: column {column} missing"):
        plan_from_frame(plan.drop(columns=column))


def test_a_plan_without_rows_is_refused(plan):
    with pytest.raises(RunTableError, match="no row"):
        plan_from_frame(plan.head(0))
