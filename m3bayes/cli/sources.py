"""``m3bayes sources``: which source languages to add for a budget, and how much of each."""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path

from m3bayes.cli.options import (
    add_allow,
    add_ci,
    add_json,
    add_posterior,
    check_out,
    load_allowed,
    positive,
    setting,
)
from m3bayes.cli.report import UNITS, constraints_text
from m3bayes.cli.request import add_request, each_once, request_of
from m3bayes.cli.show import json_text, message, notes, number, section, table
from m3bayes.cli.summary import describe, headline
from m3bayes.files import write_text
from m3bayes.languages.sources import SourceRecommendation, recommend_sources


def add(commands) -> None:
    parser = commands.add_parser(
        "sources",
        help="which source languages to add, and how much of each",
        description="The recipe and the mix of source languages with the lowest expected loss, or another risk of "
        "losses, that spends at most the given compute, beside the best with one source alone and with none. The "
        "posterior is of law atlas with named sources: `m3bayes fit RUNS --law atlas --sources en,fr`.",
    )
    add_posterior(parser)
    add_request(parser)
    parser.add_argument(
        "--unique-tokens",
        type=setting,
        action="append",
        required=True,
        metavar="SOURCE=COUNT",
        help="tokens there are of a source, in the table's unit; once for every source of the law, 0 to leave one out",
    )
    parser.add_argument(
        "--source-epochs",
        type=positive,
        default=1.0,
        metavar="COUNT",
        help="how often source text may be seen (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything here, as JSON")
    add_ci(parser)
    add_allow(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    check_out(arguments.out, arguments.posterior)
    unique = each_once(arguments.unique_tokens, "--unique-tokens")
    post = load_allowed(arguments.posterior, arguments.allow)
    result = recommend_sources(
        post,
        unique_tokens=unique,
        source_epochs=arguments.source_epochs,
        **request_of(arguments, post),
    )
    content = json_text({"posterior": describe(post), **result.to_json()})
    if arguments.out is not None:
        write_text(arguments.out, content + "\n")
    if arguments.json:
        print(content)
    else:
        print(f"{headline(post)}\n\n{sources_text(result)}")
        notes(result.notes)
    if arguments.out is not None:
        message(f"wrote {arguments.out}")
    return 0


def sources_text(result: SourceRecommendation) -> str:
    """A mix of sources as tables."""
    recipe, loss, ci = result.recipe, result.loss, f"{result.ci:.0%}"
    variables = [
        (name, getattr(recipe, name), UNITS[name])
        for name in ("params", "epochs", "target_ratio", "tokens", "source_tokens")
    ]
    sources = [
        (
            name,
            *(row[column] for column in ("tokens", "share", "epochs", "most", "most_from")),
            *(row[column] for column in ("tau", "tau_lower", "tau_upper")),
        )
        for name, row in result.sources.iterrows()
    ]
    losses = [
        ("mean surface", loss.mean, loss.sd, loss.lower, loss.upper),
        ("a new run", math.nan, math.nan, loss.new_run_lower, loss.new_run_upper),
    ]
    columns = (
        "loss_mean",
        "gain",
        "gain_lower",
        "gain_upper",
        "probability_better",
        "params",
        "source_tokens",
    )
    alone = [
        (name, *(row.get(column, math.nan) for column in columns), row["why_not"])
        for name, row in result.alone.iterrows()
    ]
    return "\n".join(
        [
            section(
                f"Recommended for {number(result.compute)} {result.unit} and {number(recipe.target_tokens)} unique "
                f"target tokens, by {result.risk}",
                table(("", "recipe", "unit"), variables),
            ),
            section(
                f"Sources: tokens of each; tau, what one of its tokens is worth in target tokens, median and {ci} "
                "interval",
                table(
                    ("", "tokens", "share", "epochs", "most", "limited by", "tau", "lower", "upper"), sources
                ),
            ),
            section(f"Loss, {ci} intervals", table(("", "mean", "sd", "lower", "upper"), losses)),
            section(
                "One source alone, or none: what the mix gains over it, and the probability that it beats the mix",
                table(
                    (
                        "",
                        "loss",
                        "gain",
                        "lower",
                        "upper",
                        "P(beats)",
                        "params",
                        "source tokens",
                        "not feasible",
                    ),
                    alone,
                ),
            ),
            constraints_text(result.constraints),
            f"Compute: {number(result.compute_used)} of {number(result.compute)} {result.unit} used",
        ]
    )
