"""R6, R7, R8 and memory: what is killed is not lost, bad tables are refused soon, units do not matter.

    python -m benchmarks.survival [--kills 200] [--only memory]

writes benchmarks/results/survival.json; ``--only`` measures memory again and leaves the rest of it. The tests
(tests/test_survival.py) hold the same functions to smaller numbers; the kinds of bad tables and the process that is
killed while it saves are those of the tests.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import report
from m3bayes import laws
from m3bayes.errors import RunTableError
from m3bayes.files import write_text
from m3bayes.inference.fit import fit
from m3bayes.inference.storage import load
from m3bayes.laws import Law
from m3bayes.runs import Runs, read_runs, runs_from_frame
from tests import test_bad_tables as bad
from tests.inference import simulated
from tests.inference.test_storage import killed_while_saving

ROOT = Path(__file__).parent.parent
UNITS = ((1e-9, 1e9), (1e9, 1e-9), (1e-9, 1e-9), (1e9, 1e9), (1e-3, 1.0), (7.0, 1e6))
MEMORY = {"runs": 5000, "chains": 4, "draws": 1000, "most_GiB": 1.5}
SECONDS = 5.0  # a bad table at most


# ---- R6: kills -----------------------------------------------------------------------------------


def killed(command: list[str], mark: Callable[[], object], out: Path, kills: int, within: float) -> int:
    """Start ``command`` and kill it (-9), ``kills`` times, at a random moment up to ``within`` seconds after ``mark``
    first changed; then let it make ``out``. Returns how many were killed before they were done."""
    moments = random.Random(0)
    interrupted = 0
    for _ in range(kills):
        before = mark()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None and mark() == before:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, within))
        interrupted += process.poll() is None
        process.kill()
        _, said = process.communicate()
        if b"Error" in said:
            raise RuntimeError(said.decode())
        if out.exists():
            break
    if not out.exists():
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return interrupted


def last_written(folder: Path, pattern: str) -> int:
    """When the newest of these files was written, or how long it is: it differs once there is more."""
    return max((path.stat().st_mtime_ns for path in folder.glob(pattern)), default=0)


def table_for(law: Law, folder: Path, rows: int = 40) -> Path:
    """A simulated table with runs enough for the law."""
    truth, recipes = (
        (simulated.CHINCHILLA, simulated.monolingual(rows))
        if law.name == "chinchilla"
        else (simulated.M3, simulated.mixed(rows))
    )
    path = folder / f"{law.name}.csv"
    simulated.measured(law, truth, recipes, sigma=0.02).frame().to_csv(path, index=False)
    return path


FITTING = """
import sys
import m3bayes as m3
law, table, folder, out, draws = sys.argv[1:]
m3.fit(
    m3.read_runs(table), m3.laws.named(law), checkpoint=folder, resume=True, chains=2, draws=int(draws),
    allow="flagged", progress=False,
).save(out)
"""


def kills_while_sampling(name: str, folder: Path, kills: int, draws: int, within: float = 0.2) -> dict:
    """Kill a fit again and again; are its draws those of a fit that was left alone?"""
    law = laws.named(name)
    table, kept, out, alone = table_for(law, folder), folder / "kept", folder / "post.nc", folder / "alone.nc"
    arguments = [sys.executable, "-c", FITTING, name, str(table)]
    subprocess.run([*arguments, str(folder / "other"), str(alone), str(draws)], cwd=ROOT, check=True)
    interrupted = killed(
        [*arguments, str(kept), str(out), str(draws)],
        lambda: last_written(kept, "chain-*.npz"),
        out,
        kills,
        within,
    )
    one, other = load(out), load(alone)
    same = all(np.array_equal(one.draws[name], values) for name, values in other.draws.items())
    return {"law": name, "killed": interrupted, "draws": draws, "bit_for_bit": same}


CALIBRATING = """
import sys
from pathlib import Path
from m3bayes.evaluation.calibrate import calibrate
from m3bayes.inference.noise import normal
from tests.evaluation.exact import LAW, design, exact_fit
folder, out, simulations = sys.argv[1:]
found = calibrate(LAW, design(4), simulations=int(simulations), noise=normal(), fit=exact_fit, folder=folder)
Path(out).write_text(found.ranks.to_csv())
"""


def kills_while_calibrating(folder: Path, kills: int, simulations: int) -> dict:
    """Kill a calibration again and again; are its ranks those of one that was left alone?"""
    kept, out, alone = folder / "kept", folder / "ranks.csv", folder / "alone.csv"
    command = [sys.executable, "-c", CALIBRATING]
    subprocess.run([*command, str(folder / "other"), str(alone), str(simulations)], cwd=ROOT, check=True)
    lines = kept / "simulations.jsonl"
    interrupted = killed(
        [*command, str(kept), str(out), str(simulations)],
        lambda: lines.read_bytes().count(b"\n") if lines.exists() else 0,
        out,
        kills,
        0.3,
    )
    same = out.read_text() == alone.read_text()
    return {"simulations": simulations, "killed": interrupted, "ranks_identical": same}


# ---- R7: bad tables ------------------------------------------------------------------------------


def bad_tables(folder: Path) -> list[dict]:
    """Each kind of bad table: seconds, and the line that it was refused with."""
    contents = {kind: bad.csv(change) for kind, (change, _) in bad.BAD_CELLS.items()}
    contents |= {kind: text for kind, (text, _) in bad.BAD_FILES.items()}
    rows = []
    for kind, text in contents.items():
        path = folder / "runs.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        begun = time.perf_counter()
        try:
            read_runs(path)
            said = "not refused"
        except RunTableError as error:
            said = str(error)
        rows.append({"kind": kind, "seconds": time.perf_counter() - begun, "said": said})
    return rows


# ---- R8: units and order -------------------------------------------------------------------------


def in_other_units(runs: Runs, params: float, tokens: float, seed: int) -> Runs:
    """The table with N and U counted in other units and its rows in another order."""
    frame = runs.frame()
    frame = frame.assign(params=frame["params"] / params, target_tokens=frame["target_tokens"] / tokens)
    return runs_from_frame(frame.sample(frac=1, random_state=seed), unit_params=params, unit_tokens=tokens)


def same_draws(law: Law, folder: Path, units=UNITS, draws: int = 20) -> list[dict]:
    """Fit a table in several units and orders: are the draws the same?

    Compared bit for bit are coefficients without a unit, sigma, nu and the statistics of the chains; those with a
    unit as their largest relative difference, once brought into the first table's units.
    """
    runs = read_runs(table_for(law, folder))
    few = {"chains": 2, "warmup": 20, "draws": draws, "allow": "flagged", "progress": False}
    first = fit(runs, law, **few)
    with_unit = [c.name for c in law.coefficients if c.at]
    rows = []
    for number, (params, tokens) in enumerate(units):
        other = fit(in_other_units(runs, params, tokens, number), law, **few)
        same = all(np.array_equal(other.draws[n], v) for n, v in first.draws.items() if n not in with_unit)
        same &= all(np.array_equal(other.sample_stats[n], v) for n, v in first.sample_stats.items())
        largest = 0.0
        for name in with_unit:
            log_factor = np.zeros_like(first.draws[name])
            for quantity, power in law[name].at.items():
                of = law.references[quantity]
                sign = -1.0 if power.startswith("-") else 1.0
                exponent = sign * first.draws[power.lstrip("-")]
                log_factor += exponent * (of.params * np.log(params) + of.tokens * np.log(tokens))
            there = first.draws[name] * np.exp(log_factor)
            largest = max(largest, float(np.max(np.abs(other.draws[name] / there - 1))))
        rows.append({"law": law.name, "units": [params, tokens], "bit_for_bit": same, "with_unit": largest})
    return rows


# ---- memory --------------------------------------------------------------------------------------

MEASURING = """
import json, resource, sys, time
from pathlib import Path
import m3bayes as m3
from tests.inference import simulated

runs, chains, draws, folder = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
steps, begun = [], time.perf_counter()

def peak_bytes():
    # on Linux ru_maxrss counts the process that started this one, too
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def done(step):
    global begun
    peak = peak_bytes() / 2**30
    steps.append({"step": step, "peak_GiB": peak, "seconds": time.perf_counter() - begun})
    begun = time.perf_counter()

law = m3.laws.chinchilla()
table = simulated.measured(law, simulated.CHINCHILLA, simulated.monolingual(runs), sigma=0.02)
done("table")
post = m3.fit(table, law, chains=chains, draws=draws, allow="flagged", progress=False)
done("fit")
post.summary()
m3.predict(post, table)
done("predict")
post.save(folder / "post.nc")
done("save")
m3.load(folder / "post.nc")
done("load")
if sys.argv[5:]:
    m3.check(post)
    done("check")
print(json.dumps({"runs": runs, "draws": chains * draws, "bytes_of_log_likelihood": post.log_likelihood.nbytes,
                  "steps": steps}))
"""


def memory(folder: Path, runs: int, chains: int, draws: int, check: bool = True) -> dict:
    """Peak resident memory of a process that fits, predicts, saves, loads and checks, after each step."""
    command = [sys.executable, "-c", MEASURING, str(runs), str(chains), str(draws), str(folder)]
    command += ["check"] * check
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


# ---- all of it -----------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, metavar="COUNT", help="while saving")
    parser.add_argument("--sampling-kills", type=int, default=20, metavar="COUNT")
    parser.add_argument("--only", choices=("memory",), help="measure this again, and keep the rest")
    given = parser.parse_args()
    begun = time.perf_counter()
    result: dict[str, object] = {}

    def folder() -> Path:
        return Path(tempfile.mkdtemp(dir=place))

    with tempfile.TemporaryDirectory() as place:
        if given.only:
            path = report.RESULTS / "survival.json"
            record = json.loads(path.read_text())
            record["result"]["memory"] = _memory(folder()) | {"machine": report.machine()}
            write_text(path, json.dumps(record, indent=1) + "\n")
            return
        saving = killed_while_saving(folder(), given.kills // 2)
        found = {name: saving["killed"].count(name) for name in ("old", "new", "neither")}
        result["saving"] = {"killed": len(saving["killed"]), "with_half_a_file": saving["cut"], **found}
        print(f"R6, saving: {result['saving']}", flush=True)
        result["sampling"] = [
            kills_while_sampling("chinchilla", folder(), given.sampling_kills, 20_000, 0.1),
            kills_while_sampling("m3", folder(), given.sampling_kills // 2, 2_000, 0.5),
        ]
        print(f"R6, sampling: {result['sampling']}", flush=True)
        result["calibrating"] = kills_while_calibrating(folder(), given.sampling_kills, 200)
        print(f"R6, calibrating: {result['calibrating']}", flush=True)
        result["bad_tables"] = tables = bad_tables(folder())
        slowest = max(tables, key=lambda row: row["seconds"])
        refused = sum(row["said"] != "not refused" for row in tables)
        print(f"R7: {refused} of {len(tables)} kinds refused, the slowest ({slowest['kind']}) after "
              f"{slowest['seconds']:.2f} s (at most {SECONDS:g} is wanted)", flush=True)  # fmt: skip
        result["units"] = [row for law in (laws.chinchilla(), laws.m3()) for row in same_draws(law, folder())]
        print(f"R8: {sum(row['bit_for_bit'] for row in result['units'])} of {len(result['units'])} fits have the "
              f"same draws bit for bit, coefficients with a unit differ by "
              f"{max(row['with_unit'] for row in result['units']):.1e} at most", flush=True)  # fmt: skip
        result["memory"] = _memory(folder())
    report.keep("survival", "R6-R8", result, time.perf_counter() - begun)


def _memory(folder: Path) -> dict:
    found = {**MEMORY, **memory(folder, **{name: MEMORY[name] for name in ("runs", "chains", "draws")})}
    for step in found["steps"]:
        print(f"memory: {step['step']:<8}{step['peak_GiB']:6.2f} GiB{step['seconds']:8.1f} s")
    return found


if __name__ == "__main__":
    main()
