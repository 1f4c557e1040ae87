"""``m3bayes crossover``: from scratch, or on from a checkpoint?"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

from m3bayes.cli.multilinguality import POINTS
from m3bayes.cli.options import (
    add_allow,
    add_ci,
    add_json,
    add_posterior,
    check_figure,
    load_allowed,
    several,
)
from m3bayes.cli.show import frame_table, json_text, message, notes, section
from m3bayes.cli.summary import describe, headline
from m3bayes.languages.finetune import crossover

DESCRIPTION = """\
The target tokens, and the compute in FLOP, from which on training from scratch is better than going on from a
checkpoint, for each model size, from a posterior of the law continued. Its table of runs has a column `continued`: 1
where a run went on from a checkpoint, 0 from scratch.
"""


def add(commands) -> None:
    parser = commands.add_parser(
        "crossover", help="train from scratch, or on from a checkpoint?", description=DESCRIPTION
    )
    add_posterior(parser)
    parser.add_argument(
        "--params",
        type=several,
        required=True,
        metavar="LIST",
        help="model sizes in the table's unit of parameters, with commas between",
    )
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the line here (PNG, PDF or SVG)")
    add_ci(parser)
    add_allow(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    check_figure(arguments.figure, arguments.posterior)
    post = load_allowed(arguments.posterior, arguments.allow)
    result = crossover(post, arguments.params, ci=arguments.ci)
    exponent = result.exponent
    if arguments.figure is not None:
        from m3bayes.plots.languages import crossover_line
        from m3bayes.plots.style import save_figure

        sizes = np.concatenate([post.runs["params"], arguments.params])
        line = crossover(post, np.geomspace(sizes.min(), sizes.max(), POINTS), ci=arguments.ci)
        save_figure(crossover_line(line, post.runs), arguments.figure)
    if arguments.json:
        content = {"posterior": describe(post), "ci": result.ci, "crossover": result.table.to_dict("records")}
        content["exponent"] = {
            "mean": exponent.mean, "median": exponent.median, "lower": exponent.lower, "upper": exponent.upper,
        }  # fmt: skip
        print(json_text(content | {"tokens_range": result.tokens_range, "notes": result.notes}))
    else:
        title = (
            f"From these tokens on training from scratch is better, medians and {result.ci:.0%} intervals; never, "
            "outside: share of the draws"
        )
        print(f"{headline(post)}\n\n{section(title, frame_table(result.table))}")
        said = f"{exponent.median:.3g} ({exponent.lower:.3g} to {exponent.upper:.3g})"
        if result.table["never"].to_numpy().min() < 1:
            print(f"compute at the crossover grows as params to the power {said}")
        notes(result.notes)
    if arguments.figure is not None:
        message(f"wrote {arguments.figure}")
    return 0
