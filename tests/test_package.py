"""The package as a whole: what it exports, what it ships, what it pins."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import m3bayes
from m3bayes import laws
from m3bayes.data import pilot_runs, simulated_runs, simulated_truth
from m3bayes.pilot.plan import read_plan

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_exported_name_is_there():
    assert m3bayes.__all__
    assert [name for name in m3bayes.__all__ if not hasattr(m3bayes, name)] == []


def test_importing_loads_nothing_slow():
    code = "import sys, m3bayes; print(*sorted({'arviz', 'matplotlib.pyplot', 'IPython'} & set(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert loaded.stdout.split() == []


def test_the_embedded_table_is_regenerated_bit_for_bit():
    script = runpy.run_path(str(ROOT / "data" / "simulate_pilot.py"))
    folder = ROOT / "m3bayes" / "data"
    assert script["csv_text"]().encode() == (folder / "simulated_pilot.csv").read_bytes()
    assert script["truth_text"]().encode() == (folder / "simulated_pilot.json").read_bytes()


def test_the_embedded_table_says_simulated_and_spans_the_regimes():
    runs = simulated_runs()
    assert set(runs["source"]) == {"simulated"}
    r, r_f = runs["target_ratio"], runs["final_ratio"]
    regimes = {"monolingual": r == 1, "multilingual": (r < 1) & (r_f == r), "two stages": r_f > r}
    assert all(rows.sum() >= 30 for rows in regimes.values())
    assert np.sum(list(regimes.values())) == len(runs) == 120
    assert runs.compute.max() / runs.compute.min() > 500
    recipes = runs.frame().drop(columns=["run", "seed", "loss"])
    assert recipes.duplicated().sum() == 12


def test_the_embedded_table_scatters_about_its_truth_as_stated():
    runs, truth = simulated_runs(), simulated_truth()
    law = laws.m3()
    columns = [
        dict(zip(law.columns, row, strict=True)) for row in np.stack([runs[c] for c in law.columns], 1)
    ]
    surface = np.array([float(law.loss(truth["coefficients"], x)) for x in columns])
    scatter = np.log(runs["loss"] / surface) / truth["noise"]["sigma"]
    nu = truth["noise"]["nu"]
    assert scatter.std() == pytest.approx(np.sqrt(nu / (nu - 2)), rel=0.25)
    assert abs(scatter.mean()) < 3 * scatter.std() / np.sqrt(len(scatter))


def test_the_measured_table_varies_everything_in_every_language():
    runs = pilot_runs()
    assert "simulated" not in set(runs["source"])
    assert set(runs["status"]) == {"ok"}
    assert len(set(runs["run"])) == len(runs)
    for language in ("de", "ja", "fr"):
        some = runs.where(f"language == '{language}'")
        r, r_f = some["target_ratio"], some["final_ratio"]
        for rows in (r == 1, (r < 1) & (r_f == r), r_f > r):
            assert rows.sum() >= 10
        assert len(set(some["params"])) >= 4
        assert some["target_tokens"].max() / some["target_tokens"].min() >= 16
        assert some["epochs"].min() <= 0.5 and some["epochs"].max() >= 16
        assert len(set(some.last_stage_share[r_f > r])) >= 8
        assert some["epochs"].max() >= 64 and some["target_ratio"].min() <= 0.03
        assert some.compute.max() / some.compute.min() > 1000
    plans = [read_plan(ROOT / "data" / name) for name in ("pilot_plan.csv", "scarcity_plan.csv")]
    names = pd.concat(plans).set_index("run")
    rows = names.loc[list(runs["run"])]
    assert np.allclose(runs["params"], rows["params"])
    assert np.allclose(runs["target_tokens"], rows["target_tokens"])
    assert np.allclose(runs["epochs"], rows["epochs"], rtol=0.02)
    assert np.allclose(runs["target_ratio"], rows["target_ratio"], rtol=0.02)


def test_constraints_pin_every_dependency_by_name_and_version_only():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    pinned = {_canonical(line.split("==")[0]) for line in lines}
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["dev"], *extras["parquet"], *extras["bench"]]
    names = {_canonical(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in wanted}  # type: ignore[index]
    assert names - pinned == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    # a copy, so that building leaves nothing in the working tree
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for path in (ROOT / "m3bayes").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            copy = source / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        str(source),
    ]
    subprocess.run([*command, "--wheel-dir", str(folder)], check=True, capture_output=True, timeout=120)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_table_and_every_module(wheel):
    names = set(wheel.namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "m3bayes").rglob("*.py")}
    assert modules - names == set()
    assert {
        "m3bayes/data/simulated_pilot.csv",
        "m3bayes/data/simulated_pilot.json",
        "m3bayes/data/pilot_runs.csv",
        "m3bayes/data/trilingual_runs.csv",
        "m3bayes/data/continued_runs.csv",
        "m3bayes/py.typed",
    } <= names
    assert {name.split("/")[0] for name in names} == {"m3bayes", f"m3bayes-{PROJECT['version']}.dist-info"}


def test_the_wheel_has_the_licence_and_the_command(wheel):
    info = f"m3bayes-{PROJECT['version']}.dist-info"
    assert b"Apache License" in wheel.read(f"{info}/licenses/LICENSE")
    assert "m3bayes = m3bayes.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
