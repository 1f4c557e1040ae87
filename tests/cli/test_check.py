"""``m3bayes check``."""

from __future__ import annotations

import dataclasses
import json

import pytest
from PIL import Image

from m3bayes.cli import main
from tests.cli.conftest import handmade


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Runs about the truth that the handmade posterior lies about, spread as it says."""
    path = tmp_path_factory.mktemp("check") / "good.nc"
    handmade(draws=250).save(path)
    return path


def test_check_prints_verdict_tests_and_runs(good, capsys):
    assert main(["check", str(good)]) == 0
    out, _ = capsys.readouterr()
    assert out.splitlines()[0].startswith("m3 on 120 runs")
    assert out.splitlines()[0].endswith(("passed", "doubtful"))
    assert "adjusted" in out and "pareto_k" in out


def test_check_as_json_with_a_figure(good, tmp_path, capsys):
    figure = tmp_path / "check.png"
    assert main(["check", str(good), "--json", "--figure", str(figure), "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["verdict"] in ("passed", "doubtful")
    assert len(found["runs"]) == 120 and {"test", "about", "p", "adjusted"} <= set(found["tests"][0])
    assert str(figure) in err
    with Image.open(figure) as image:
        assert image.width > 500


def test_a_doubtful_posterior_is_said_and_is_no_error(tmp_path, capsys):
    post = handmade(draws=250)
    wide = {**post.draws, "sigma": 10 * post.draws["sigma"]}
    dataclasses.replace(post, draws=wide).save(tmp_path / "wide.nc")
    assert main(["check", str(tmp_path / "wide.nc")]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].endswith("doubtful")
    assert "PIT_NOT_UNIFORM" in err


def test_a_folder_that_is_missing_is_said_before_the_work(good, tmp_path, capsys):
    assert main(["check", str(good), "--figure", str(tmp_path / "none" / "x.png")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_figure_of_another_format_is_said_before_the_work(good, tmp_path, capsys):
    assert main(["check", str(good), "--figure", str(tmp_path / "check.bmp")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and ".png, .pdf, .svg" in err
