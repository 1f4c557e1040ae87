"""``m3bayes compare``: which law predicts a run best that it was not fitted to?"""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace

from m3bayes.cli import several_laws
from m3bayes.cli.show import frame_table, json_text, notes, progress
from m3bayes.evaluation import compare

DESCRIPTION = f"""\
Compare laws by the log predictive density (elpd, in nats; of losses in the table's unit; higher is better) of runs
that were left out: one at a time by smoothed importance sampling, refitted where that is not to be trusted, or by
folds. difference is to the best law; a law within two standard errors of it cannot be told from it. weight is that
of the best mixture of the laws (stacking). {several_laws.EXIT}
"""


def folds(text: str) -> int | str:
    if text.isdigit() and int(text) < 2:
        raise ArgumentTypeError(f"expected a column or a number of 2 or more, got {text!r}")
    return int(text) if text.isdigit() else text


def add(commands) -> None:
    parser = commands.add_parser(
        "compare", help="laws, by how well they predict runs left out", description=DESCRIPTION
    )
    several_laws.add_arguments(parser)
    parser.add_argument(
        "--folds",
        type=folds,
        metavar="COLUMN|K",
        help="leave out the runs of each value of a column, or of K random parts, instead of one at a time",
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    runs, laws = several_laws.read(arguments)
    with progress("law") as report:
        found = compare(runs, laws, folds=arguments.folds, report=report, **several_laws.sampling(arguments))
    if arguments.json:
        content = {"table": runs.name, "runs": len(runs), "method": found.method, "notes": found.notes}
        tables = {"laws": found.table.to_dict("records"), "pairwise": found.pairwise.to_dict("records")}
        print(json_text(content | tables))
    else:
        print(f"{len(runs)} runs of {runs.name}: {found.method}\n")
        print(frame_table(found.table))
        notes(found.notes)

    def draw():
        from m3bayes.plots import compared

        return compared(found)

    return several_laws.write(arguments, found.table, draw)
