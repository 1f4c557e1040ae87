"""``m3bayes fit``: a table of runs in, a posterior file out."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from m3bayes.cli import pooled, summary
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
from m3bayes.cli.stopping import stopped_at_once
from m3bayes.errors import M3BayesError, NotConvergedError
from m3bayes.inference import checkpoint
from m3bayes.inference.fit import fit
from m3bayes.inference.pooled_model import KINDS
from m3bayes.laws import Law
from m3bayes.runs import Runs


def add(commands) -> None:
    parser = commands.add_parser(
        "fit",
        help="fit a law to a table of runs",
        description="Fit a law to a table of runs. The posterior file is always written, with its verdict; "
        "the exit code is 3 where the gate was not passed. Stopped by Ctrl-C (exit code 130) or SIGTERM (143), "
        "it keeps its chains beside the file for --resume; with --pool nothing is kept.",
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
    parser.add_argument(
        "--sources",
        type=names,
        default=(),
        metavar="NAMES",
        help="source languages that law atlas tells apart, as in en,fr: the table then has columns en_tokens and "
        "en_unique_tokens, and so on",
    )
    parser.add_argument(
        "--pool",
        metavar="COLUMN",
        help="fit all values of a column (languages, say) together; see `m3bayes pooled`",
    )
    parser.add_argument(
        "--pooling",
        type=kinds,
        default=None,
        metavar="NAME=KIND,...",
        help="with --pool: how coefficients are pooled, shared, partial or free, as in alpha=shared,E=free (default: "
        "what repetition does is shared, E and scales free, the rest partial)",
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
    law = named_law(arguments.law, arguments.drop, arguments.sources)
    runs = table_of_runs(arguments.runs, arguments)
    if arguments.pool is not None:
        return _run_pooled(arguments, runs, law)
    if arguments.pooling is not None:
        raise M3BayesError("--pooling goes with --pool COLUMN: give the column that the groups are in")
    folder = arguments.out.with_name(f"{arguments.out.name}.checkpoint")
    if arguments.resume and not folder.is_dir():
        message(f"there is no {folder} to resume from; starting anew")
    message(f"fitting {law.name} to {len(runs)} runs of {runs.name}")
    with stopped_at_once(lambda: _what_is_kept(folder)), checkpoint.held(folder):
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


def kinds(text: str) -> dict[str, str]:
    """``NAME=KIND``, with commas between."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and kind.strip() in KINDS for name, _, kind in pairs):
        raise ArgumentTypeError(f"expected NAME=KIND, KIND one of {', '.join(KINDS)}, got {text!r}")
    found = {name.strip(): kind.strip() for name, _, kind in pairs}
    if len(found) < len(pairs):
        raise ArgumentTypeError(f"a coefficient is given twice in {text!r}; give it once")
    return found


def _run_pooled(arguments: Namespace, runs: Runs, law: Law) -> int:
    if arguments.resume:
        raise M3BayesError("a pooled fit keeps no checkpoint: leave out --resume")
    message(f"fitting {law.name} to {len(runs)} runs of {runs.name}, pooled by {arguments.pool}")
    with stopped_at_once(lambda: "nothing is kept"):
        found = fit(
            runs,
            law,
            pool=arguments.pool,
            pooling=arguments.pooling,
            noise=arguments.noise,
            seed=arguments.seed,
            chains=arguments.chains,
            warmup=arguments.warmup,
            draws=arguments.draws,
            allow="flagged",
        )
        found.save(arguments.out)
    pooled.show(found, arguments)
    message(f"wrote {arguments.out}")
    if found.verdict != "passed":
        raise NotConvergedError(f"{arguments.out} is flagged: its notes say why", found)
    return 0


def _what_is_kept(folder: Path) -> str:
    begun = any(folder.glob("chain-*.npz"))
    return f"--resume goes on with the chains in {folder}" if begun else "nothing is kept"
