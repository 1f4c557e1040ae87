"""``m3bayes transfer``: what a second language saves or costs in tokens, and what each is worth in each."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from m3bayes.cli.options import (
    add_allow,
    add_ci,
    add_json,
    check_figure,
    load_allowed,
    positive,
    several,
)
from m3bayes.cli.show import frame_table, json_text, message, notes, section
from m3bayes.cli.summary import describe, headline
from m3bayes.errors import M3BayesError
from m3bayes.inference.posterior import Posterior
from m3bayes.languages.matrix import Pair, transfer_matrix
from m3bayes.languages.transfer import transfer_score

DESCRIPTION = """\
With --tokens, bilingual transfer scores, -(sigma - 2 d) / d: sigma tokens, half of them target text, bring a bilingual
model to the loss that a monolingual one of the same size has after d tokens. 0: the source language neither helps nor
harms; above 0: it helps. Text is not repeated. With --matrix, the transfer matrix: what a source token is worth in
target tokens, for each pair of languages that the posteriors tell of.
"""


def add(commands) -> None:
    parser = commands.add_parser(
        "transfer", help="what a second language saves or costs in tokens", description=DESCRIPTION
    )
    parser.add_argument(
        "posterior",
        type=Path,
        nargs="+",
        metavar="POSTERIOR",
        help="file that `m3bayes fit` wrote (netCDF); several with --matrix, each of the runs of one target language, "
        "named by their column language (and one source, by their column source, where the law does not name any)",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--tokens",
        type=several,
        metavar="LIST",
        help="d, tokens of the monolingual model in the table's unit, with commas between",
    )
    what.add_argument("--matrix", action="store_true", help="the transfer matrix of all posteriors")
    parser.add_argument(
        "--bilingual",
        type=Path,
        metavar="POSTERIOR",
        help="posterior of the bilingual runs, where POSTERIOR is that of the monolingual ones alone",
    )
    parser.add_argument(
        "--source", metavar="NAME", help="the source language, where the law has several (atlas with sources)"
    )
    parser.add_argument(
        "--params",
        type=positive,
        metavar="COUNT",
        help="model size in the table's unit of parameters (default: the geometric mean of the runs')",
    )
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw the scores or the matrix here (PNG, PDF or SVG)"
    )
    add_ci(parser)
    add_allow(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    of_scores = [arguments.bilingual, arguments.source, arguments.params]
    if arguments.matrix and any(given is not None for given in of_scores):
        raise M3BayesError("--bilingual, --source and --params are of --tokens; leave them out with --matrix")
    if not arguments.matrix and len(arguments.posterior) > 1:
        raise M3BayesError(
            f"--tokens takes one posterior, not {len(arguments.posterior)}; give one, or --matrix"
        )
    read = [*arguments.posterior, *(path for path in (arguments.bilingual,) if path is not None)]
    check_figure(arguments.figure, *read)
    posts = [load_allowed(path, arguments.allow) for path in read]
    return _matrix(posts, arguments) if arguments.matrix else _scores(posts, arguments)


def _scores(posts: list[Posterior], arguments: Namespace) -> int:
    post, *other = posts
    result = transfer_score(
        post,
        arguments.tokens,
        bilingual=other[0] if other else None,
        params=arguments.params,
        source=arguments.source,
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


def _matrix(posts: list[Posterior], arguments: Namespace) -> int:
    by_languages: dict[str | Pair, Posterior] = {}
    for path, post in zip(arguments.posterior, posts, strict=True):
        target = _one_label(path, post, "language")
        key = target if post.law.options.get("sources") else (_one_label(path, post, "source"), target)
        if key in by_languages:
            raise M3BayesError(
                f"{path} is of the same languages as another posterior, {key}; give one of them"
            )
        by_languages[key] = post
    result = transfer_matrix(by_languages, ci=arguments.ci)
    if arguments.figure is not None:
        from m3bayes.plots.languages import transfer_heat_map
        from m3bayes.plots.style import save_figure

        save_figure(transfer_heat_map(result), arguments.figure)
    if arguments.json:
        content = {"posteriors": [describe(post) for post in posts], "ci": result.ci}
        print(json_text(content | {"pairs": result.table.to_dict("records"), "notes": result.notes}))
    else:
        title = f"Worth of a source token in target tokens, medians and {result.ci:.0%} intervals"
        print(section(title, frame_table(result.table)))
        wide = result.matrix().rename_axis(None, axis="columns").reset_index()
        print(section("Medians, target by source", frame_table(wide)))
        notes(result.notes)
    if arguments.figure is not None:
        message(f"wrote {arguments.figure}")
    return 0


def _one_label(path: Path, post: Posterior, column: str) -> str:
    """The one value of a column of the runs."""
    found = sorted({str(value) for value in post.runs[column]})
    if len(found) != 1 or not found[0]:
        raise M3BayesError(
            f"{path}: column {column} of its runs has {', '.join(map(repr, found[:4]))}; expected one {column}: fit "
            "the runs of each by themselves, as with --where"
        )
    return found[0]
