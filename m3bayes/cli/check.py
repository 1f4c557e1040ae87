"""``m3bayes check``: do the runs look like what a posterior says of them?"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

from m3bayes.cli.options import add_json, add_posterior, check_figure, whole
from m3bayes.cli.show import frame_table, json_text, message, notes, section
from m3bayes.cli.summary import describe
from m3bayes.evaluation.checks import Check, check
from m3bayes.inference.storage import load

LEAST_LIKELY = 12  # rows shown

DESCRIPTION = """\
Check a posterior against its own runs: are the PIT values uniform, is the scatter as large as the noise says,
does a trend remain along a variable or between groups, do some runs lie too far out or lead the fit. p values
are adjusted for the number of tests (Holm); the verdict is doubtful where one is below .05. The exit code is 0
also then.
"""


def add(commands) -> None:
    parser = commands.add_parser(
        "check", help="posterior predictive check: noise, trends left, outliers", description=DESCRIPTION
    )
    add_posterior(parser)
    parser.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        metavar="SEED",
        help="of simulated residuals (default: %(default)s)",
    )
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="also draw PIT values and residuals (.png, .pdf or .svg)"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    check_figure(arguments.figure, arguments.posterior)
    post = load(arguments.posterior)
    found = check(post, seed=arguments.seed)
    if arguments.json:
        content = {"posterior": describe(post), "verdict": found.verdict, "notes": found.notes}
        tables = {"tests": found.table.to_dict("records"), "runs": found.runs.to_dict("records")}
        print(json_text(content | tables))
    else:
        print(f"{post.law.name} on {len(post.runs)} runs of {post.runs.name}: {found.verdict}\n")
        print(text(found))
        notes(found.notes)
    if arguments.figure is not None:
        from m3bayes.plots import checked, save_figure

        save_figure(checked(found), arguments.figure)
        message(f"wrote {arguments.figure}")
    return 0


def text(found: Check) -> str:
    """The tests, smallest p first, and the runs farthest out."""
    far = found.runs.iloc[np.argsort(-np.abs(found.runs["residual"].to_numpy()))]
    shown = far[["run", "residual", "pit", "pareto_k"]].head(5)
    tests = found.table.sort_values("p")
    title = "Tests, least likely first" + (
        f" ({LEAST_LIKELY} of {len(tests)})" if len(tests) > LEAST_LIKELY else ""
    )
    return "\n".join(
        [
            section(title, frame_table(tests.head(LEAST_LIKELY), digits=3)),
            section("Runs farthest out, residual in standard normal units", frame_table(shown, digits=3)),
        ]
    )
