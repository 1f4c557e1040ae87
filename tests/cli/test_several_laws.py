"""``m3bayes compare`` and ``m3bayes rollout``: arguments, exit codes, what is printed and written."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m3bayes import cli
from m3bayes.cli import compare as compare_command
from m3bayes.cli import rollout as rollout_command
from m3bayes.cli import several_laws
from m3bayes.cli.several_laws import law_names
from m3bayes.errors import Note
from m3bayes.evaluation.compare import Comparison
from m3bayes.evaluation.rollout import rollout
from m3bayes.inference.noise import Noise
from m3bayes.laws import named
from m3bayes.runs import read_runs
from tests.plots.test_comparison_figures import made_rollout

ROOT = Path(__file__).parent.parent.parent
TABLE = ROOT / "m3bayes" / "data" / "simulated_pilot.csv"


@pytest.fixture
def run(capsys):
    def call(*argv: object) -> tuple[int, str, str]:
        code = cli.main([str(part) for part in argv])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def given(monkeypatch) -> dict:
    """Stands in for compare() and rollout(): what they were called with."""
    table = pd.DataFrame(
        {
            "law": ["m3", "broken"], "elpd": [10.0, np.nan], "difference": [0.0, np.nan],
            "difference_se": [0.0, np.nan], "weight": [1.0, np.nan], "verdict": ["passed", "failed"],
        }
    )  # fmt: skip
    compared = Comparison(table, pd.DataFrame(), pd.DataFrame(), "3 folds", (Note("FAILED", "no loss"),))
    shown = {name: [1.0] for name in rollout_command.SHOWN} | {"law": ["m3"], "verdict": ["passed"]}
    rolled = made_rollout(["m3"], ["all"])
    object.__setattr__(rolled, "table", pd.DataFrame(shown))
    found = {}

    def stand_in(result):
        def called(runs, laws, *rest, **options):
            options.pop("report")(1, 2)
            found.update(runs=runs, laws=laws, rest=rest, **options)
            return result

        return called

    monkeypatch.setattr(compare_command, "compare", stand_in(compared))
    monkeypatch.setattr(rollout_command, "rollout", stand_in(rolled))
    return found


@pytest.mark.parametrize("command", ["compare", "rollout"])
def test_help_gives_every_argument_a_text(run, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "") and "--json" in out and "exit code is 3" in out.replace("\n", " ")
    parser = cli.parser()._subparsers._group_actions[0].choices[command]  # type: ignore[union-attr]
    assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("m3", ("m3",)),
        ("m3, chinchilla", ("m3", "chinchilla")),
        ("chinchilla:tokens=all,m3:drop=P", ("chinchilla:tokens=all", "m3:drop=P")),
        ("m3:drop=P,eta=one,atlas", ("m3:drop=P,eta=one", "atlas")),
    ],
)
def test_laws_have_commas_between_and_options_may(text, names):
    assert law_names(text) == names


@pytest.mark.parametrize("text", ["", ",", "tokens=all,m3"])
def test_laws_that_cannot_be_read(text):
    with pytest.raises(ArgumentTypeError, match="expected"):
        law_names(text)


def test_arguments_are_handed_over(run, given):
    argv = (
        "--laws",
        "m3,chinchilla:tokens=all",
        "--where",
        "epochs <= 4",
        "--noise",
        "normal",
        "--seed",
        "7",
    )
    sizes = ("--chains", "2", "--warmup", "30", "--draws", "40", "--unit-params", "10")
    assert run("compare", TABLE, *argv, *sizes, "--folds", "language")[0] == 3
    assert [law.name for law in given["laws"]] == ["m3", "chinchilla"]
    assert given["laws"][1].options == {"tokens": "all"}
    assert given["runs"]["epochs"].max() <= 4 and given["runs"].unit_params == 10
    assert given["folds"] == "language" and given["noise"] == Noise("normal")
    assert [given[name] for name in ("seed", "chains", "warmup", "draws")] == [7, 2, 30, 40]
    run("compare", TABLE, "--laws", "m3", "--folds", "5")
    assert given["folds"] == 5 and given["draws"] == 1000
    assert run("rollout", TABLE, "--laws", "m3", "--by", "params", "--cuts", ".5,.7", "--folds", "3")[0] == 0
    assert given["rest"] == ("params",) and given["cuts"] == (0.5, 0.7) and given["folds"] == 3
    assert given["draws"] == 500


def test_all_laws_that_the_table_feeds_by_default(run, given, monkeypatch):
    these = (named("atlas"), named("dcpt"))

    def stand_in(runs, noise):
        assert (len(runs), noise) == (120, Noise("normal"))
        return these

    monkeypatch.setattr(several_laws, "laws_for", stand_in)
    run("rollout", TABLE, "--noise", "normal")
    assert given["laws"] == these


def test_results_are_printed_and_written(run, given, tmp_path):
    out, figure = tmp_path / "table.csv", tmp_path / "figure.png"
    code, text, err = run("compare", TABLE, "--laws", "m3", "--out", out, "--figure", figure)
    assert code == 3, "one law failed"
    assert text.startswith("120 runs of simulated_pilot.csv: 3 folds\n") and "broken" in text
    assert "note: FAILED: no loss" in err and f"wrote {out}" in err and f"wrote {figure}" in err
    assert list(pd.read_csv(out)["law"]) == ["m3", "broken"]
    assert figure.read_bytes().startswith(b"\x89PNG")
    code, text, err = run("rollout", TABLE, "--laws", "m3", "--out", out, "--figure", figure)
    assert code == 0 and "coverage_90_low" in text.splitlines()[2]
    assert tuple(pd.read_csv(out)) == rollout_command.SHOWN


def test_results_as_json(run, given):
    def read(text: str) -> dict:
        return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    _, text, err = run("compare", TABLE, "--laws", "m3", "--json")
    found = read(text)
    assert err == "" and found["laws"][1] == {
        "law": "broken", "elpd": None, "difference": None, "difference_se": None, "weight": None,
        "verdict": "failed",
    }  # fmt: skip
    assert found["notes"][0]["code"] == "FAILED"
    _, text, _ = run("rollout", TABLE, "--laws", "m3", "--json")
    assert len(read(text)["held_out"]) == 30 and read(text)["weights"] == {"m3": 1.0}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("compare", TABLE, "--laws", "nonsense"), "nonsense"),
        (("compare", TABLE, "--laws", "chinchilla", "--folds", "colour"), "colour"),
        (("rollout", TABLE, "--laws", "chinchilla", "--by", "colour"), "colour"),
        (("rollout", TABLE, "--laws", "chinchilla", "--noise", "group:colour"), "colour"),
        (("compare", TABLE, "--laws", "chinchilla", "--out", TABLE), "is the file to read"),
        (("rollout", TABLE, "--laws", "chinchilla", "--figure", "nowhere/figure.png"), "does not exist"),
        (("rollout", "none.csv"), "none.csv"),
    ],
)
def test_bad_input_exits_with_2_on_one_line(run, argv, said):
    code, out, err = run(*argv)
    assert (code, out) == (2, "") and said in err
    assert err.startswith("m3bayes: error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    "argv",
    [
        ("compare", "--folds", "1"),
        ("rollout", "--cuts", "2"),
        ("rollout", "--cuts", ","),
        ("rollout", "--folds", "1"),
    ],
)
def test_wrong_arguments_exit_with_2(run, argv):
    code, out, err = run(argv[0], TABLE, *argv[1:])
    assert (code, out) == (2, "") and "usage:" in err


def test_real_fits(run, tmp_path):
    out = tmp_path / "table.csv"
    argv = ("--laws", "chinchilla", "--where", "target_ratio == 1", "--noise", "normal", "--cuts", ".7")
    code, text, err = run("rollout", TABLE, *argv, "--out", out)
    assert code == 0, err
    row = pd.read_csv(out).loc[0]
    runs = read_runs(TABLE, where="target_ratio == 1")
    assert row["train"] + row["test"] == len(runs)
    (found,) = rollout(runs, named("chinchilla"), cuts=(0.7,), noise=Noise("normal")).table.to_dict("records")
    assert row["elpd"] == pytest.approx(found["elpd"], rel=1e-7)
    assert f"{found['elpd']:.4g}" in text
