"""``m3bayes recommend`` with several posteriors, and the weights that ``m3bayes rollout`` gives for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m3bayes.cli import main
from m3bayes.cli.averaged import by_law, weights_of
from m3bayes.decision import recommend_averaged
from m3bayes.errors import M3BayesError
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.storage import load
from m3bayes.laws import chinchilla, named
from m3bayes.laws.departing import VARIABLES, departing
from tests.cli.conftest import handmade

BUDGET = ("--compute", "5e14", "--target-tokens", "800000", "--freeze", "r=1")
CHINCHILLA = {"E": 1.2, "A": 300.0, "B": 100.0, "alpha": 0.4, "beta": 0.3}


def other_law(draws: int = 20) -> Posterior:
    """Chinchilla on the table of :func:`handmade`."""
    random = np.random.default_rng(1)
    c = {name: value * np.exp(0.02 * random.normal(size=(2, draws))) for name, value in CHINCHILLA.items()}
    noise = {name: handmade(draws).draws[name] for name in ("sigma", "nu")}
    return replace(handmade(draws), law=chinchilla(), draws={**c, **noise})


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("posterior") / "chinchilla.nc"
    other_law().save(path)
    return path


@pytest.fixture
def run(capsys):
    def call(*argv: object) -> tuple[int, str, str]:
        code = main([str(part) for part in argv])
        return code, *capsys.readouterr()

    return call


def test_several_posteriors_give_one_recipe(run, passed, other, tmp_path):
    out = tmp_path / "averaged.json"
    code, text, err = run("recommend", passed, other, *BUDGET, "--weights", "3,1", "--out", out)
    assert code == 0 and f"wrote {out}" in err
    for word in ("m3 on ", "chinchilla on ", "Recommended", "By law: weight", "is between laws", "by itself",
                 "Mean regret"):  # fmt: skip
        assert word in text
    assert "nan" not in text.lower()
    found = json.loads(out.read_text())
    posts = {"m3": load(passed), "chinchilla": load(other)}
    expected = recommend_averaged(
        posts, {"m3": 0.75, "chinchilla": 0.25}, compute=5e14, target_tokens=8e5, freeze={"r": 1.0}
    )
    assert found["weights"] == {"m3": 0.75, "chinchilla": 0.25} and set(found["posteriors"]) == set(posts)
    assert found["recipe"]["params"] == pytest.approx(expected.recipe.params)
    assert found["between"] == pytest.approx(expected.between)
    # those of a rollout, which had more laws
    weights = tmp_path / "rollout.json"
    weights.write_text(json.dumps({"weights": {"chinchilla": 0.25, "atlas": 0, "m3": 0.75}, "splits": []}))
    code, text, _ = run("recommend", passed, other, *BUDGET, "--weights", weights, "--json")
    assert code == 0 and json.loads(text) == found


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "several posteriors (m3, chinchilla) without --weights"),
        (("--weights", "1"), "1 weights for 2 posteriors"),
        (("--weights", "0,0"), "all weights are 0"),
        (("--weights", "1,1", "--from-checkpoint", "1e6,1e7"), "--from-checkpoint goes with one posterior"),
    ],
)
def test_what_does_not_go_together_exits_with_2(run, passed, other, more, said):
    code, out, err = run("recommend", passed, other, *BUDGET, *more)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON"),
        ("[1]", "has no weights by law"),
        ('{"weights": null}', "has no weights by law"),
        ('{"m3": "half", "chinchilla": 1}', "has no weights by law"),
        ('{"m3": 1}', "the posteriors are of m3, chinchilla"),
        ('{"m3": 0.5, "chinchilla": 0.3, "atlas": 0.2}', "weights of m3, chinchilla, atlas"),
        ('{"m3": -1, "chinchilla": 1}', "the weight of m3 is -1"),
    ],
)
def test_a_file_without_their_weights_exits_with_2(run, passed, other, tmp_path, content, said):
    path = tmp_path / "weights.json"
    path.write_text(content)
    code, out, err = run("recommend", passed, other, *BUDGET, "--weights", path)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1


def test_weights_of_one_posterior_and_of_no_file_are_refused(run, passed, flagged, other):
    code, _, err = run("recommend", passed, *BUDGET, "--weights", "1")
    assert code == 2 and "leave them out" in err
    code, _, err = run("recommend", passed, other, *BUDGET, "--weights", "nowhere.json")
    assert code == 2 and "usage:" in err
    code, _, err = run("recommend", passed, flagged, *BUDGET, "--weights", "1,1")
    assert code == 3 and str(flagged) in err


def test_laws_are_named_as_in_a_rollout():
    post = other_law()
    all_tokens = handmade(law=named("chinchilla", tokens="all"))
    far = handmade(law=departing(chinchilla(), dict.fromkeys(VARIABLES, (0.0, 1.0))))
    assert list(by_law([post, all_tokens])) == ["chinchilla", "chinchilla:tokens=all"]
    assert list(by_law([far, handmade()])) == ["chinchilla", "m3"]
    with pytest.raises(M3BayesError, match="without --weights"):
        weights_of(by_law([post, all_tokens]), None)
