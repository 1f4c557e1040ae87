"""The transfer matrix: quantiles of the draws, and a known truth of three sources."""

from __future__ import annotations

import dataclasses
import inspect

import jax
import numpy as np
import pandas as pd
import pytest

from m3bayes.errors import LawError, M3BayesError, Note, RunTableError
from m3bayes.inference.fit import fit
from m3bayes.inference.posterior import Posterior, thinned
from m3bayes.inference.storage import load
from m3bayes.languages import fit_targets, transfer_matrix, transfer_score
from m3bayes.laws import atlas, chinchilla, m3
from m3bayes.runs import Runs, runs_from_frame
from tests.inference.synthetic import posterior, runs
from tests.languages.designs import MAIN, TRILINGUAL, by_hand, trilingual_runs

RUNS = trilingual_runs()
LAW = atlas(sources=("en", "fr", "ru"))


def measured(law, truth, table: Runs, seed: int = 0) -> Runs:
    """The losses of a law, with a scatter of one percent."""
    frame = table.frame()
    x = {name: frame[name].to_numpy() for name in law.columns}
    with jax.enable_x64(True):
        loss = jax.vmap(law.loss, in_axes=(None, 0))({name: truth[name] for name in law.names}, x)
    scatter = np.random.default_rng(seed).normal(size=len(frame))
    return runs_from_frame(frame.assign(loss=np.asarray(loss) * np.exp(0.01 * scatter)), name=table.name)


def with_tau(post: Posterior, **tau: np.ndarray) -> Posterior:
    return dataclasses.replace(post, draws={**post.draws, **tau})


def test_a_row_is_quantiles_of_the_draws():
    random = np.random.default_rng(1)
    post = with_tau(by_hand(LAW, TRILINGUAL, RUNS), tau_fr=random.normal(0.1, 0.2, (2, 200)))
    found = transfer_matrix({"uk": post}, ci=0.8)
    assert list(found.table["source"]) == ["en", "fr", "ru"] and set(found.table["target"]) == {"uk"}
    row, draws = found.table.iloc[1], np.sort(post.coefficients["tau_fr"])
    assert [row["tau_lower"], row["tau"], row["tau_upper"]] == pytest.approx(draws[[39, 199, 359]])
    assert row["probability_helps"] == np.mean(draws > 0) and 0.5 < row["probability_helps"] < 1
    assert found.table["probability_helps"].iloc[2] == 0
    assert found.table.filter(like="asymmetry").isna().all(axis=None)
    assert found.table["probability_more"].isna().all()
    (note,) = found.notes
    assert note.code == "ONE_DIRECTION" and "en to uk, fr to uk, ru to uk" in note.message


def test_asymmetry_is_one_direction_less_the_other():
    german = by_hand(atlas(sources=("en", "fr")), TRILINGUAL, RUNS)
    english = thinned(by_hand(atlas(sources=("de", "fr")), TRILINGUAL | {"tau_de": 0.3}, RUNS), 100)
    found = transfer_matrix({"de": german, "en": english})
    there, back = german.coefficients["tau_en"][::4], english.coefficients["tau_de"]
    rows = found.table.set_index(["target", "source"])
    difference = np.sort(there - back)
    assert rows.loc[("de", "en"), "asymmetry"] == pytest.approx(difference[49])
    assert rows.loc[("en", "de"), "asymmetry_lower"] == pytest.approx(-difference[-5])
    assert rows.loc[("de", "en"), "probability_more"] == 1 and rows.loc[("en", "de"), "probability_more"] == 0
    matrix = found.matrix()
    assert list(matrix.index) == ["de", "en"] and list(matrix.columns) == ["en", "fr", "de"]
    assert np.isnan(matrix.loc["de", "de"]) and matrix.loc["en", "de"] == rows.loc[("en", "de"), "tau"]
    assert np.isnan(matrix.loc["en", "en"])


def test_pairs_of_laws_with_one_source_go_in_too():
    pairs = {("en", "de"): posterior(atlas(), runs()), ("de", "en"): posterior(m3(), runs(), seed=1)}
    found = transfer_matrix({**pairs, "fi": by_hand(atlas(sources=("en",)), TRILINGUAL, RUNS)})
    assert list(zip(found.table["source"], found.table["target"], strict=True)) == [*pairs, ("en", "fi")]
    assert found.draws["en", "de"] == pytest.approx(pairs["en", "de"].coefficients["tau"])
    assert found.table["asymmetry"].notna().tolist() == [True, True, False]


def test_notes_of_the_fits_are_kept_by_pair():
    unseen = Note("UNIDENTIFIED", "tau_fr: no run depends on it", ("tau_fr",))
    other = Note("UNIDENTIFIED", "alpha", ("alpha",))
    post = by_hand(LAW, TRILINGUAL, RUNS, notes=(unseen, other), verdict="flagged")
    notes = transfer_matrix({"de": post}).notes
    about = [note.message for note in notes if note.code == "UNIDENTIFIED"]
    assert about == ["fr to de: tau_fr: no run depends on it"]
    assert sum(note.code == "POSTERIOR_FLAGGED" for note in notes) == 3


def test_dropped_sources_are_left_out():
    post = by_hand(atlas(sources=("en", "fr"), drop=("tau_fr",)), TRILINGUAL, RUNS)
    assert list(transfer_matrix({"de": post}).table["source"]) == ["en"]


def test_a_known_truth_of_three_sources_is_recovered(tmp_path):
    truth = TRILINGUAL
    post = fit(measured(LAW, truth, RUNS), LAW, chains=2, draws=500, progress=False)
    for name in ("tau_en", "tau_fr", "tau_ru"):
        draws = post.coefficients[name]
        assert abs(draws.mean() - truth[name]) < 4 * draws.std()
        assert draws.std() < 0.1  # .3 in the prior
    row = transfer_matrix({"uk": post}).table.set_index("source").loc["ru"]
    assert row["probability_helps"] < 0.05
    # the law is made again from the file's own options
    post.save(tmp_path / "post.nc")
    again = load(tmp_path / "post.nc")
    assert again.law is LAW
    np.testing.assert_array_equal(again.draws["tau_en"], post.draws["tau_en"])


def test_a_fit_for_each_target():
    german = RUNS.frame().assign(language="de", en_tokens=RUNS["en_tokens"])
    english = RUNS.frame().rename(columns=lambda name: name.replace("en_", "de_", 1)).assign(language="en")
    table = runs_from_frame(pd.concat([german, english], ignore_index=True).fillna(0.0))
    options = {"chains": 1, "warmup": 50, "draws": 50, "allow": "flagged", "progress": False}
    posts = fit_targets(table, ["de", "en", "fr", "ru"], similarity={("fr", "de"): 1.0}, **options)
    assert list(posts) == ["de", "en"]
    assert posts["de"].law is atlas(sources=("en", "fr", "ru"), similarity={"fr": 1.0})
    assert posts["en"].law is atlas(sources=("de", "fr", "ru"), similarity={})
    assert set(posts["en"].runs["language"]) == {"en"} and len(posts["en"].runs) == 60
    pairs = set(transfer_matrix(posts).draws)
    assert {("en", "de"), ("de", "en"), ("ru", "en")} < pairs and len(pairs) == 6
    by_family = fit_targets(table.select(slice(0, 60)), ["en", "fr"], similarity="family", **options)
    assert by_family["de"].law is atlas(sources=("en", "fr"), target="de")
    with pytest.raises(RunTableError, match="reads column 'fi_tokens'"):
        fit_targets(table, ["fi"], **options)


def test_a_score_of_one_of_several_sources():
    post = by_hand(LAW, TRILINGUAL, RUNS)
    for source in ("en", "ru"):
        found = transfer_score(post, 2e9, source=source)
        assert found.scores[:, 0] == pytest.approx(2 - 2 / (1 + post.coefficients[f"tau_{source}"]), abs=1e-9)
    for source in (None, "fi"):
        with pytest.raises(LawError, match=f"sources en, fr, ru and source is {source!r}"):
            transfer_score(post, 2e9, source=source)
    with pytest.raises(LawError, match="law m3 has no named sources"):
        transfer_score(posterior(m3(), runs()), 2e9, source="en")


def test_what_is_refused():
    post = by_hand(LAW, TRILINGUAL, RUNS)
    with pytest.raises(LawError, match="law chinchilla has no named sources"):
        transfer_matrix({"de": by_hand(chinchilla(), MAIN, RUNS)})
    with pytest.raises(LawError, match="en to de: law atlas has no coefficient tau"):
        transfer_matrix({("en", "de"): post})
    with pytest.raises(M3BayesError, match="en to de is given by two posteriors"):
        transfer_matrix({"de": post, ("en", "de"): posterior(atlas(), runs())})
    with pytest.raises(M3BayesError, match=r"posteriors are list; expected \{target: posterior\}"):
        inspect.unwrap(transfer_matrix)([post])
    with pytest.raises(M3BayesError, match="there is no posterior"):
        transfer_matrix({})
    with pytest.raises(M3BayesError, match="ci is 90"):
        transfer_matrix({"de": post}, ci=90)
