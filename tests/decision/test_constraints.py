"""Constraints narrow, further budgets hold, and the table says what binds."""

from __future__ import annotations

import json
import math

import jax
import numpy as np
import pytest

from m3bayes.cli.report import recommendation_text
from m3bayes.decision import Recommendation, recommend
from m3bayes.decision.constraints import Constraint, at_least, at_most, equal
from m3bayes.decision.cost import Cost, Power, money, six_nd
from m3bayes.decision.several_budgets import crossings, faces_within
from m3bayes.decision.space import space
from m3bayes.errors import InfeasibleError, RecipeError
from m3bayes.inference.predict import loss_draws
from m3bayes.laws import chinchilla, m3
from m3bayes.recipe import Recipe
from tests.decision import synthetic
from tests.decision.synthetic import CHINCHILLA, TRUTH, posterior, scattered

C, U = 1e14, 3e5
RUNS = synthetic.runs()
POST = posterior(scattered(CHINCHILLA, 0), RUNS, chinchilla())
# a machine that uses large models better: its hours, 1e-12 N^.7 D, bind below N = CROSSING, 6 N D above
SLOW = 1e-12
MACHINE = Cost(
    "machine", Power(SLOW, 0.7, 1.0), Power(SLOW ** (-1 / 0.7), 1 / 0.7, -1 / 0.7),
    tokens_for=Power(1 / SLOW, 1.0, -0.7), unit="hours",
)  # fmt: skip
CROSSING = 1.6e6
HOURS = SLOW * CROSSING**0.7 * C / 6 / CROSSING


def ask(post=POST, **request) -> Recommendation:
    return recommend(post, **({"compute": C, "target_tokens": U} | request))


def test_a_constraint_narrows_and_never_widens():
    most = RUNS["params"].max()
    wide = ask(constraints=[at_most("N", 1e12), at_least("params", 1.0)])
    assert wide.bounds["params"].high == most and "BOUNDS_WIDENED" not in [n.code for n in wide.notes]
    assert wide.recipe == ask().recipe
    narrow = ask(constraints=[at_most("params", 2e5), at_least("D", 4e6)])
    assert narrow.recipe.params == pytest.approx(2e5) and narrow.recipe.tokens >= 4e6 * (1 - 1e-9)
    assert narrow.recipe == ask(bounds={"N": (None, 2e5), "tokens": (4e6, None)}).recipe
    assert ask(constraints=[equal("N", 1e5)]).recipe == ask(freeze={"N": 1e5}).recipe


def test_the_table_of_constraints_says_what_binds_and_how_much_room_is_left():
    found = ask(constraints=[at_most("params", 2e5)], freeze={"r": 1.0})
    table = found.constraints
    row = table.loc["params <= 2e+05 (constraint)"]
    assert row["binding"] and row["slack"] == row["relative"] == 0 and row["value"] == found.recipe.params
    held = table.loc["target_ratio = 1 (asked for)"]
    assert held["sense"] == "=" and held["binding"]
    spent = table[table["quantity"] == "compute"].iloc[0]
    assert spent["slack"] == pytest.approx(found.compute_unused) and not spent["binding"]
    rest = table[table["sense"] != "="]
    signs = np.where(rest["sense"] == "<=", 1, -1)
    assert list(rest["slack"]) == list(signs * (rest["limit"] - rest["value"]))
    assert np.all(rest["slack"] >= -1e-9 * rest["limit"]) and np.all(
        rest["binding"] == (rest["relative"] < 1e-6)
    )
    noted = {note.about[0] for note in found.notes if note.code == "AT_BOUND"}
    assert noted == set(rest["quantity"][rest["binding"].to_numpy(bool)]) >= {"params"}
    assert (
        json.loads(json.dumps(found.to_json(), allow_nan=False))["constraints"][row.name]["binding"] is True
    )


def test_two_budgets_against_a_dense_grid():
    """The optimum is where both are used up, a corner of what they allow together."""
    found = ask(freeze={"r": 1.0}, bounds={"k": (0, math.inf)}, constraints=[at_most(MACHINE, HOURS)])
    # more tokens never harm this law: of every N, as many as there may be
    N = np.geomspace(3e4, 2e7, 4001)
    D = np.minimum(np.minimum(C / 6 / N, HOURS / SLOW / N**0.7), RUNS.tokens.max())[:, None]
    c, N = POST.coefficients, N[:, None]
    mean = np.mean(c["E"] + c["A"] * N ** -c["alpha"] + c["B"] * D ** -c["beta"], axis=1)
    assert found.loss.mean <= mean.min() * (1 + 1e-9) and found.loss.mean == pytest.approx(
        mean.min(), rel=1e-4
    )
    best = found.recipe
    assert best.params == pytest.approx(CROSSING, rel=1e-6)
    assert found.compute_used == pytest.approx(C, rel=1e-6)
    row = found.constraints.iloc[-1]
    assert row["quantity"] == "hours" and row["binding"] and row["limit"] == HOURS
    assert ("hours",) in [note.about for note in found.notes if note.code == "AT_BOUND"]


def _tokens() -> tuple[float, float]:
    return float(RUNS.tokens.min()), float(RUNS.tokens.max())


def test_faces_are_cut_where_another_budget_takes_over():
    with jax.enable_x64(True):
        asked = space(
            RUNS, m3(), compute=C, target_tokens=U, cost=six_nd(), bounds={}, freeze={},
            constraints=[at_most(MACHINE, HOURS)],
        )  # fmt: skip
        (cut,) = crossings(asked)
        assert cut == pytest.approx(C / 6 / CROSSING, rel=1e-9)
        parts, excluded = faces_within(asked)
        assert set(parts) == {"monolingual", "single-stage", "two-stage"} and excluded == {}
        one = space(RUNS, m3(), compute=C, target_tokens=U, cost=six_nd(), bounds={}, freeze={})
        assert crossings(one) == []


def test_a_second_budget_that_is_used_up_first_leaves_compute():
    tight = ask(freeze={"r": 1.0}, constraints=[at_most(money(1e-14, unit="EUR"), 0.5)])
    assert tight.compute_used == pytest.approx(5e13, rel=1e-9)
    half = ask(freeze={"r": 1.0}, compute=5e13)
    assert tight.loss.mean == pytest.approx(half.loss.mean, rel=1e-9)
    unused = [note.message for note in tight.notes if note.code == "COMPUTE_UNUSED"]
    assert len(unused) == 1 and "EUR <= 0.5" in unused[0]


def test_a_budget_in_money_is_said_in_money():
    price = money(1e-14, unit="EUR")
    mine = {"mine": Recipe(2e7, U, 16.0)}
    found = ask(freeze={"r": 1.0}, cost=price, compute=1.0, baselines=mine)
    assert found.loss.mean == pytest.approx(ask(freeze={"r": 1.0}).loss.mean, rel=1e-9)
    assert found.unit == found.to_json()["units"]["compute"] == "EUR"
    assert found.compute_used == pytest.approx(1.0, rel=1e-9)
    assert "EUR, more than compute=1" in found.baselines.loc["mine", "why_not"]
    said = recommendation_text(found)
    assert "for 1 EUR and" in said and "of 1 EUR used" in said and "FLOP used" not in said
    assert "array" not in repr(found.regret) + repr(found.optimum)


@pytest.mark.parametrize(
    ("constraints", "error", "said"),
    [
        (
            [at_most("params", 1e3)],
            InfeasibleError,
            r"params >= 3e\+04 \(runs\) and params <= 1000 \(constraint\)",
        ),
        (
            [equal("N", 1e9)],
            InfeasibleError,
            r"params >= 1e\+09 \(constraint\) and params <= 2e\+07 \(runs\)",
        ),
        ([at_most(MACHINE, 1e-9)], InfeasibleError, r"already cost \S+ hours, more than hours=1e-09"),
        ([at_most("depth", 3)], RecipeError, "no variable 'depth' can be constrained"),
    ],
)
def test_infeasible_constraints_name_the_reason(constraints, error, said):
    with pytest.raises(error, match=said) as caught:
        ask(constraints=constraints)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("of", "low", "high"),
    [("params", 3.0, 2.0), ("params", math.nan, 2.0), ("params", -1.0, 2.0), (MACHINE, 0.0, math.inf)],
)
def test_constraints_that_are_none_are_refused(of, low, high):
    with pytest.raises(RecipeError, match="expected"):
        Constraint(of, low, high)


def test_two_budgets_over_all_regimes():
    """M3 with mixtures: no recipe of a random search within both budgets is better."""
    post = posterior(scattered(TRUTH, 0, spread=0.02), RUNS)
    found = ask(post, constraints=[at_most(MACHINE, HOURS)])
    random = np.random.default_rng(0)
    r = np.exp(random.uniform(math.log(0.1), 0, 20_000))
    k = np.exp(random.uniform(math.log(0.7), math.log(16), r.size))
    D = k * U / r
    N = np.minimum(C / 6 / D, (HOURS / SLOW / D) ** (1 / 0.7))
    last = np.where(
        random.uniform(size=r.size) < 0.5, r, np.minimum(1.0, r / random.uniform(0.2, 0.5, r.size))
    )
    single = last == r
    share = np.where(single, 1.0, r / last)
    low, high = _tokens()
    inside = (N >= 3e4) & (N <= 2e7) & (low <= D) & (high >= D)
    inside &= (D * (1 - r) <= RUNS.source_tokens.max()) & (single | ((share >= 0.2) & (share <= 0.5)))
    columns = {"params": N, "epochs": k, "target_ratio": r, "final_ratio": last}
    columns = {name: values[inside] for name, values in columns.items()}
    assert inside.sum() > 3000
    means = loss_draws(post, {**columns, "target_tokens": np.full(inside.sum(), U)}).mean(axis=0)
    assert found.loss.mean <= means.min()
    assert all(slack >= -1e-6 for slack in found.constraints["relative"].dropna())
