"""``m3bayes recommend``: the recipe with the lowest loss that a compute budget pays for."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from m3bayes.cli.options import (
    add_allow,
    add_ci,
    add_json,
    add_posterior,
    check_out,
    interval,
    load_allowed,
    not_negative,
    of_file,
    positive,
    setting,
    upper_end,
)
from m3bayes.cli.report import UNITS, text
from m3bayes.cli.show import json_text, message, notes
from m3bayes.cli.summary import describe, headline
from m3bayes.decision import Recommendation, recommend
from m3bayes.decision.risk import KINDS, Risk, parse
from m3bayes.decision.space import LETTERS
from m3bayes.errors import RecipeError
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
        "with intervals. Bounds are the range of the runs where not given.",
    )
    add_posterior(parser)
    parser.add_argument(
        "--compute", type=positive, required=True, metavar="FLOP", help="budget in FLOP, counted as 6 N D"
    )
    parser.add_argument(
        "--target-tokens",
        type=positive,
        required=True,
        metavar="COUNT",
        help="unique target tokens there are, in the table's unit of tokens",
    )
    add_bounds(parser)
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="RECIPES",
        help="table of recipes to compare with, named by a column `run` or by their rows",
    )
    parser.add_argument(
        "--tolerance",
        type=positive,
        default=0.005,
        metavar="LOSS",
        help="excess loss that is still near-optimal, in the table's unit of loss (default: %(default)s)",
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
    check_out(arguments.out, arguments.posterior)
    bounds, freeze = _bounds(arguments.bounds), _each_once(arguments.freeze)
    baselines = _baselines(arguments.baseline)
    post = load_allowed(arguments)
    result = recommend(
        post,
        compute=arguments.compute,
        target_tokens=arguments.target_tokens,
        bounds=bounds,
        freeze=freeze,
        baselines=baselines,
        risk=arguments.risk,
        tolerance=arguments.tolerance,
        ci=arguments.ci,
    )
    show(result, post, arguments.out, as_json=arguments.json)
    return 0


def show(result: Recommendation, post: Posterior, out: Path | None, as_json: bool) -> None:
    """Print a recommendation, and write it to ``out``."""
    content = json_text({"posterior": describe(post), **result.to_json()})
    if out is not None:
        write_text(out, content + "\n")
    if as_json:
        print(content)
    else:
        print(f"{headline(post)}\n\n{text(result)}")
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


def _each_once(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    result: dict[str, float] = {}
    for name, value in pairs:
        if name in result:
            raise RecipeError(f"--freeze {name} is given twice; give it once")
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
