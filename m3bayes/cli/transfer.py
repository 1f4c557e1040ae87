"""``m3bayes transfer``: what a second language saves or costs in tokens."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from m3bayes.cli.options import (
    add_allow,
    add_ci,
    add_json,
    add_posterior,
    check_figure,
    load_allowed,
    positive,
    several,
)
from m3bayes.cli.show import frame_table, json_text, message, notes, section
from m3bayes.cli.summary import describe, headline
from m3bayes.languages.transfer import transfer_score

DESCRIPTION = """\
Bilingual transfer scores, -(sigma - 2 d) / d: sigma tokens, half of them target text, bring a bilingual model to the
loss that a monolingual one of the same size has after d tokens. 0: the source language neither helps nor harms;
above 0: it helps. Text is not repeated.
"""


def add(commands) -> None:
    parser = commands.add_parser(
        "transfer", help="what a second language saves or costs in tokens", description=DESCRIPTION
    )
    add_posterior(parser)
    parser.add_argument(
        "--tokens",
        type=several,
        required=True,
        metavar="LIST",
        help="d, tokens of the monolingual model in the table's unit, with commas between",
    )
    parser.add_argument(
        "--bilingual",
        type=Path,
        metavar="POSTERIOR",
        help="posterior of the bilingual runs, where POSTERIOR is that of the monolingual ones alone",
    )
    parser.add_argument(
        "--params",
        type=positive,
        metavar="COUNT",
        help="model size in the table's unit of parameters (default: the geometric mean of the runs')",
    )
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the scores here (PNG, PDF or SVG)")
    add_ci(parser)
    add_allow(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    read = [path for path in (arguments.posterior, arguments.bilingual) if path is not None]
    check_figure(arguments.figure, *read)
    post, *other = (load_allowed(Namespace(posterior=path, allow=arguments.allow)) for path in read)
    result = transfer_score(
        post,
        arguments.tokens,
        bilingual=other[0] if other else None,
        params=arguments.params,
        ci=arguments.ci,
    )
    if arguments.figure is not None:
        from m3bayes.plots.languages import transfer_scores
        from m3bayes.plots.style import save_figure

        save_figure(transfer_scores(result), arguments.figure)
    if arguments.json:
        content = {"posterior": describe(post)} | ({"bilingual": describe(other[0])} if other else {})
        content |= {"ci": result.ci, "params": result.params, "scores": result.table.to_dict("records")}
        print(json_text(content | {"notes": result.notes}))
    else:
        title = f"Transfer scores at {result.params:.4g} params, medians and {result.ci:.0%} intervals"
        print(f"{headline(post)}\n\n{section(title, frame_table(result.table))}")
        notes(result.notes)
    if arguments.figure is not None:
        message(f"wrote {arguments.figure}")
    return 0
