"""``m3bayes discrepancy``: let the law fail beyond the runs."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from m3bayes.cli.options import add_allow, add_json, add_posterior, check_out, load_allowed, positive, whole
from m3bayes.cli.show import json_text, message, notes, progress
from m3bayes.cli.summary import describe, headline
from m3bayes.evaluation import discrepancy

DESCRIPTION = """\
Write the posterior again with a departure from the law in every draw: none inside the range of the runs, growing
beyond it, as large as rollouts within the runs say (the law is fitted to smaller runs and predicts larger ones: six
fits at most) or as --scale says. predict, recommend, plans, guidelines and next then give intervals that do not
assume that the law holds beyond the runs.
"""


def add(commands) -> None:
    parser = commands.add_parser(
        "discrepancy", help="let the law fail beyond the runs", description=DESCRIPTION
    )
    add_posterior(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", required=True, help="write the posterior here (.nc)"
    )
    parser.add_argument(
        "--scale",
        type=positive,
        metavar="SD",
        help="standard deviation of the departure of log loss at e times beyond an end of the runs' range of N, U, k, "
        "all tokens, compute, r or r_f (default: learned)",
    )
    parser.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        metavar="SEED",
        help="of the fits and draws (default: %(default)s)",
    )
    add_allow(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    check_out(arguments.out, arguments.posterior)
    post = load_allowed(arguments.posterior, arguments.allow)
    with progress("fit") as report:
        wide = discrepancy(post, scale=arguments.scale, seed=arguments.seed, report=report)
    wide.save(arguments.out)
    if arguments.json:
        print(json_text(describe(wide)))
    else:
        print(headline(wide))
        notes(wide.notes)
    message(f"wrote {arguments.out}")
    return 0
