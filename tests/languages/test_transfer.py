"""Transfer scores: against the closed forms of ATLAS and M3, roots of the law, and laws that never get there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.optimize import brentq

from m3bayes.errors import LawError, M3BayesError
from m3bayes.inference.posterior import thinned
from m3bayes.languages import fit_pairs, pair_scores, transfer_score
from m3bayes.laws import additive_law, atlas, chinchilla, m3, multilingual, target_ratio
from m3bayes.runs import runs_from_frame
from tests.inference.synthetic import posterior, runs
from tests.languages.designs import MAIN, MULTILINGUAL, by_hand, multilingual_runs
from tests.laws.surfaces import naive, recipe

RUNS = runs()


def test_atlas_has_a_closed_form():
    post = posterior(atlas(), RUNS)
    post = dataclasses.replace(post, draws=dict(post.draws, tau=post.draws["tau"] - 0.3))  # harm and help
    found = transfer_score(post, [1e9, 2e9])
    tau = post.coefficients["tau"]
    assert tau.min() < 0 < tau.max()
    for column in range(2):
        assert found.scores[:, column] == pytest.approx(2 - 2 / (1 + tau), abs=1e-9)
    row, ordered = found.table.iloc[1], np.sort(found.scores[:, 1])
    assert [row["score_lower"], row["score"], row["score_upper"]] == pytest.approx(
        [ordered[19], ordered[199], ordered[379]]
    )
    assert row["bilingual_tokens"] == pytest.approx(2e9 * (2 - ordered[200]), rel=1e-9)
    assert row["never"] == 0


@pytest.mark.parametrize("params", [None, 3e9])
@pytest.mark.parametrize("drop", [(), ("eta",)])
def test_m3_has_a_closed_form(params, drop):
    post = posterior(m3(drop=drop), RUNS)
    c = {"eta": 1.0} | post.coefficients
    expected = 2 - 2 ** (1 + c["gamma"]) / (1 + c["tau"] / c["eta"]) ** c["eta"]
    found = transfer_score(post, 1e9, params=params)
    assert found.scores[:, 0] == pytest.approx(expected, abs=1e-9)
    size = np.exp(np.mean(np.log(RUNS["params"]))) if params is None else params
    assert found.params == pytest.approx(size)


def test_other_laws_against_a_root_of_their_formula():
    post = thinned(posterior(m3(), RUNS), 3)
    found = transfer_score(post, 3e9, params=1e8)
    for draw in range(3):
        c = {name: float(values[draw]) for name, values in post.coefficients.items()}
        wanted = naive(m3(), c, recipe(params=1e8, target_tokens=3e9))

        def above(log_sigma: float, c=c, wanted=wanted) -> float:
            half = float(np.exp(log_sigma)) / 2
            x = recipe(params=1e8, target_tokens=half, target_ratio=0.5, final_ratio=0.5)
            return naive(m3(), c, x) - wanted

        sigma = np.exp(brentq(above, np.log(3e7), np.log(3e11), xtol=1e-13))
        assert found.scores[draw, 0] == pytest.approx(2 - sigma / 3e9, abs=1e-8)


def test_losses_that_are_never_reached_count_as_minus_infinity():
    law = target_ratio()
    gamma = np.where(np.arange(400).reshape(2, 200) % 4 == 0, 0.9, 0.02)
    plain = posterior(chinchilla(), RUNS)
    post = dataclasses.replace(plain, law=law, draws={**plain.draws, "gamma": gamma})
    found = transfer_score(post, 3e9, params=1e9)
    never = np.isinf(found.scores[:, 0])
    # 2^.9 times E and the model term are more than the loss: no text helps
    np.testing.assert_array_equal(never, gamma.ravel() == 0.9)
    row = found.table.iloc[0]
    assert row["never"] == 0.25 and row["score_lower"] == -np.inf and np.isfinite(row["score"])
    assert row["score"] == np.sort(found.scores[:, 0])[199]
    note = next(note for note in found.notes if note.code == "NEVER_REACHED")
    assert "0.25 of the draws" in note.message


def test_two_posteriors_are_compared_draw_by_draw():
    one, other = (by_hand(chinchilla(), MAIN | {"B": B}, RUNS, spread=0.0) for B in (900.0, 800.0))
    found = transfer_score(one, 1e9, bilingual=thinned(other, 100))
    assert found.scores.shape == (100, 1)
    # B_2 (sigma / 2)^-beta = B_1 d^-beta
    assert found.scores == pytest.approx(2 - 2 * (800 / 900) ** (1 / MAIN["beta"]), abs=1e-9)
    in_billions = runs_from_frame(RUNS.frame(), unit_tokens=1e9)
    with pytest.raises(M3BayesError, match="unlike units"):
        transfer_score(one, 1e9, bilingual=dataclasses.replace(other, runs=in_billions))


def test_the_multilingual_law_is_asked_for_one_language_and_two():
    post = by_hand(multilingual(drop=("phi",)), MULTILINGUAL, multilingual_runs())
    c = post.coefficients
    found = transfer_score(post, 1e9).scores[:, 0]
    assert found == pytest.approx(2 - 2 ** (1 + c["psi"] / c["beta"]), abs=1e-9)


def test_a_law_that_does_not_know_source_text_says_so():
    for law, score in ((chinchilla(), 0), (chinchilla("all"), 1)):
        found = transfer_score(posterior(law, RUNS), 1e9)
        assert found.scores == pytest.approx(score, abs=1e-9)
        assert f"every draw has score {score}" in found.notes[0].message
    assert "SCORE_FIXED" not in {note.code for note in transfer_score(posterior(atlas(), RUNS), 1e9).notes}


def test_notes_say_which_model_extrapolates():
    post = posterior(atlas(), RUNS)
    messages = [note.message for note in transfer_score(post, 1e13).notes if note.code == "EXTRAPOLATION"]
    assert [message.split(":")[0] for message in messages] == ["monolingual", "bilingual"]


def test_asymmetry_is_of_pairs_measured_both_ways():
    there, back = posterior(atlas(), RUNS), posterior(atlas(), RUNS, seed=1)
    alone = posterior(atlas(), RUNS, seed=2)
    found = pair_scores({("en", "de"): there, ("de", "en"): back, ("en", "fr"): alone}, [1e9, 3e9])
    table = found.table
    assert list(zip(table["source"], table["target"], strict=True))[::2] == [
        ("en", "de"), ("de", "en"), ("en", "fr"),
    ]  # fmt: skip
    first, second = (2 - 2 / (1 + post.coefficients["tau"]) for post in (there, back))
    assert table["asymmetry"].iloc[0] == pytest.approx(np.sort(first - second)[199], abs=1e-8)
    assert table["asymmetry_lower"].iloc[2] == pytest.approx(np.sort(second - first)[19], abs=1e-8)
    assert table.filter(like="asymmetry").iloc[4:].isna().all(axis=None)
    (note,) = [note for note in found.notes if note.code == "ONE_DIRECTION"]
    assert note.message.startswith("en to fr: the other direction was not measured")


def test_a_pair_is_a_source_and_a_language():
    frame = RUNS.frame().assign(source=["en", "en", "fr"] * 20, language=["de", "fi", "de"] * 20)
    posts = fit_pairs(
        runs_from_frame(frame), chinchilla(), chains=1, warmup=50, draws=50, allow="flagged", progress=False
    )
    assert list(posts) == [("en", "de"), ("en", "fi"), ("fr", "de")]
    for (source, target), post in posts.items():
        assert set(post.runs["source"]) == {source} and set(post.runs["language"]) == {target}
        assert len(post.runs) == 20


def test_what_is_refused():
    own = additive_law(
        "own",
        lambda c, x: {"E": x["depth"] * 1.0},
        [chinchilla()["E"]],
        columns=(*chinchilla().columns, "depth"),
    )
    with pytest.raises(LawError, match="law own reads column depth"):
        transfer_score(by_hand(own, MAIN, RUNS), 1e9)
    with pytest.raises(M3BayesError, match="tokens is -1"):
        transfer_score(posterior(atlas(), RUNS), -1)
    for tokens in (1e300, [1e9, 1e200]):
        with pytest.raises(
            M3BayesError, match=r"tokens is 1e\+[23]00: with so many the loss no longer changes"
        ):
            transfer_score(posterior(atlas(), RUNS), tokens)
    with pytest.raises(M3BayesError, match="params is 0"):
        transfer_score(posterior(atlas(), RUNS), 1e9, params=0)
