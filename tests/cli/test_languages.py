"""``m3bayes multilinguality``, ``crossover`` and ``transfer``: what is printed, drawn and refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from m3bayes.cli import main
from m3bayes.languages import crossover, equal_loss, transfer_matrix, transfer_score
from m3bayes.laws import atlas, continued, multilingual
from m3bayes.runs import runs_from_frame
from tests.cli.conftest import handmade
from tests.languages.designs import (
    CONTINUED,
    MULTILINGUAL,
    TRILINGUAL,
    by_hand,
    continued_runs,
    multilingual_runs,
    trilingual_runs,
)

MANY = by_hand(multilingual(), MULTILINGUAL, multilingual_runs())
STARTS = by_hand(continued(), CONTINUED, continued_runs())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("languages")
    for name, post in (("many", MANY), ("starts", STARTS)):
        post.save(folder / f"{name}.nc")
    return folder


def test_multilinguality(files, tmp_path, capsys):
    figure = tmp_path / "factors.png"
    asked = ["multilinguality", str(files / "many.nc"), "--times", "2,4"]
    assert main([*asked, "--figure", str(figure)]) == 0
    shown = capsys.readouterr()
    assert "As published" in shown.out and "1.401" in shown.out and "90% intervals" in shown.out
    assert figure.stat().st_size > 10_000 and f"wrote {figure}" in shown.err
    assert main([*asked, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    expected = equal_loss(MANY, [2, 4])
    for row, (_, wanted) in zip(content["factors"], expected.table.iterrows(), strict=True):
        assert row == pytest.approx(wanted.to_dict())
    assert content["exponents"]["tokens"]["upper"] == pytest.approx(expected.exponents["tokens"].upper)
    assert content["published"][1]["tokens"] == pytest.approx(2.74, abs=0.006)


def test_crossover(files, tmp_path, capsys):
    figure = tmp_path / "crossover.svg"
    asked = ["crossover", str(files / "starts.nc"), "--params", "1e8,2e9", "--ci", "0.8"]
    assert main([*asked, "--figure", str(figure)]) == 0
    shown = capsys.readouterr()
    assert "80% intervals" in shown.out and "grows as params to the power 1.6" in shown.out
    assert "EXTRAPOLATION" in shown.err and figure.stat().st_size > 10_000
    assert main([*asked, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    expected = crossover(STARTS, [1e8, 2e9], ci=0.8)
    assert content["crossover"][0] == pytest.approx(expected.table.iloc[0].to_dict())
    assert content["exponent"]["lower"] == pytest.approx(expected.exponent.lower)
    assert content["tokens_range"] == [2e8, 2e11]


def test_what_never_crosses_is_null_in_json(tmp_path, capsys):
    rho = np.full((2, 200), 1.3)
    dataclasses.replace(STARTS, draws={**STARTS.draws, "rho": rho}).save(tmp_path / "post.nc")
    assert main(["crossover", str(tmp_path / "post.nc"), "--params", "1e8", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["crossover"]
    assert row["tokens"] is None and row["never"] == 1


def test_transfer(passed, tmp_path, capsys):
    figure = tmp_path / "scores.pdf"
    asked = ["transfer", str(passed), "--tokens", "1e5,1e6"]
    assert main([*asked, "--figure", str(figure)]) == 0
    shown = capsys.readouterr()
    assert "Transfer scores at" in shown.out and figure.stat().st_size > 5_000
    assert main([*asked, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    expected = transfer_score(handmade(), [1e5, 1e6])
    assert content["scores"][1] == pytest.approx(expected.table.iloc[1].to_dict())
    assert content["params"] == pytest.approx(expected.params)
    # a posterior beside itself: the same draws, paired
    assert main([*asked, "--bilingual", str(passed), "--params", "1e6", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["params"] == 1e6 and content["bilingual"]["law"] == "m3"
    assert content["scores"][0]["score"] == pytest.approx(expected.table["score"].iloc[0])


def of_target(language: str | list[str], sources: tuple[str, ...], **columns):
    """A posterior by hand, of runs of a language."""
    table = runs_from_frame(trilingual_runs().frame().assign(language=language, **columns))
    return by_hand(atlas(sources=sources), TRILINGUAL | {"tau_de": 0.7, "tau": 0.2}, table)


def test_the_transfer_matrix(tmp_path, capsys):
    posts = {"de": of_target("de", ("en", "fr")), "en": of_target("en", ("de",))}
    for name, post in posts.items():
        post.save(tmp_path / f"{name}.nc")
    of_target("fi", (), source="en").save(tmp_path / "pair.nc")
    paths = [str(tmp_path / f"{name}.nc") for name in ("de", "en", "pair")]
    figure = tmp_path / "matrix.png"
    assert main(["transfer", *paths, "--matrix", "--figure", str(figure)]) == 0
    shown = capsys.readouterr()
    assert "Worth of a source token in target tokens" in shown.out and "target by source" in shown.out
    assert figure.stat().st_size > 10_000 and "ONE_DIRECTION" in shown.err
    assert main(["transfer", *paths, "--matrix", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [(row["source"], row["target"]) for row in content["pairs"]] == [
        ("en", "de"), ("fr", "de"), ("de", "en"), ("en", "fi"),
    ]  # fmt: skip
    expected = transfer_matrix(posts).table.iloc[0]
    assert content["pairs"][0] == pytest.approx(expected.to_dict())
    assert content["pairs"][3]["asymmetry"] is None and len(content["posteriors"]) == 3


def test_a_score_of_one_source(tmp_path, capsys):
    post = of_target("de", ("en", "fr"))
    post.save(tmp_path / "de.nc")
    asked = ["transfer", str(tmp_path / "de.nc"), "--tokens", "2e9"]
    assert main([*asked, "--source", "fr", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["scores"]
    assert row["score"] == pytest.approx(transfer_score(post, 2e9, source="fr").table["score"].iloc[0])
    assert main(asked) == 2
    assert "law atlas has sources en, fr" in capsys.readouterr().err


def test_a_matrix_needs_one_language_a_posterior(tmp_path, capsys):
    path = tmp_path / "mixed.nc"
    of_target(["de", "fi"] * 30, ("en",)).save(path)
    assert main(["transfer", str(path), "--matrix"]) == 2
    assert "column language of its runs has 'de', 'fi'; expected one language" in capsys.readouterr().err
    of_target("de", ("en",)).save(path)
    assert main(["transfer", str(path), str(path), "--matrix"]) == 2
    assert "of the same languages as another posterior, de" in capsys.readouterr().err
    for wrong in (["--matrix", "--source", "en"], ["--tokens", "1e9", "--matrix"], []):
        assert main(["transfer", str(path), *wrong]) == 2
    assert main(["transfer", str(path), str(path), "--tokens", "1e9"]) == 2
    assert "--tokens takes one posterior, not 2" in capsys.readouterr().err


def test_sources_of_a_law_are_named_on_the_command_line(tmp_path, capsys):
    """The fit itself is refused for the column that is missing."""
    table = tmp_path / "runs.csv"
    trilingual_runs().frame().drop(columns="fr_unique_tokens").to_csv(table, index=False)
    asked = ["fit", str(table), "--law", "atlas", "--sources", "en,fr", "--out", str(tmp_path / "post.nc")]
    assert main(asked) == 2
    assert "law atlas reads column 'fr_unique_tokens'" in capsys.readouterr().err
    assert main(["fit", str(table), "--sources", "en", "--out", str(tmp_path / "post.nc")]) == 2
    assert "law m3 has no option 'sources'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["multilinguality", "PASSED"], "of law m3; expected one of law multilingual"),
        (["crossover", "PASSED", "--params", "1e8"], "expected one of law continued"),
        (["crossover", "PASSED"], "--params"),
        (["crossover", "PASSED", "--params", "1e8,x"], "expected a number above 0, got 'x'"),
        (["transfer", "PASSED", "--tokens", "1e6", "--figure", "scores.txt"], "expected a name that ends in"),
    ],
)
def test_what_is_refused_exits_with_2(passed, command, said, capsys):
    assert main([str(passed) if word == "PASSED" else word for word in command]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and said in shown.err


def test_flagged_posteriors_exit_with_3(flagged, passed, capsys):
    assert main(["transfer", str(flagged), "--tokens", "1e6"]) == 3
    assert main(["transfer", str(passed), "--bilingual", str(flagged), "--tokens", "1e6"]) == 3
    assert "flagged" in capsys.readouterr().err
    assert main(["transfer", str(flagged), "--tokens", "1e6", "--allow", "flagged"]) == 0
