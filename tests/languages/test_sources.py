"""Which sources to add: against grids over recipes and mixes, against single sources, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from m3bayes import constraints, cost
from m3bayes.decision import recommend
from m3bayes.decision import risk as risks
from m3bayes.errors import InfeasibleError, LawError, Note, RecipeError
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import loss_draws
from m3bayes.languages import recommend_sources
from m3bayes.laws import atlas, m3
from m3bayes.laws.departing import departing, edges_of
from m3bayes.runs import runs_from_frame
from tests.inference.synthetic import posterior, runs
from tests.languages.designs import TRILINGUAL, by_hand, trilingual_runs

RUNS = trilingual_runs()
SOURCES = ("en", "fr", "ru")
LAW = atlas(sources=SOURCES)
BUDGET = {"compute": 3e19, "target_tokens": 5e8}
THERE_IS = {"en": 1.5e9, "fr": 3e9, "ru": 6e9}


def unsure(spread: float = 0.25, seed: int = 0, **centres: float) -> Posterior:
    """Draws that disagree about which source is worth most."""
    random = np.random.default_rng(seed)
    post = by_hand(LAW, TRILINGUAL, RUNS, draws=100)
    centres = {"en": 0.5, "fr": 0.4, "ru": 0.2} | centres
    tau = {f"tau_{s}": np.clip(random.normal(centres[s], spread, (2, 100)), -0.98, 0.98) for s in SOURCES}
    return dataclasses.replace(post, draws={**post.draws, **tau})


def worth(k, repetition):
    extra = np.maximum(k - 1, 0)
    return np.where(k <= 1, k, 1 + (1 - np.exp(-repetition * extra)) / repetition)


def losses(post: Posterior, N, k, D_i, unique: dict[str, float], U: float) -> np.ndarray:
    """(draw, recipe), from the formula; D_i is (recipe, source)."""
    c = {name: values[:, None] for name, values in post.coefficients.items()}
    Q = U * worth(k, c["lambda"])
    gain = sum(
        c[f"tau_{s}"] * unique[s] * worth(D_i[:, i] / unique[s], c["lambda"]) for i, s in enumerate(SOURCES)
    )
    z = 1 + gain / Q
    D_eff = Q * np.where(z >= 0.5, z, 0.25 / (1 - np.minimum(z, 0.5)))
    return c["E"] + c["A"] * N ** -c["alpha"] + c["B"] * D_eff ** -c["beta"]


def lowest_on_grids(
    post: Posterior,
    of_losses: Callable[[np.ndarray], np.ndarray],
    asked: dict,
    most: np.ndarray,
    least_source: float = 0.0,
) -> float:
    """The least risk over grids of k and the tokens of each source that zoom in on the best, N spending all."""
    U, ends = asked["target_tokens"], np.log([RUNS["epochs"].min(), RUNS["epochs"].max()])
    centre, width, best = np.full(4, 0.5), 0.5, np.inf
    for zoom in range(14):
        steps = np.linspace(-1, 1, 9 if zoom == 0 else 5)
        t = np.clip(centre + width * np.array(list(product(steps, repeat=4))), 0, 1)
        k, D_i = np.exp(ends[0] + t[:, 0] * (ends[1] - ends[0])), t[:, 1:] * most
        S = D_i.sum(axis=1)
        D = k * U + S
        N = np.minimum(RUNS["params"].max(), asked["compute"] / 6 / D)
        r = k * U / D
        fine = (RUNS["params"].min() <= N) & (r >= RUNS["target_ratio"].min()) & (least_source <= S)
        fine &= (RUNS.tokens.min() <= D) & (RUNS.tokens.max() >= D) & (RUNS.source_tokens.max() >= S)
        values = np.full(len(t), np.inf)
        values[fine] = of_losses(losses(post, N[fine], k[fine], D_i[fine], asked["unique_tokens"], U))
        best, centre = min(best, values.min()), t[np.argmin(values)]
        width *= 0.5
    return float(best)


def tail(values: np.ndarray) -> np.ndarray:
    """Mean of the worst fifth."""
    return np.sort(values, axis=0)[-len(values) // 5 :].mean(axis=0)


CASES = {
    "all that helps": (by_hand(LAW, TRILINGUAL, RUNS, draws=100), {}, {}),
    "unsure": (unsure(), {}, {}),
    "little compute": (unsure(seed=1), {"compute": 3e17}, {}),
    "repeated": (unsure(seed=2), {"source_epochs": 3, "compute": 1e20}, {}),
    "harm that must be": (
        unsure(en=-0.2, fr=-0.3, ru=-0.3),
        {"unique_tokens": {"en": 1e9, "fr": 2e9, "ru": 6e9}, "bounds": {"S": (4e9, None)}},
        {"least_source": 4e9},
    ),
    "fearful": (unsure(0.4), {"risk": risks.cvar(0.8)}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_no_worse_than_grids_and_single_sources(case):
    post, changes, also = CASES[case]
    asked = {**BUDGET, "unique_tokens": THERE_IS, **changes}
    found = recommend_sources(post, **asked)
    of_losses = tail if "risk" in asked else (lambda values: values.mean(axis=0))
    recipe = found.recipe
    D_i = np.array([[recipe.extra[f"{s}_tokens"] for s in SOURCES]])
    own = losses(post, recipe.params, recipe.epochs, D_i, asked["unique_tokens"], 5e8)
    np.testing.assert_allclose(own[:, 0], loss_draws(post, recipe)[:, 0], rtol=1e-12)
    risk = float(of_losses(own)[0])
    most = found.sources["most"].to_numpy()
    on_grids = lowest_on_grids(post, of_losses, asked, most, **also)
    assert risk <= on_grids + 1e-9
    assert risk == pytest.approx(on_grids, abs=2e-3)  # the grids are not blind either
    alone = found.alone[found.alone["why_not"] == ""]
    assert (risk <= alone["risk"] + 1e-12).all()
    assert recipe.source_tokens == pytest.approx(D_i.sum(), rel=1e-12, abs=1e-3)
    assert (D_i <= most * (1 + 1e-12)).all() and (D_i >= 0).all()
    assert 6 * recipe.params * recipe.tokens <= asked["compute"] * (1 + 1e-9)


def test_draws_that_disagree_ask_for_a_mixture():
    """Two sources alike but for the draws: the best is half of each, though each draw would take one of them."""
    random = np.random.default_rng(3)
    tau = random.uniform(0.1, 0.9, (2, 50))
    post = by_hand(LAW, TRILINGUAL, RUNS, draws=100)
    draws = dict(post.draws)
    draws["tau_en"], draws["tau_fr"] = (
        np.concatenate([tau, 1 - tau], axis=1),
        np.concatenate([1 - tau, tau], axis=1),
    )
    post = dataclasses.replace(post, draws=draws | {name: np.full((2, 100), TRILINGUAL[name]) for name in
                                                    ("E", "A", "B", "alpha", "beta", "lambda", "tau_ru")})  # fmt: skip
    found = recommend_sources(
        post, **BUDGET, unique_tokens=dict.fromkeys(SOURCES, 6e9), freeze={"source_tokens": 4e9}
    )
    assert found.mix == pytest.approx({"en": 0.5, "fr": 0.5, "ru": 0.0}, abs=1e-4)
    assert found.gain is not None and found.gain.mean > 0
    assert found.alone.loc["en", "probability_better"] == pytest.approx(0.5, abs=0.05)
    assert found.alone.loc["ru", "probability_better"] == 0


def test_what_the_tables_say():
    post = by_hand(LAW, TRILINGUAL, RUNS, draws=100)
    found = recommend_sources(post, **BUDGET, unique_tokens=THERE_IS, ci=0.8)
    assert list(found.sources.index) == list(SOURCES)
    assert list(found.alone.index) == [*SOURCES, "none"]
    assert found.sources["used_up"].tolist() == [True, True, False]
    assert found.sources["epochs"].tolist() == pytest.approx([1, 1, 0])
    assert found.mix == pytest.approx({"en": 1 / 3, "fr": 2 / 3, "ru": 0})
    assert [note.about for note in found.notes if note.code == "USED_UP"] == [("en",), ("fr",)]
    middle = np.quantile(post.coefficients["tau_en"], [0.1, 0.5, 0.9])
    assert found.sources.loc["en", ["tau_lower", "tau", "tau_upper"]].tolist() == pytest.approx(middle)
    assert found.best_alone == found.alone.loc[list(SOURCES), "risk"].idxmin()
    alone = found.alone.loc[found.best_alone]
    assert found.gain.mean == pytest.approx(alone["loss_mean"] - found.loss.mean, abs=1e-9)
    assert found.gain.mean == pytest.approx(alone["gain"])
    assert found.alone.loc["none", "source_tokens"] == 0 and found.alone.loc["none", "target_ratio"] == 1
    # a harmful source alone is best not taken
    assert found.alone.loc["ru", "risk"] == pytest.approx(found.alone.loc["none", "risk"], rel=1e-9)
    content = found.to_json()
    assert content["recipe"]["en_tokens"] == pytest.approx(1.5e9)
    assert content["alone"]["none"]["probability_better"] == 0 and content["gain"]["mean"] == found.gain.mean


def test_the_most_of_a_source_is_that_of_the_runs_unless_widened():
    post = by_hand(LAW, TRILINGUAL, RUNS, draws=100)
    asked = {**BUDGET, "compute": 1e21, "unique_tokens": {"en": 1e11, "fr": 0, "ru": 0}}
    asked["bounds"] = {"tokens": (None, np.inf), "source_tokens": (None, np.inf), "target_ratio": (1e-3, None),
                       "final_ratio": (1e-3, None)}  # fmt: skip
    found = recommend_sources(post, **asked)
    assert found.sources.loc["en", "most"] == RUNS["en_tokens"].max()
    assert found.sources.loc["en", "most_from"] == "runs" and found.sources.loc["en", "used_up"]
    assert found.sources.loc["fr", "most"] == 0
    wider = recommend_sources(post, **{**asked, "bounds": {**asked["bounds"], "en_tokens": (0, 3e10)}})
    assert wider.recipe.extra["en_tokens"] == pytest.approx(3e10)
    said = [note for note in wider.notes if note.code == "BOUNDS_WIDENED" and note.about == ("en_tokens",)]
    assert len(said) == 1 and wider.loss.mean < found.loss.mean


def test_units_of_the_table_do_not_matter():
    post = by_hand(LAW, TRILINGUAL, RUNS, draws=100)
    frame = RUNS.frame()
    frame["params"] /= 1e6
    frame[[name for name in frame if name.endswith("tokens")]] /= 1e9
    draws = dict(post.draws)
    draws["A"] = draws["A"] * 1e6 ** -draws["alpha"]
    draws["B"] = draws["B"] * 1e9 ** -draws["beta"]
    other = dataclasses.replace(
        post, runs=runs_from_frame(frame, unit_params=1e6, unit_tokens=1e9), draws=draws
    )
    one = recommend_sources(post, **BUDGET, unique_tokens=THERE_IS)
    two = recommend_sources(
        other, compute=3e19, target_tokens=0.5, unique_tokens={s: n / 1e9 for s, n in THERE_IS.items()}
    )
    assert two.recipe.params * 1e6 == pytest.approx(one.recipe.params, rel=1e-6)
    assert two.mix == pytest.approx(one.mix, abs=1e-9)
    assert two.loss.mean == pytest.approx(one.loss.mean, rel=1e-9)


def test_a_second_budget_and_held_variables():
    post = unsure()
    hours = cost.hours(1e15, 0.4)
    found = recommend_sources(
        post,
        **BUDGET,
        unique_tokens=THERE_IS,
        freeze={"r": 0.5},
        constraints=[constraints.at_most(hours, 10)],
    )
    assert found.recipe.target_ratio == found.recipe.final_ratio == pytest.approx(0.5)
    spent = 6 * found.recipe.params * found.recipe.tokens / (3600 * 4e14)
    assert spent <= 10 * (1 + 1e-9) and found.compute_used < 3e19
    assert "target_ratio" in found.alone.loc["none", "why_not"]


def test_where_all_is_held_nothing_is_searched():
    post = by_hand(LAW, TRILINGUAL, RUNS, draws=100)
    found = recommend_sources(post, **BUDGET, unique_tokens=THERE_IS, freeze={"N": 3e8, "k": 2, "r": 1})
    assert (found.recipe.params, found.recipe.epochs, found.recipe.target_ratio) == pytest.approx((3e8, 2, 1))
    assert set(found.mix.values()) == {0.0} and found.gain is not None and found.gain.mean == 0


def test_a_posterior_that_departs_beyond_the_runs_may_be_asked():
    post = by_hand(LAW, TRILINGUAL, RUNS, draws=100)
    x = {name: RUNS[name] for name in LAW.columns}
    departed = departing(LAW, edges_of(x))
    none = {name: np.zeros((2, 100)) for name in departed.names if name not in LAW.names}
    post = dataclasses.replace(post, law=departed, draws={**post.draws, **none})
    asked = {**BUDGET, "unique_tokens": THERE_IS}
    same = recommend_sources(by_hand(LAW, TRILINGUAL, RUNS, draws=100), **asked)
    assert recommend_sources(post, **asked).loss.mean == pytest.approx(same.loss.mean, rel=1e-9)


def test_notes_of_the_fit_are_kept():
    unseen = Note("UNIDENTIFIED", "tau_ru: no run depends on it", ("tau_ru",))
    post = by_hand(LAW, TRILINGUAL, RUNS, draws=100, notes=(unseen,), verdict="flagged")
    codes = [note.code for note in recommend_sources(post, **BUDGET, unique_tokens=THERE_IS).notes]
    assert "UNIDENTIFIED" in codes and codes[0] == "POSTERIOR_FLAGGED"


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"unique_tokens": {"en": 1e9}}, RecipeError, "unique_tokens lacks fr"),
        ({"unique_tokens": {**THERE_IS, "fi": 1.0}}, RecipeError, "unique_tokens has 'fi', which is none"),
        ({"unique_tokens": {**THERE_IS, "fr": -1.0}}, RecipeError, "unique_tokens of fr is -1"),
        ({"source_epochs": 0}, RecipeError, "source_epochs is 0"),
        ({"risk": risks.regret_cvar(0.9)}, RecipeError, "risk regret-cvar:0.9 counts from the best mix of each draw"),
        ({"freeze": {"en_tokens": 1e9}}, RecipeError, "en_tokens cannot be frozen"),
        ({"bounds": {"en_tokens": (1e9, None)}}, RecipeError, "bounds of en_tokens are"),
        ({"bounds": {"depth": (1, 2)}}, RecipeError, "no variable 'depth' can be bounded"),
        ({"ci": 90}, RecipeError, "ci is 90"),
        ({"compute": 1e9}, InfeasibleError, "already cost"),
        ({"unique_tokens": dict.fromkeys(SOURCES, 1e8), "bounds": {"S": (1e9, None)}}, InfeasibleError,
         r"source_tokens >= 1e\+09 \(asked for\), but there are 3e\+08 of all sources"),
        ({"freeze": {"last_stage_share": 0.5}}, InfeasibleError, "last_stage_share"),
    ],
)  # fmt: skip
def test_what_is_refused(changes, error, said):
    post = by_hand(LAW, TRILINGUAL, RUNS, draws=100)
    with pytest.raises(error, match=said):
        recommend_sources(post, **{**BUDGET, "unique_tokens": THERE_IS, **changes})


def test_a_law_without_named_sources_is_refused():
    for law in (m3(), atlas()):
        with pytest.raises(LawError, match="has no named sources"):
            recommend_sources(posterior(law, runs()), **BUDGET, unique_tokens=THERE_IS)


def test_one_source_is_what_recommend_finds():
    """By the search over faces, with the same draws in the law that knows one source alone."""
    one, plain = (
        by_hand(law, TRILINGUAL | {"tau": 0.3, "tau_en": 0.3}, RUNS, draws=100)
        for law in (atlas(sources=("en",)), atlas())
    )
    asked = {"compute": 1e18, "target_tokens": 5e8}
    found = recommend_sources(one, **asked, unique_tokens={"en": 1e12}, bounds={"en_tokens": (0, np.inf)})
    expected = recommend(plain, **asked, freeze={"last_stage_share": 1})
    assert found.loss.mean == pytest.approx(expected.loss.mean, rel=1e-9)
    assert found.recipe.source_tokens == pytest.approx(expected.recipe.source_tokens, rel=1e-3)


def test_text_that_is_left_over_is_no_extrapolation():
    post = by_hand(LAW, TRILINGUAL, RUNS, draws=100)
    found = recommend_sources(
        post, compute=1e19, target_tokens=5e8, unique_tokens=dict.fromkeys(SOURCES, 1e13)
    )
    D, U = (found.recipe.extra[name] for name in ("en_tokens", "en_unique_tokens"))
    assert 0 < D == U and found.sources.loc["en", "epochs"] == pytest.approx(D / 1e13)
    assert not any("unique_tokens" in name for note in found.notes for name in note.about)
