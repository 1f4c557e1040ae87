"""``m3bayes plans`` and ``m3bayes recommend --risk``."""

from __future__ import annotations

import json

import pytest

from m3bayes.cli import main
from m3bayes.cli.request import risk_named

PLANS = "run,params,target_tokens,epochs,target_ratio,final_ratio\nmono,1e6,800000,3,1,1\nmixed,1e6,800000,3,0.5,0.5\n"


@pytest.fixture
def plans(tmp_path):
    path = tmp_path / "plans.csv"
    path.write_text(PLANS)
    return path


def test_plans_are_shown_and_written(passed, plans, tmp_path, capsys):
    out = tmp_path / "compared.json"
    assert main(["plans", str(passed), str(plans), "--out", str(out)]) == 0
    shown = capsys.readouterr()
    for word in ("Losses", "Compared", "better than", "Slopes", "mono", "mixed"):
        assert word in shown.out
    assert "nan" not in shown.out.lower() and f"wrote {out}" in shown.err
    written = json.loads(out.read_text())
    assert set(written["plans"]) == {"mono", "mixed"} and written["simulated_runs"] is True
    assert written["better"]["mono"]["mixed"] + written["better"]["mixed"]["mono"] == pytest.approx(1)
    assert main(["plans", str(passed), str(plans), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == written


def test_pairs_of_many_plans_are_left_to_the_file(passed, plans, capsys):
    rows = [f"p{i},1e6,800000,{1 + i / 10},1,1" for i in range(21)]
    plans.write_text("\n".join([PLANS.splitlines()[0], *rows]) + "\n")
    assert main(["plans", str(passed), str(plans)]) == 0
    assert "21 plans, too many for a page: --json and --out have it" in capsys.readouterr().out


def test_bad_plans_exit_with_2_and_name_the_file(passed, plans, capsys):
    assert main(["plans", str(passed), str(plans), "--target-tokens", "8e5"]) == 2
    assert "--compute" in capsys.readouterr().err
    plans.write_text(PLANS.replace("mixed", "mono"))
    assert main(["plans", str(passed), str(plans)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "plans.csv" in shown.err and "twice" in shown.err


def test_a_risk_is_read_by_name_or_refused(passed, capsys):
    assert risk_named("regret-cvar:0.9").name == "regret-cvar:0.9"
    budget = ["--compute", "5e14", "--target-tokens", "8e5"]
    assert main(["recommend", str(passed), *budget, "--risk", "worst"]) == 2
    assert "regret-cvar:Q" in capsys.readouterr().err
