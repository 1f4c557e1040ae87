"""``m3bayes plans``: recipes of one's own, compared on the same draws."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from m3bayes.cli.options import (
    add_allow,
    add_ci,
    add_json,
    add_posterior,
    check_out,
    load_allowed,
    of_file,
    positive,
)
from m3bayes.cli.show import frame_table, json_text, message, notes, section
from m3bayes.cli.summary import describe, headline
from m3bayes.decision.plans import SLOPES, Plans, evaluate_plans
from m3bayes.errors import RecipeError
from m3bayes.files import write_text
from m3bayes.inference.predict import ADDED
from m3bayes.table_file import read_table

DESCRIPTION = """\
Compare recipes on the draws of a posterior: losses with intervals, the probability that one is better than another,
the regret of each (the loss above the best of them, draw by draw), and slopes of the mean loss. With --compute also
the loss above each draw's own optimum within that budget and within the range of the runs. Losses are in the table's
unit, params and tokens in its units, compute in FLOP.
"""
MOST_PAIRED = 20  # plans, of which every pair is shown
COMPARED = (
    "compute",
    "probability_best",
    "regret_mean",
    "regret_upper",
    "excess_mean",
    "excess_upper",
    "why_not",
)


def add(commands) -> None:
    parser = commands.add_parser("plans", help="compare recipes of your own", description=DESCRIPTION)
    add_posterior(parser)
    parser.add_argument(
        "plans",
        type=Path,
        metavar="PLANS",
        help="table of recipes, CSV or parquet, one row a plan, named by a column `run` or by their rows: params and "
        "target_tokens in the units of the table fitted, epochs, target_ratio, final_ratio, first_ratio",
    )
    parser.add_argument("--compute", type=positive, metavar="FLOP", help="budget in FLOP, counted as 6 N D")
    parser.add_argument(
        "--target-tokens",
        type=positive,
        metavar="COUNT",
        help="unique target tokens of the budget's optimum, in the table's unit (default: the plans' own)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything here, as JSON")
    add_ci(parser)
    add_allow(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    check_out(arguments.out, arguments.posterior, arguments.plans)
    if arguments.target_tokens is not None and arguments.compute is None:
        raise RecipeError("--target-tokens is of a budget: give --compute too, or neither")
    post = load_allowed(arguments.posterior, arguments.allow)
    table = read_table(arguments.plans)
    try:
        result = evaluate_plans(
            post, table, compute=arguments.compute, target_tokens=arguments.target_tokens, ci=arguments.ci
        )
    except RecipeError as error:
        raise of_file(arguments.plans, error) from error
    content = json_text({"posterior": describe(post), **result.to_json()})
    if arguments.out is not None:
        write_text(arguments.out, content + "\n")
    if arguments.json:
        print(content)
    else:
        print(f"{headline(post)}\n\n{text(result)}")
        notes(result.notes)
    if arguments.out is not None:
        message(f"wrote {arguments.out}")
    return 0


def text(result: Plans) -> str:
    """Plans as tables."""
    table = result.table.reset_index()
    ci = f"{result.ci:.0%}"

    def shown(names) -> str:
        return frame_table(table[["plan", *(name for name in names if name in table)]])

    return "\n".join(
        [
            section(f"Losses, {ci} intervals", shown(ADDED)),
            section(
                "Compared: regret above the best plan, excess above each draw's own optimum", shown(COMPARED)
            ),
            section(
                "Probability that the row is better than the column",
                frame_table(result.better.reset_index())
                if len(table) <= MOST_PAIRED
                else f"{len(table)} plans, too many for a page: --json and --out have it",
            ),
            section("Slopes of the mean loss", shown(SLOPES.values())),
        ]
    ).rstrip()
