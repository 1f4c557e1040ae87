"""``m3bayes next``: which runs to measure next, for a coming decision."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from m3bayes.cli.options import (
    add_allow,
    add_json,
    add_posterior,
    check_out,
    load_allowed,
    of_file,
    positive,
    whole,
)
from m3bayes.cli.show import frame_table, json_text, message, notes, number, section
from m3bayes.cli.summary import describe, headline
from m3bayes.decision.design import NextRuns, next_runs
from m3bayes.errors import RecipeError
from m3bayes.files import write_text
from m3bayes.table_file import read_table

DESCRIPTION = """\
The runs that lower the expected regret of the coming `m3bayes recommend --compute --target-tokens` most,
chosen one after the other within a budget, by reweighting the posterior's draws with simulated outcomes.
Regrets are in the table's unit of loss.
"""
SHOWN = (
    "row",
    "params",
    "target_tokens",
    "epochs",
    "target_ratio",
    "final_ratio",
    "flops",
    "after",
    "gain",
    "gain_se",
)


def add(commands) -> None:
    parser = commands.add_parser("next", help="which runs to measure next", description=DESCRIPTION)
    add_posterior(parser)
    parser.add_argument(
        "--budget", type=positive, required=True, metavar="FLOP", help="for all the runs together, in FLOP"
    )
    parser.add_argument(
        "--compute",
        type=positive,
        required=True,
        metavar="FLOP",
        help="budget of the coming decision, in FLOP",
    )
    parser.add_argument(
        "--target-tokens",
        type=positive,
        required=True,
        metavar="COUNT",
        help="unique target tokens of the coming decision, in the table's unit of tokens",
    )
    parser.add_argument(
        "--candidates",
        type=Path,
        metavar="FILE",
        help="table of recipes to choose from, CSV or parquet (default: 48 spread over the range of the runs)",
    )
    parser.add_argument(
        "--number", type=whole(1), metavar="COUNT", help="most runs (default: as many as gain)"
    )
    parser.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        metavar="SEED",
        help="of simulated outcomes (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the chosen runs here, as CSV")
    add_allow(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    read = [path for path in (arguments.posterior, arguments.candidates) if path is not None]
    check_out(arguments.out, *read)
    post = load_allowed(arguments.posterior, arguments.allow)
    candidates = None if arguments.candidates is None else read_table(arguments.candidates)
    try:
        result = next_runs(
            post,
            candidates,
            compute=arguments.compute,
            target_tokens=arguments.target_tokens,
            budget=arguments.budget,
            number=arguments.number,
            seed=arguments.seed,
        )
    except RecipeError as error:
        raise of_file(arguments.candidates, error) if arguments.candidates else error from error
    if arguments.out is not None:
        write_text(arguments.out, result.runs.to_csv(index=False, float_format="%.8g", lineterminator="\n"))
    if arguments.json:
        print(json_text({"posterior": describe(post), **_content(result)}))
    else:
        print(f"{headline(post)}\n\n{_text(result, arguments.candidates is not None)}")
        notes(result.notes)
    if arguments.out is not None:
        message(f"wrote {arguments.out}")
    return 0


def _content(result: NextRuns) -> dict:
    return {
        "runs": result.runs.to_dict("records"),
        "before": result.before,
        "after": result.after,
        "against": result.against.to_dict("index"),
        "single": result.single.to_dict("records"),
        "budget": result.budget,
        "notes": result.notes,
    }


def _text(result: NextRuns, of_table: bool) -> str:
    """``of_table``: candidates are rows of a table that the reader has."""
    shown = [name for name in SHOWN if name in result.runs and (of_table or name != "row")]
    return "\n".join(
        [
            section(
                f"Next runs, within {number(result.budget)} FLOP; `after` is the expected regret once a run and "
                f"those above it are measured, {number(result.before)} now",
                frame_table(result.runs[shown]),
            ),
            section("Against other plans, expected regret after", frame_table(result.against.reset_index())),
        ]
    )
