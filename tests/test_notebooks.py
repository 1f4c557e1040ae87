"""The notebooks run, with the assertions inside them, and their .ipynb show what their .py say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.py"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("M3BAYES_NOTEBOOK_DRAWS", "500")
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__name__": "notebook"})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pair_is_in_step_and_has_its_outputs(path: Path):
    jupytext = pytest.importorskip("jupytext", reason="development extra not installed")
    kept = json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))
    cells = jupytext.read(path)["cells"]
    assert [c["source"] for c in cells] == ["".join(c["source"]) for c in kept["cells"]]
    assert all(c["execution_count"] for c in kept["cells"] if c["cell_type"] == "code")
