"""``m3bayes recommend --architectures --multiple --cost --from-checkpoint``."""

from __future__ import annotations

import json

import pytest

from m3bayes.cli import main
from m3bayes.cli.recommend import checkpoint
from m3bayes.cli.request import cost_named
from m3bayes.decision.continuing import Checkpoint
from m3bayes.decision.cost import six_nd, with_attention
from tests.cli.conftest import handmade

BUDGET = ("--compute", "5e14", "--target-tokens", "800000", "--freeze", "r=1")


@pytest.fixture
def run(capsys):
    def call(*argv: object) -> tuple[int, str, str]:
        code = main([str(part) for part in argv])
        return code, *capsys.readouterr()

    return call


def test_architectures_and_multiples(run, passed):
    argv = ("recommend", passed, *BUDGET, "--architectures", "5e5,2e6", "--multiple", "k=1")
    code, out, err = run(*argv)
    assert code == 0 and "SNAPPED" in err
    for word in (
        "Architectures and multiples",
        "500000",
        "2e+06",
        "Constraints that bind",
        "(architectures)",
    ):
        assert word in out
    assert "nan" not in out.lower()
    code, out, _ = run(*argv, "--json")
    found = json.loads(out)
    assert found["recipe"]["params"] in (5e5, 2e6) and found["recipe"]["epochs"] % 1 == 0
    assert found["snapped"]["risk"] >= 0 and len(found["snapped"]["tried"]) >= 3
    assert any(row["binding"] for row in found["constraints"].values())


def test_what_cannot_be_built_exits_with_4(run, passed):
    code, out, err = run("recommend", passed, *BUDGET, "--architectures", "1e12")
    assert (code, out) == (4, "") and "no architecture is feasible" in err and err.count("\n") == 1


def test_costs_are_named(run, passed):
    assert cost_named("6nd") == six_nd() and cost_named("attention:512") == with_attention(512.0)
    code, out, err = run("recommend", passed, *BUDGET, "--cost", "fitted")
    assert (code, out) == (2, "") and "no column flops" in err


def test_a_cost_is_fitted_to_the_table_of_the_posterior(run, tmp_path):
    from m3bayes.runs import runs_from_frame

    frame = handmade().runs.frame()
    D = frame["epochs"] * frame["target_tokens"] / frame["target_ratio"]
    path = tmp_path / "logged.nc"
    handmade(runs=runs_from_frame(frame.assign(flops=9 * frame["params"] * D))).save(path)
    code, out, _ = run("recommend", path, *BUDGET, "--cost", "fitted", "--json")
    found = json.loads(out)
    recipe = found["recipe"]
    assert code == 0 and "fitted to flops" in found["cost"]
    assert found["compute_used"] == pytest.approx(9 * recipe["params"] * recipe["tokens"])


def test_going_on_from_a_checkpoint(run, passed, tmp_path):
    out_file = tmp_path / "stage.json"
    argv = (
        "recommend",
        passed,
        "--compute",
        "1e14",
        "--target-tokens",
        "800000",
        "--from-checkpoint",
        "1e6,1e7",
    )
    code, out, err = run(*argv, "--out", out_file)
    assert code == 0, err
    for word in (
        "going on with 1e6 params",
        "paid for",
        "to train",
        "target text alone",
        "Constraints that bind",
    ):
        assert word in out
    assert "nan" not in out.lower()
    written = json.loads(out_file.read_text())
    stage = written["stage"]
    assert (
        written["compute_used"] == pytest.approx(6 * 1e6 * stage["tokens"])
        and written["compute_used"] <= 1e14
    )
    assert written["recipe"]["tokens"] == pytest.approx(1e7 + stage["tokens"])
    assert written["checkpoint"] == {"params": 1e6, "tokens": 1e7, "target_ratio": 0}
    code, out, _ = run(*argv, "--json")
    assert code == 0 and json.loads(out) == written


def test_a_checkpoint_is_read_or_refused(run, passed):
    assert checkpoint("1e6,2e7,.1") == Checkpoint(1e6, 2e7, 0.1)
    for wrong in ("1e6", "1e6,0", "1e6,1e7,2", "1,2,3,4", "a,b"):
        code, out, err = run("recommend", passed, *BUDGET, "--from-checkpoint", wrong)
        assert (code, out) == (2, "") and "usage:" in err
    start = ("recommend", passed, *BUDGET, "--from-checkpoint", "1e6,1e7")
    for also in (("--architectures", "1e6"), ("--tolerance", "0.01"), ("--multiple", "k=1")):
        code, _, err = run(*start, *also)
        assert code == 2 and "leave those out" in err
    code, out, err = run(*start)  # r = 1 is frozen, of a run that began on source text
    assert (code, out) == (4, "") and "no further stage is feasible" in err


@pytest.mark.parametrize(
    "option", [("--cost", "flops"), ("--cost", "attention:-1"), ("--architectures", "1,x")]
)
def test_wrong_options_exit_with_2(run, passed, option):
    code, out, err = run("recommend", passed, *BUDGET, *option)
    assert (code, out) == (2, "") and "usage:" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--multiple", "k=1", "--multiple", "k=2"), "--multiple k is given twice"),
        (("--freeze", "r=1", "--freeze", "r=0.5"), "--freeze r is given twice"),
        (("--bound", "N=1e5:1e6", "--min-params", "2e5"), "a bound on params is given twice"),
    ],
)
def test_what_is_given_once(run, passed, options, said):
    code, _, err = run("recommend", passed, *BUDGET, *options)
    assert code == 2 and said in err
