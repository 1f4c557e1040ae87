"""What the commands share that fit several laws to one table: their arguments, and how results leave."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from m3bayes.cli.options import (
    add_json,
    add_sampling,
    add_table_options,
    check_figure,
    check_out,
    named_law,
    table_of_runs,
)
from m3bayes.cli.show import message
from m3bayes.evaluation.candidates import laws_for
from m3bayes.files import write_text
from m3bayes.laws import Law
from m3bayes.runs import Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_CONVERGED = 3
EXIT = "The exit code is 3 where a fit missed its gate or failed: its row and a note say so."


def law_names(text: str) -> tuple[str, ...]:
    """Laws with commas between; ``option=value`` belongs to the law before it."""
    found: list[str] = []
    for part in map(str.strip, text.split(",")):
        if not part:
            raise ArgumentTypeError(f"expected laws with commas between, got {text!r}")
        if "=" in part and ":" not in part:
            if not found:
                raise ArgumentTypeError(f"expected a law before {part!r}, as in chinchilla:tokens=all")
            found[-1] += ("," if ":" in found[-1] else ":") + part
        else:
            found.append(part)
    return tuple(found)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "runs", type=Path, metavar="RUNS", help="table of runs, CSV or parquet, one row a run"
    )
    parser.add_argument(
        "--laws",
        type=law_names,
        metavar="LAWS",
        help="laws with commas between, as in m3,chinchilla:tokens=all,m3:drop=P; see `m3bayes laws` "
        "(default: all that the table has columns and runs enough for)",
    )
    add_table_options(parser)
    add_sampling(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table of results here (CSV)")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw it too (.png, .pdf or .svg)")
    add_json(parser)


def read(arguments: Namespace) -> tuple[Runs, tuple[Law, ...]]:
    """The runs and the laws that were asked for, once it is clear that results can be written."""
    check_out(arguments.out, arguments.runs)
    check_figure(arguments.figure, arguments.runs)
    laws = tuple(map(named_law, arguments.laws or ()))
    runs = table_of_runs(arguments.runs, arguments)
    return runs, laws or laws_for(runs, arguments.noise)


def sampling(arguments: Namespace) -> dict:
    """What the fits take."""
    return {name: getattr(arguments, name) for name in ("noise", "seed", "chains", "warmup", "draws")}


def write(arguments: Namespace, table: pd.DataFrame, draw: Callable[[], Figure]) -> int:
    """Write what was asked for; gives the exit code. ``draw()`` makes the figure."""
    if arguments.out is not None:
        write_text(arguments.out, table.to_csv(index=False, float_format="%.8g", lineterminator="\n"))
        message(f"wrote {arguments.out}")
    if arguments.figure is not None:
        from m3bayes.plots import save_figure

        save_figure(draw(), arguments.figure)
        message(f"wrote {arguments.figure}")
    return 0 if set(table["verdict"]) == {"passed"} else NOT_CONVERGED
