"""``m3bayes guidelines``: which regime is best over compute and target text."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from pathlib import Path

import numpy as np

from m3bayes.cli.options import (
    add_allow,
    add_ci,
    add_json,
    add_posterior,
    check_figure,
    check_out,
    load_allowed,
    not_negative,
    positive,
    whole,
)
from m3bayes.cli.show import frame_table, json_text, message, notes, progress, section
from m3bayes.cli.summary import describe, headline
from m3bayes.decision import guidelines
from m3bayes.files import write_text

DESCRIPTION = """\
The probability of each regime to be best over a grid of compute and target text, and the target text below
which two-stage training is, with its interval; both within the range of the runs.
"""


def add(commands) -> None:
    parser = commands.add_parser(
        "guidelines", help="the best regime over compute and target text", description=DESCRIPTION
    )
    add_posterior(parser)
    parser.add_argument(
        "--compute", type=_range, required=True, metavar="LOW:HIGH", help="range of the budget, in FLOP"
    )
    parser.add_argument(
        "--target-tokens",
        type=_range,
        required=True,
        metavar="LOW:HIGH",
        help="range of unique target tokens, in the table's unit of tokens",
    )
    parser.add_argument(
        "--cells", type=whole(2), default=24, metavar="COUNT", help="along each axis (default: %(default)s)"
    )
    parser.add_argument(
        "--margin",
        type=not_negative,
        default=0.0,
        metavar="LOSS",
        help="what a regime must save against the simpler ones, in the table's unit of loss (default: 0)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the map here, as CSV, one row a cell")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the map here (PNG, PDF or SVG)")
    add_ci(parser)
    add_allow(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    check_out(arguments.out, arguments.posterior)
    check_figure(arguments.figure, arguments.posterior)
    post = load_allowed(arguments.posterior, arguments.allow)
    compute, target_tokens = (
        np.geomspace(low, high, arguments.cells) for low, high in (arguments.compute, arguments.target_tokens)
    )
    with progress("value of compute") as report:
        result = guidelines.regimes(
            post, compute, target_tokens, ci=arguments.ci, margin=arguments.margin, report=report
        )
    written = []
    if arguments.out is not None:
        text = result.frame().to_csv(index=False, float_format="%.8g", lineterminator="\n")
        write_text(arguments.out, text)
        written.append(arguments.out)
    if arguments.figure is not None:
        from m3bayes.plots.guidelines import regime_map
        from m3bayes.plots.style import save_figure

        save_figure(regime_map(result), arguments.figure)
        written.append(arguments.figure)
    curve = result.threshold_frame()
    if arguments.json:
        content = {"posterior": describe(post), "ci": result.ci, "margin": result.margin}
        cells = result.frame().drop(columns=[name for name in curve if name != "compute"])
        content |= {"threshold": curve.to_dict("records"), "cells": cells.to_dict("records")}
        print(json_text(content | {"notes": result.notes}))
    else:
        title = (
            f"Target text below which two-stage training is best, with {result.ci:.0%} interval; scarcity is "
            "that over D*(C); below, above: share of the draws outside the range"
        )
        print(f"{headline(post)}\n\n{section(title, frame_table(curve))}")
        notes(result.notes)
    for path in written:
        message(f"wrote {path}")
    return 0


def _range(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    if not (colon and low and high):
        raise ArgumentTypeError(f"expected LOW:HIGH, as in 1e18:1e22, got {text!r}")
    ends = positive(low), positive(high)
    if not ends[0] < ends[1]:
        raise ArgumentTypeError(f"expected LOW of LOW:HIGH to be below HIGH, got {text!r}")
    return ends
