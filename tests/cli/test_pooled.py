"""`m3bayes fit --pool` and `m3bayes pooled`, on simulated languages."""

from __future__ import annotations

import json

import jax
import pytest

import m3bayes as m3
from m3bayes.cli import main
from m3bayes.inference.pooled_simulate import simulate_pooled
from m3bayes.plots.pooled import pooled_coefficients
from tests.inference.test_pooling import design


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    truth = simulate_pooled(
        m3.laws.chinchilla(),
        design({"aa": 40, "bb": 36}),
        "language",
        jax.random.key(1),
        noise=m3.noise.normal(),
    )
    path = tmp_path_factory.mktemp("pooled") / "runs.csv"
    truth.runs.frame().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def fitted(table):
    out = table.with_name("pooled.nc")
    code = main(
        f"fit {table} --law chinchilla --noise normal --pool language --pooling beta=shared --out {out}".split()
    )
    assert code in (0, 3)  # two languages say little of a spread: the gate may flag it, and the file is there
    return out


def test_spreads_as_text_and_json(fitted, capsys):
    assert main(["pooled", str(fitted)]) == 0
    said = capsys.readouterr().out
    assert "pooled by language" in said and "aa (40), bb (36)" in said
    assert main(["pooled", str(fitted), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] == {"aa": 40, "bb": 36}
    rows = {row["coefficient"]: row for row in told["between"]}
    assert rows["beta"]["pooling"] == "shared" and rows["beta"]["spread"] == 0
    assert 0 < rows["alpha"]["spread_lower"] < rows["alpha"]["spread"] < rows["alpha"]["spread_upper"]
    assert {row["language"] for row in told["summary"]} == {"aa", "bb"}


def test_one_group_as_a_posterior_of_its_own(fitted, tmp_path, capsys):
    out, figure = tmp_path / "aa.nc", tmp_path / "groups.png"
    assert main(["pooled", str(fitted), "--group", "aa", "--out", str(out), "--figure", str(figure)]) == 0
    assert len(m3.load(out).runs) == 40 and figure.stat().st_size > 1000
    said = capsys.readouterr().out
    assert (
        "on 40 runs" in said
        and "aa: 40 runs, fitted together with those of 1 other" in said
        and "beta" in said
    )
    assert main(["pooled", str(fitted), "--new", "--out", str(tmp_path / "new.nc")]) == 0
    assert "NO_RUNS" in [note.code for note in m3.load(tmp_path / "new.nc").notes]
    said = capsys.readouterr().out
    assert said.count("a language without runs: ") == 1 and "beta shared with them" in said
    recipes = tmp_path / "recipes.csv"
    recipes.write_text("params,target_tokens,epochs\n1e8,1e9,2\n", encoding="utf-8")
    assert main(["predict", str(tmp_path / "new.nc"), str(recipes), "--allow", "flagged"]) == 0
    assert "a language without runs: " in capsys.readouterr().out
    assert main(["check", str(tmp_path / "new.nc")]) == 2
    assert "nothing to check it against" in capsys.readouterr().err
    assert (
        main(["recommend", str(out), "--compute", "1e19", "--target-tokens", "1e9", "--allow", "flagged"])
        == 0
    )


def test_what_is_refused(fitted, table, tmp_path, capsys):
    for words, expected in (
        (["pooled", fitted, "--group", "aa"], "--out goes with --group NAME or --new"),
        (["pooled", fitted, "--group", "zz", "--out", tmp_path / "x.nc"], "no run has language 'zz'"),
        (["pooled", table], "is not a netCDF (HDF5) file"),
        (
            ["predict", fitted, table, "--out", tmp_path / "p.csv"],
            "holds a pooled posterior, not a posterior",
        ),
        (
            ["fit", table, "--pooling", "beta=shared", "--out", tmp_path / "x.nc"],
            "--pooling goes with --pool",
        ),
        (["fit", table, "--pool", "script", "--out", tmp_path / "x.nc"], "has no column 'script'"),
        (["fit", table, "--pool", "language", "--resume", "--out", tmp_path / "x.nc"], "leave out --resume"),
        (
            ["fit", table, "--pool", "language", "--pooling", "beta=both", "--out", tmp_path / "x.nc"],
            "NAME=KIND",
        ),
        (
            ["fit", table, "--pool", "language", "--pooling", "E=free,E=shared", "--out", tmp_path / "x.nc"],
            "a coefficient is given twice",
        ),
    ):
        assert main([str(word) for word in words]) == 2
        assert expected in capsys.readouterr().err


def test_the_figure_has_a_panel_a_coefficient(fitted):
    figure = pooled_coefficients(m3.load_pooled(fitted))
    labels = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    assert labels == ["E [loss]", "A [loss params^alpha]", "B [loss tokens^beta]", "alpha [-]"]
