"""``m3bayes laws``: the laws that can be fitted."""

from __future__ import annotations

from argparse import Namespace

from m3bayes import laws
from m3bayes.cli.options import add_json, named_law
from m3bayes.cli.show import json_text, table
from m3bayes.laws import Law


def add(commands) -> None:
    parser = commands.add_parser(
        "laws", help="the laws that can be fitted", description="List the laws, or the coefficients of one."
    )
    parser.add_argument(
        "law", nargs="?", metavar="LAW", help="show this one's coefficients: NAME or NAME:option=value"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    one = arguments.law is not None
    shown = (named_law(arguments.law),) if one else laws.all_laws()
    if arguments.json:
        described = [_describe(law) for law in shown]
        print(json_text(described[0] if one else described))
    elif one:
        (law,) = shown
        print(f"{law.name}: {law.formula}\n{law.source}\n")
        headers = ("coefficient", "unit", "switched off at", "meaning")
        print(table(headers, [(c.name, c.unit, c.off, c.meaning) for c in law.coefficients]))
    else:
        headers = ("law", "coefficients", "formula")
        print(table(headers, [(law.name, len(law.names), law.formula) for law in shown]))
    return 0


def _describe(law: Law) -> dict:
    return {
        "name": law.name,
        "options": law.options,
        "formula": law.formula,
        "source": law.source,
        "columns": law.columns,
        "coefficients": [
            {"name": c.name, "unit": c.unit, "off": c.off, "meaning": c.meaning} for c in law.coefficients
        ],
    }
