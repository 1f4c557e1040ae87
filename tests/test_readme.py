"""What the README shows is run: its ``python`` blocks, and the ``m3bayes`` lines of its ``sh`` blocks.

In order, the blocks in one namespace, all in one folder with ``out/runs.csv``, the table that ``make demo`` leaves.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from m3bayes import cli
from m3bayes.data import demo_runs

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_examples(tmp_path, monkeypatch, capsys):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(readme))
    assert any(kind == "python" for kind, _ in (block.groups() for block in blocks)), "README has no example"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    demo_runs().frame().to_csv(tmp_path / "out" / "runs.csv", index=False)
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in blocks:
        kind, text = block.groups()
        line = readme[: block.start()].count("\n") + 2
        if kind == "python":
            # padded, so that a traceback has the README's own line numbers
            exec(compile("\n" * (line - 1) + text, "README.md", "exec"), namespace)
            continue
        for command in _commands(text):
            code = cli.main(shlex.split(command, comments=True)[1:])
            if code:
                pytest.fail(f"README.md, `{command}` exits with {code}: {capsys.readouterr().err}")


def _commands(block: str) -> list[str]:
    joined = block.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip().startswith("m3bayes ")]
