"""``m3bayes recommend``: the recipe with the lowest loss that a compute budget pays for."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from m3bayes.cli import averaged
from m3bayes.cli.options import (
    add_allow,
    add_ci,
    add_json,
    check_out,
    load_allowed,
    names,
    not_negative,
    of_file,
    positive,
    setting,
    several,
)
from m3bayes.cli.report import continuation_text, recommendation_text
from m3bayes.cli.request import add_request, each_once, request_of
from m3bayes.cli.show import json_text, message, notes
from m3bayes.cli.summary import describe, headline
from m3bayes.decision import Recommendation, recommend
from m3bayes.decision.continuing import Checkpoint, Continuation, continue_from
from m3bayes.errors import M3BayesError, RecipeError
from m3bayes.files import write_text
from m3bayes.inference.posterior import Posterior
from m3bayes.recipe import Recipe, recipe_columns
from m3bayes.table_checks import VARIABLES
from m3bayes.table_file import read_table


def add(commands) -> None:
    parser = commands.add_parser(
        "recommend",
        help="the best recipe for a compute budget",
        description="The recipe with the lowest expected loss, or another risk, that spends at most the given compute, "
        "with intervals. Bounds are the range of the runs where not given. With several posteriors, of several laws "
        "fitted to the same runs, the recipe is the best on average over them by --weights.",
    )
    parser.add_argument(
        "posteriors",
        type=Path,
        nargs="+",
        metavar="POSTERIOR",
        help="file that `m3bayes fit` wrote (netCDF); several for a recipe averaged over laws",
    )
    parser.add_argument(
        "--weights",
        type=averaged.weights,
        metavar="W,W,...|FILE",
        help="of several posteriors, in their order and of any sum; or a file with weights by law, as "
        "`m3bayes rollout --json` prints it",
    )
    add_request(parser)
    parser.add_argument(
        "--architectures",
        type=several,
        metavar="N,N,...",
        help="the only sizes that can be built, in the table's unit of params; says what that costs",
    )
    parser.add_argument(
        "--multiple",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=STEP",
        help="whole multiples alone of epochs (k) or tokens (D), as in k=1",
    )
    parser.add_argument(
        "--from-checkpoint",
        type=checkpoint,
        metavar="N,D[,R]",
        help="go on with a model of N params that has seen D tokens (table's units) at target ratio R (default: 0); "
        "only new tokens cost, and bounds are those of the whole run",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="RECIPES",
        help="table of recipes to compare with, named by a column `run` or by their rows",
    )
    parser.add_argument(
        "--tolerance",
        type=positive,
        metavar="LOSS",
        help="excess loss that is still near-optimal, in the table's unit of loss (default: 0.005)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything here, as JSON")
    add_ci(parser)
    add_allow(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def checkpoint(text: str) -> Checkpoint:
    """``N,D`` or ``N,D,R``."""
    parts = names(text)
    if len(parts) not in (2, 3):
        raise ArgumentTypeError(f"expected N,D or N,D,R, as in 1e6,2e7,.1, got {text!r}")
    try:
        return Checkpoint(*map(not_negative, parts))
    except RecipeError as error:
        raise ArgumentTypeError(str(error)) from None


def run(arguments: Namespace) -> int:
    check_out(arguments.out, *arguments.posteriors)
    baselines = _baselines(arguments.baseline)
    multiples = each_once(arguments.multiple, "--multiple")
    if arguments.from_checkpoint and (
        baselines or multiples or arguments.architectures or arguments.tolerance is not None
    ):
        raise RecipeError(
            "--from-checkpoint goes without --baseline, --multiple, --architectures and --tolerance; leave those out"
        )
    if len(arguments.posteriors) == 1 and arguments.weights is not None:
        raise M3BayesError("--weights are of several posteriors, and one is given; leave them out")
    if len(arguments.posteriors) > 1 and arguments.from_checkpoint:
        raise RecipeError("--from-checkpoint goes with one posterior; give one")
    posts = [load_allowed(path, arguments.allow) for path in arguments.posteriors]
    post = posts[0]
    asked = request_of(arguments, post)
    if arguments.from_checkpoint:
        show(continue_from(post, arguments.from_checkpoint, **asked), post, arguments.out, arguments.json)
        return 0
    asked |= {
        "architectures": arguments.architectures,
        "multiples": multiples,
        "baselines": baselines,
        **({} if arguments.tolerance is None else {"tolerance": arguments.tolerance}),
    }
    if len(posts) > 1:
        averaged.recommend_and_show(posts, arguments.weights, asked, arguments.out, arguments.json)
    else:
        show(recommend(post, **asked), post, arguments.out, arguments.json)
    return 0


def show(result: Recommendation | Continuation, post: Posterior, out: Path | None, as_json: bool) -> None:
    """Print a recommendation, and write it to ``out``."""
    content = json_text({"posterior": describe(post), **result.to_json()})
    if out is not None:
        write_text(out, content + "\n")
    if as_json:
        print(content)
    else:
        said = continuation_text(result) if isinstance(result, Continuation) else recommendation_text(result)
        print(f"{headline(post)}\n\n{said}")
        notes(result.notes)
    if out is not None:
        message(f"wrote {out}")


def _baselines(path: Path | None) -> dict[str, Recipe]:
    """{name: recipe} of a table, named by its column ``run`` where there is one."""
    if path is None:
        return {}
    rows = read_table(path)
    try:
        columns = recipe_columns(rows)
    except RecipeError as error:
        raise of_file(path, error) from error
    names = rows["run"].astype(str) if "run" in rows else [f"row {i + 1}" for i in range(len(rows))]
    result: dict[str, Recipe] = {}
    for i, name in enumerate(names):
        values = {column: float(cells[i]) for column, cells in columns.items() if not math.isnan(cells[i])}
        recipe = {column: values.pop(column) for column in VARIABLES if column in values}
        if name in result:
            raise RecipeError(f"{path}: run {name!r} is there twice; give each baseline its own name")
        result[name] = Recipe(**recipe, extra=values)
    return result
