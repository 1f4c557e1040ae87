"""kill -9 at random moments while sampling: the resumed fit has the draws of an uninterrupted one, bit for bit."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import m3bayes as m3
from tests.inference import simulated

KILLS = 20
SETTINGS = {"chains": 2, "draws": 20_000, "seed": 4, "progress": False}

WORKER = """
import sys
import m3bayes as m3
folder, table, out = sys.argv[1:]
runs = m3.read_runs(table)
m3.fit(
    runs, m3.laws.chinchilla(), noise=m3.noise.normal(), checkpoint=folder, resume=True,
    chains=2, draws=20_000, seed=4, progress=False,
).save(out)
"""


def last_written(folder: Path) -> float:
    return max((path.stat().st_mtime_ns for path in folder.glob("chain-*.npz")), default=0)


def test_twenty_kills_change_nothing(tmp_path):
    runs = simulated.measured(
        m3.laws.chinchilla(), simulated.CHINCHILLA, simulated.monolingual(40), sigma=0.02
    )
    table, folder, out = tmp_path / "runs.csv", tmp_path / "kept", tmp_path / "post.nc"
    runs.frame().to_csv(table, index=False)
    whole = m3.fit(m3.read_runs(table), m3.laws.chinchilla(), noise=m3.noise.normal(), **SETTINGS)

    moments = random.Random(0)
    command = [sys.executable, "-c", WORKER, str(folder), str(table), str(out)]
    interrupted = 0
    for _ in range(KILLS):
        before = last_written(folder)
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        limit = time.monotonic() + 120
        # from the first chunk on, so that every process adds something
        while process.poll() is None and last_written(folder) == before and time.monotonic() < limit:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.1))
        interrupted += process.poll() is None
        process.kill()
        _, error = process.communicate()
        assert not error, error.decode()
        if out.exists():
            break
    assert interrupted >= KILLS // 2, "the fits were over before they could be killed"
    if not out.exists():
        subprocess.run(command, check=True)

    resumed = m3.load(out)
    assert resumed.verdict == whole.verdict
    for name, values in whole.draws.items():
        np.testing.assert_array_equal(resumed.draws[name], values)
    for name, values in whole.sample_stats.items():
        np.testing.assert_array_equal(resumed.sample_stats[name], values)
