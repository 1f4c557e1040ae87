"""``m3bayes recommend``: the recipe with the lowest loss that a compute budget pays for."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from m3bayes.cli import averaged
from m3bayes.cli.options import (
    add_allow,
    add_ci,
    add_json,
    check_out,
    interval,
    load_allowed,
    names,
    not_negative,
    of_file,
    positive,
    setting,
    several,
    upper_end,
)
from m3bayes.cli.report import UNITS, continuation_text, recommendation_text
from m3bayes.cli.show import json_text, message, notes
from m3bayes.cli.summary import describe, headline
from m3bayes.decision import Recommendation, recommend
from m3bayes.decision.continuing import Checkpoint, Continuation, continue_from
from m3bayes.decision.cost import Cost, fitted, six_nd, with_attention
from m3bayes.decision.risk import KINDS, Risk, parse
from m3bayes.decision.space import LETTERS
from m3bayes.errors import M3BayesError, RecipeError
from m3bayes.files import write_text
from m3bayes.inference.posterior import Posterior
from m3bayes.recipe import Recipe, recipe_columns
from m3bayes.table_checks import VARIABLES
from m3bayes.table_file import read_table

Ends = tuple[float | None, float | None]


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
    parser.add_argument(
        "--compute",
        type=positive,
        required=True,
        metavar="FLOP",
        help="budget in FLOP, counted as --cost says",
    )
    parser.add_argument(
        "--target-tokens",
        type=positive,
        required=True,
        metavar="COUNT",
        help="unique target tokens there are, in the table's unit of tokens",
    )
    parser.add_argument(
        "--cost",
        type=cost_named,
        default="6nd",
        metavar="COST",
        help="how FLOP are counted: 6nd; attention:CONTEXT, 6 N D and attention over so many tokens; fitted, to the "
        "table's column flops (default: %(default)s)",
    )
    add_bounds(parser)
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
    parser.add_argument(
        "--risk",
        type=risk_named,
        default="mean",
        metavar="RISK",
        help=f"what to make small over the draws, in the table's unit of loss: {KINDS}; Q between 0 and 1, regret is "
        "the loss above each draw's own optimum (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything here, as JSON")
    add_ci(parser)
    add_allow(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def add_bounds(parser: ArgumentParser) -> None:
    """--min-NAME, --max-NAME and --bound all append (name, (low, high)) to ``bounds``."""
    group = parser.add_argument_group("bounds, by default the range of the runs")
    for name, letter in LETTERS.items():
        for end in ("min", "max"):
            group.add_argument(
                f"--{end}-{name.replace('_', '-')}",
                dest="bounds",
                action="append",
                default=[],
                type=partial(_low if end == "min" else _high, name),
                metavar="VALUE",
                help=f"{'least' if end == 'min' else 'most'} {name} ({letter}), {UNITS[name]}",
            )
    known = ", ".join(f"{name} ({letter})" for name, letter in LETTERS.items())
    group.add_argument(
        "--bound",
        dest="bounds",
        action="append",
        default=[],
        type=interval,
        metavar="NAME=LOW:HIGH",
        help=f"the same for any of {known}; either end may be left out",
    )
    group.add_argument(
        "--freeze",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="hold one of them, as in r=1; also first_ratio, and further columns that the law reads",
    )


def cost_named(text: str) -> str | Cost:
    """A cost, or "fitted", which takes the table of runs."""
    kind, colon, context = text.partition(":")
    if kind in ("6nd", "fitted") and not colon:
        return six_nd() if kind == "6nd" else kind
    if kind == "attention" and colon:
        return with_attention(positive(context))
    raise ArgumentTypeError(f"expected 6nd, attention:CONTEXT or fitted, got {text!r}")


def checkpoint(text: str) -> Checkpoint:
    """``N,D`` or ``N,D,R``."""
    parts = names(text)
    if len(parts) not in (2, 3):
        raise ArgumentTypeError(f"expected N,D or N,D,R, as in 1e6,2e7,.1, got {text!r}")
    try:
        return Checkpoint(*map(not_negative, parts))
    except RecipeError as error:
        raise ArgumentTypeError(str(error)) from None


def risk_named(text: str) -> Risk:
    try:
        return parse(text)
    except RecipeError as error:
        raise ArgumentTypeError(str(error)) from None


def _low(name: str, text: str) -> tuple[str, Ends]:
    return name, (not_negative(text), None)


def _high(name: str, text: str) -> tuple[str, Ends]:
    return name, (None, upper_end(text))


def run(arguments: Namespace) -> int:
    check_out(arguments.out, *arguments.posteriors)
    bounds, freeze = _bounds(arguments.bounds), _each_once(arguments.freeze, "--freeze")
    baselines = _baselines(arguments.baseline)
    multiples = _each_once(arguments.multiple, "--multiple")
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
    asked = {
        "compute": arguments.compute,
        "target_tokens": arguments.target_tokens,
        "cost": fitted(post.runs) if arguments.cost == "fitted" else arguments.cost,
        "bounds": bounds,
        "freeze": freeze,
        "risk": arguments.risk,
        "ci": arguments.ci,
    }
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


def _bounds(given: Iterable[tuple[str, Ends]]) -> dict[str, Ends]:
    """{name: (low, high)}, each end given at most once."""
    names = {letter: name for name, letter in LETTERS.items()}
    result: dict[str, Ends] = {}
    for name_or_letter, ends in given:
        name = names.get(name_or_letter, name_or_letter)
        before = result.get(name, (None, None))
        if any(new is not None and old is not None for new, old in zip(ends, before, strict=True)):
            raise RecipeError(f"a bound on {name} is given twice; give it once")
        low, high = (old if new is None else new for new, old in zip(ends, before, strict=True))
        result[name] = (low, high)
    return result


def _each_once(pairs: Iterable[tuple[str, float]], option: str) -> dict[str, float]:
    result: dict[str, float] = {}
    for name, value in pairs:
        if name in result:
            raise RecipeError(f"{option} {name} is given twice; give it once")
        result[name] = value
    return result


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
