"""``m3bayes fit``: a table of runs in, a posterior file out."""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from m3bayes.cli import summary
from m3bayes.cli.options import (
    add_ci,
    add_json,
    add_sampling,
    add_table_options,
    check_out,
    named_law,
    names,
    table_of_runs,
)
from m3bayes.cli.show import message
from m3bayes.errors import NotConvergedError
from m3bayes.inference import checkpoint
from m3bayes.inference.fit import fit


def add(commands) -> None:
    parser = commands.add_parser(
        "fit",
        help="fit a law to a table of runs",
        description="Fit a law to a table of runs. The posterior file is always written, with its verdict; "
        "the exit code is 3 where the gate was not passed. Stopped by Ctrl-C (exit code 130) or SIGTERM (143), "
        "it keeps its chains beside the file for --resume.",
    )
    parser.add_argument(
        "runs", type=Path, metavar="RUNS", help="table of runs, CSV or parquet, one row a run"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="posterior file to write (netCDF)"
    )
    parser.add_argument(
        "--law",
        default="m3",
        metavar="LAW",
        help="NAME or NAME:option=value, as in chinchilla:tokens=all; see `m3bayes laws` (default: m3)",
    )
    parser.add_argument(
        "--drop",
        type=names,
        default=(),
        metavar="NAMES",
        help="coefficients to switch off, with commas between, as in P,tau",
    )
    add_table_options(parser)
    add_sampling(parser)
    parser.add_argument(
        "--resume", action="store_true", help="go on where a stopped fit with the same --out was"
    )
    add_ci(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    check_out(arguments.out, arguments.runs)
    law = named_law(arguments.law, arguments.drop)
    runs = table_of_runs(arguments.runs, arguments)
    folder = arguments.out.with_name(f"{arguments.out.name}.checkpoint")
    if arguments.resume and not folder.is_dir():
        message(f"there is no {folder} to resume from; starting anew")
    message(f"fitting {law.name} to {len(runs)} runs of {runs.name}")
    with _stopped_at_once(folder), checkpoint.held(folder):
        post = fit(
            runs,
            law,
            noise=arguments.noise,
            seed=arguments.seed,
            chains=arguments.chains,
            warmup=arguments.warmup,
            draws=arguments.draws,
            allow="flagged",
            checkpoint=folder,
            resume=arguments.resume,
        )
        post.save(arguments.out)
        checkpoint.remove(folder)
    summary.show(post, arguments)
    message(f"wrote {arguments.out}")
    if post.verdict != "passed":
        raise NotConvergedError(f"{arguments.out} is flagged: its notes say why", post)
    return 0


@contextmanager
def _stopped_at_once(folder: Path) -> Iterator[None]:
    """SIGINT and SIGTERM end the process where it is: Python would wait for the chains to end, and whatever is in
    ``folder`` is whole at every moment."""

    def stop(number: int, _: object) -> None:
        kept = f"; --resume goes on with the chains in {folder}" if folder.is_dir() else ""
        message(f"stopped{kept}")
        sys.stderr.flush()
        os._exit(128 + number)  # as shells have it

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
