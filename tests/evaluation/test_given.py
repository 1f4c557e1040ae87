"""Things of another kind than asked for are refused on one line.

In a process of its own: here calls are checked against their annotations before anything else is.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CASES = {
    "rollout(RUNS.frame(), LAW)": "runs is a DataFrame; give a table of runs",
    "compare(RUNS.frame(), LAW)": "runs is a DataFrame; give a table of runs",
    "rollout(RUNS, 'chinchilla')": "law 'chinchilla' is a str; give a law",
    "rollout(RUNS, ['chinchilla'])": "law 'chinchilla' is a str; give a law",
    "rollout(RUNS, LAW, noise='known')": "noise is 'known'; give one of m3bayes.noise",
    "rollout(RUNS, LAW, ci='a')": "ci is 'a'; give a number between 0 and 1",
    "rollout(RUNS, LAW, cuts=0.5)": "cuts: 0.5, expected shares",
    "rollout(RUNS, LAW, cuts='0.5')": "cuts: '0.5', expected shares",
    "rollout(RUNS, LAW, cuts=['0.5'])": "cuts: '0.5', expected shares",
    "rollout(RUNS, LAW, cuts=None)": "cuts: None, expected shares",
    "rollout(RUNS, LAW, by=['block'])": "by is ['block']; give one name",
    "rollout(RUNS, LAW, by='random', seed=-1)": "seed is -1; give a whole number, at least 0",
    "rollout(RUNS, LAW, by='random', seed=1.5)": "seed is 1.5; give a whole number",
    "rollout(RUNS, LAW, splits=[Split('a', [True] * 5, [False] * 5)])": "split 'a' has masks bool (5,)",
    "rollout_weights(None)": "found is None; give what m3bayes.rollout returned",
    "check(None)": "post is None; give a posterior",
    "check('post.nc')": "post is a str; give a posterior",
    "discrepancy('post.nc')": "post is a str; give a posterior",
    "sensitivity(None)": "post is None; give a posterior",
    "calibrate(LAW, RUNS, simulations=2.5)": "simulations is 2.5; give a whole number",
    "calibrate(LAW, RUNS, quantities={'a': 1})": "quantities is {'a': 1}; give functions by name",
    "calibrate(LAW, RUNS, noise='known')": "noise is 'known'; give one of m3bayes.noise",
    "calibrate(LAW, RUNS.frame())": "runs is a DataFrame; give a table of runs",
    "prior_check(LAW, RUNS, draws='9')": "draws is '9'; give a whole number, at least 1",
}
SCRIPT = """
import json, sys
from m3bayes import calibrate, check, compare, demo_runs, discrepancy, laws, rollout, rollout_weights, sensitivity
from m3bayes.errors import M3BayesError
from m3bayes.evaluation import Split, prior_check

RUNS, LAW, said = demo_runs(), laws.chinchilla(), {}
for case in json.load(sys.stdin):
    try:
        eval(case)
    except M3BayesError as error:
        said[case] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(list(CASES)), capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("case", CASES)
def test_things_of_another_kind_are_refused_on_one_line(case, said):
    assert CASES[case] in said[case]
    assert "\n" not in said[case]
