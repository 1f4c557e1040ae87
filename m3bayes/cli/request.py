"""What is asked of a recipe: budget, corpus, cost, risk and bounds, for the commands that recommend one."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable
from functools import partial
from typing import Any

from m3bayes.cli.options import interval, not_negative, positive, setting, upper_end
from m3bayes.cli.report import UNITS
from m3bayes.decision.cost import Cost, fitted, six_nd, with_attention
from m3bayes.decision.risk import KINDS, Risk, parse
from m3bayes.decision.space import LETTERS
from m3bayes.errors import RecipeError
from m3bayes.inference.posterior import Posterior

Ends = tuple[float | None, float | None]


def add_request(parser: ArgumentParser) -> None:
    """The options that :func:`request_of` reads."""
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
    parser.add_argument(
        "--risk",
        type=risk_named,
        default="mean",
        metavar="RISK",
        help=f"what to make small over the draws, in the table's unit of loss: {KINDS}; Q between 0 and 1, regret is "
        "the loss above each draw's own optimum (default: %(default)s)",
    )
    add_bounds(parser)


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


def risk_named(text: str) -> Risk:
    try:
        return parse(text)
    except RecipeError as error:
        raise ArgumentTypeError(str(error)) from None


def _low(name: str, text: str) -> tuple[str, Ends]:
    return name, (not_negative(text), None)


def _high(name: str, text: str) -> tuple[str, Ends]:
    return name, (None, upper_end(text))


def request_of(arguments: Namespace, post: Posterior) -> dict[str, Any]:
    """The keyword arguments that `recommend` takes."""
    return {
        "compute": arguments.compute,
        "target_tokens": arguments.target_tokens,
        "cost": fitted(post.runs) if arguments.cost == "fitted" else arguments.cost,
        "bounds": bounds_of(arguments.bounds),
        "freeze": each_once(arguments.freeze, "--freeze"),
        "risk": arguments.risk,
        "ci": arguments.ci,
    }


def bounds_of(given: Iterable[tuple[str, Ends]]) -> dict[str, Ends]:
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


def each_once(pairs: Iterable[tuple[str, float]], option: str) -> dict[str, float]:
    result: dict[str, float] = {}
    for name, value in pairs:
        if name in result:
            raise RecipeError(f"{option} {name} is given twice; give it once")
        result[name] = value
    return result
