"""``m3bayes sources``: what is printed, written and refused."""

from __future__ import annotations

import json

import pytest

from m3bayes.cli import main
from m3bayes.languages import recommend_sources
from m3bayes.laws import atlas
from tests.languages.designs import TRILINGUAL, by_hand, trilingual_runs

POST = by_hand(atlas(sources=("en", "fr", "ru")), TRILINGUAL, trilingual_runs())
ASKED = {"compute": 3e19, "target_tokens": 5e8, "unique_tokens": {"en": 1.5e9, "fr": 3e9, "ru": 0.0}}
WORDS = ["--compute", "3e19", "--target-tokens", "5e8"]
THERE_IS = [word for s, n in ASKED["unique_tokens"].items() for word in ("--unique-tokens", f"{s}={n:g}")]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("sources") / "post.nc"
    POST.save(file)
    return str(file)


def test_as_text_and_as_json(path, tmp_path, capsys):
    out = tmp_path / "sources.json"
    assert main(["sources", path, *WORDS, *THERE_IS, "--freeze", "r=0.3", "--out", str(out)]) == 0
    shown = capsys.readouterr()
    for said in (
        "Recommended for 3e19 FLOP and 5e8 unique target tokens, by mean",
        "One source alone",
        "P(beats)",
    ):
        assert said in shown.out
    assert "note: USED_UP" in shown.err
    expected = recommend_sources(POST, **ASKED, freeze={"target_ratio": 0.3})
    content = json.loads(out.read_text())
    assert content["mix"] == pytest.approx(dict(expected.mix))
    assert content["recipe"]["params"] == pytest.approx(expected.recipe.params)
    assert content["posterior"]["law"] == "atlas"


def test_risk_epochs_and_bounds_are_passed_on(path, capsys):
    options = ["--risk", "cvar:0.8", "--source-epochs", "2", "--bound", "fr_tokens=:1e8", "--ci", "0.8"]
    assert main(["sources", path, *WORDS, *THERE_IS, *options, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["risk"] == "cvar:0.8" and content["ci"] == 0.8
    assert content["sources"]["en"]["most"] == pytest.approx(3e9, rel=1e-9)
    assert content["sources"]["fr"]["most"] == pytest.approx(1e8)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([*WORDS], 2, "--unique-tokens"),
        ([*WORDS, *THERE_IS[2:]], 2, "unique_tokens lacks en"),
        ([*WORDS, *THERE_IS, "--unique-tokens", "en=1"], 2, "--unique-tokens en is given twice"),
        ([*WORDS, "--unique-tokens", "en"], 2, "expected NAME=VALUE"),
        ([*WORDS, *THERE_IS, "--risk", "regret-cvar:0.9"], 2, "expected one of losses"),
        ([*WORDS, *THERE_IS, "--bound", "N=:1e9", "--bound", "tokens=1e13:"], 4, "tokens"),
    ],
)
def test_what_is_refused(path, words, code, said, capsys):
    assert main(["sources", path, *words]) == code
    assert said in capsys.readouterr().err


def test_another_law_is_refused(passed, capsys):
    assert main(["sources", str(passed), *WORDS, *THERE_IS]) == 2
    assert "atlas" in capsys.readouterr().err
