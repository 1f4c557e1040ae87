"""``m3bayes multilinguality``: what more languages cost at equal loss."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

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
from m3bayes.languages.multilinguality import equal_loss, published_equal_loss

DESCRIPTION = """\
What so many times as many languages cost at equal loss: factors of model size, of all tokens and of compute, from a
posterior of the law multilingual. Beside them the published ones of Longpre et al. 2026.
"""
POINTS = 33  # of a curve


def add(commands) -> None:
    parser = commands.add_parser(
        "multilinguality", help="what more languages cost at equal loss", description=DESCRIPTION
    )
    add_posterior(parser)
    parser.add_argument(
        "--times",
        type=several,
        default=(2.0, 4.0),
        metavar="LIST",
        help="how many times as many languages, with commas between (default: 2,4)",
    )
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the factors here (PNG, PDF or SVG)")
    add_ci(parser)
    add_allow(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    check_figure(arguments.figure, arguments.posterior)
    post = load_allowed(arguments.posterior, arguments.allow)
    result = equal_loss(post, arguments.times, ci=arguments.ci)
    reported = published_equal_loss(arguments.times)
    if arguments.figure is not None:
        from m3bayes.plots.languages import equal_loss_factors
        from m3bayes.plots.style import save_figure

        times = np.geomspace(min(1.0, *arguments.times), max(2.0, *arguments.times), POINTS)
        save_figure(equal_loss_factors(equal_loss(post, times, ci=arguments.ci)), arguments.figure)
    if arguments.json:
        exponents = {
            name: {"mean": each.mean, "median": each.median, "lower": each.lower, "upper": each.upper}
            for name, each in result.exponents.items()
        }
        content = {"posterior": describe(post), "ci": result.ci, "factors": result.table.to_dict("records")}
        content |= {"exponents": exponents, "published": reported.to_dict("records"), "notes": result.notes}
        print(json_text(content))
    else:
        title = (
            f"Factors at equal loss, medians and {result.ci:.0%} intervals; tokens are those of all languages"
        )
        print(f"{headline(post)}\n\n{section(title, frame_table(result.table))}")
        print(section("As published (Longpre et al. 2026)", frame_table(reported)))
        notes(result.notes)
    if arguments.figure is not None:
        message(f"wrote {arguments.figure}")
    return 0
