"""``m3bayes pilot``: train small models for real, and write the table of their runs."""

from __future__ import annotations

import importlib.util
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from m3bayes.cli.options import add_json, check_out, names, positive, whole
from m3bayes.cli.show import json_text, message, number, table
from m3bayes.errors import M3BayesError
from m3bayes.files import write_text

if TYPE_CHECKING:
    import pandas as pd

    from m3bayes.pilot.trial import Texts

NEEDED = ("equinox",)
DESCRIPTION = """\
Train small decoder-only language models on texts of your own, by a plan of recipes, and write the table of
runs that `m3bayes fit` reads. Needs pip install 'm3bayes[pilot]'.
"""


def add(commands) -> None:
    parser = commands.add_parser(
        "pilot", help="train small models and write the table of their runs", description=DESCRIPTION
    )
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True)
    _add_plan(steps)
    _add_run(steps)
    _add_status(steps)


def _add_plan(steps) -> None:
    parser = steps.add_parser(
        "plan",
        help="write a plan: which recipes to train",
        description="Write a plan, one recipe a row in the order of execution, of which any first part is a small "
        "version of the whole. It is a CSV file: edit it as you like.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="plan to write (CSV)")
    parser.add_argument(
        "--languages", type=names, required=True, metavar="NAMES", help="target languages, as in de,ja"
    )
    parser.add_argument(
        "--source-tokens",
        type=positive,
        required=True,
        metavar="COUNT",
        help="tokens (bytes, without a tokenizer) of source text that a run may use",
    )
    parser.add_argument(
        "--sizes", type=_numbers, metavar="NUMBERS", default=(24_736, 55_536, 83_280, 147_904, 443_232),
        help="model sizes N, in parameters without the embedding (default: 24736,55536,83280,147904,443232)",
    )  # fmt: skip
    parser.add_argument(
        "--target-tokens", type=_numbers, metavar="NUMBERS", default=(5e4, 2e5, 8e5),
        help="unique target tokens U that the Sobol block lies between (default: 5e4,2e5,8e5)",
    )  # fmt: skip
    parser.add_argument(
        "--compute", type=_numbers, metavar="LOW,HIGH", default=(1e10, 4e12),
        help="FLOP (6ND) of a run in the Sobol block (default: 1e10,4e12)",
    )  # fmt: skip
    parser.add_argument(
        "--budgets", type=_numbers, metavar="NUMBERS", default=(6e10, 2.5e11),
        help="FLOP (6ND) at which k is varied in all three regimes (default: 6e10,2.5e11)",
    )  # fmt: skip
    parser.add_argument(
        "--scarcities", type=_numbers, metavar="NUMBERS", default=(2e4, 8e4, 3.2e5, 1.28e6),
        help="unique target tokens U at each of these budgets (default: 2e4,8e4,3.2e5,1.28e6)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=whole(1), default=3, metavar="COUNT", help="runs of each of those (default: 3)"
    )
    parser.add_argument(
        "--sobol", type=whole(0), default=64, metavar="COUNT",
        help="recipes a language spread over the whole space (default: 64)",
    )  # fmt: skip
    parser.add_argument(
        "--max-tokens", type=positive, default=8e6, metavar="COUNT", help="of a run (default: 8e6)"
    )
    parser.add_argument("--seed", type=whole(0), default=0, metavar="SEED", help="of the plan (default: 0)")
    add_json(parser)
    parser.set_defaults(run=run_plan)


def _add_texts(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--target", type=_named_path, action="append", required=True, metavar="NAME=PATH",
        help="target text: a folder of *.txt files, each a document, or a file with blank lines between documents; "
        "once for each language of the plan",
    )  # fmt: skip
    parser.add_argument(
        "--source", type=_named_path, action="append", required=True, metavar="NAME=PATH",
        help="source text, likewise; several where the plan has a column NAME_tokens for each",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FILE",
        help="tokenizer.json of the tokenizers library (default: a token is a byte)",
    )  # fmt: skip
    parser.add_argument(
        "--validation-tokens", type=whole(1024), default=131_072, metavar="COUNT",
        help="held-out tokens that losses are measured on, at most (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER",
        help="keep the deduplicated tokens here, so that the next call starts in seconds",
    )  # fmt: skip


def _add_run(steps) -> None:
    parser = steps.add_parser(
        "run",
        help="train the runs of a plan",
        description="Train the runs of a plan that the table does not have yet. Stopped at any moment, the same "
        "command goes on from there. Losses are in nats a token of held-out text.",
    )
    parser.add_argument(
        "plan", type=Path, metavar="PLAN", help="plan that `m3bayes pilot plan` wrote, or yours"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="table of runs (CSV)")
    _add_texts(parser)
    parser.add_argument(
        "--checkpoints", type=Path, metavar="FOLDER",
        help="where the models lie that the plan's column checkpoint names; runs go on from there",
    )  # fmt: skip
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER",
        help="keep the trained models here, for --checkpoints of another plan",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=whole(1), default=1, metavar="COUNT",
        help="processes, each on a core of its own; of no use on an accelerator (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what it would cost: FLOP, and hours on this device"
    )
    add_json(parser)
    parser.set_defaults(run=run_sweep)


def _add_status(steps) -> None:
    parser = steps.add_parser(
        "status", help="how far a sweep is", description="What of a plan is done, block by block."
    )
    parser.add_argument("plan", type=Path, metavar="PLAN", help="plan that the sweep follows")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="table of runs (CSV)")
    add_json(parser)
    parser.set_defaults(run=run_status)


# ---- running -----------------------------------------------------------------------------------


def run_plan(arguments: Namespace) -> int:
    _check_extra()
    check_out(arguments.out)
    from m3bayes.pilot.model import nearest_shape
    from m3bayes.pilot.plan import generate_plan

    if len(arguments.compute) != 2:
        raise M3BayesError(f"--compute: {len(arguments.compute)} numbers, expected LOW,HIGH")
    plan = generate_plan(
        arguments.languages,
        source_tokens=arguments.source_tokens,
        shapes=[nearest_shape(size) for size in arguments.sizes],
        target_tokens=arguments.target_tokens,
        compute=arguments.compute,
        budgets=arguments.budgets,
        scarcities=arguments.scarcities,
        seeds=arguments.seeds,
        sobol=arguments.sobol,
        max_tokens=arguments.max_tokens,
        seed=arguments.seed,
    )
    write_text(arguments.out, plan.to_csv(index=False, lineterminator="\n"))
    _show_blocks(_blocks(plan, plan.iloc[:0], []), arguments.json)
    message(f"wrote {arguments.out}")
    return 0


def run_sweep(arguments: Namespace) -> int:
    _check_extra()
    check_out(arguments.out, arguments.plan)
    from m3bayes.pilot import results
    from m3bayes.pilot.checkpoints import Folders
    from m3bayes.pilot.plan import read_plan
    from m3bayes.pilot.sweep import check, left, sweep

    plan = read_plan(arguments.plan)
    texts = _texts(arguments)
    folders = Folders(arguments.checkpoints, arguments.keep)
    check(plan, texts, folders)
    remaining = left(plan, texts, arguments.out, folders)
    blocks = _blocks(plan, remaining, results.read_results(arguments.out), texts.vocabulary)
    if arguments.dry_run:
        from m3bayes.pilot.speed import hours

        message("timing a few steps of each size on this device")
        estimate = hours(remaining, texts.vocabulary, arguments.workers)
        _show_blocks(blocks, arguments.json, {"hours": estimate, "workers": arguments.workers})
        if not arguments.json:
            print(f"\nabout {number(estimate, 2)} hours on this device with {arguments.workers} workers")
        return 0
    message(f"{len(remaining)} of {len(plan)} runs to train, {number(blocks['flops_left'].sum())} FLOP")
    sweep(plan, texts, arguments.out, folders=folders, workers=arguments.workers)
    _show_blocks(_blocks(plan, remaining.iloc[:0], results.read_results(arguments.out)), arguments.json)
    message(f"wrote {arguments.out}")
    return 0


def run_status(arguments: Namespace) -> int:
    _check_extra()
    from m3bayes.pilot import results
    from m3bayes.pilot.plan import read_plan

    plan = read_plan(arguments.plan)
    rows = results.read_results(arguments.out)
    done = {row["run"] for row in rows}
    remaining = plan.take([place for place, run in enumerate(plan["run"]) if run not in done])
    _show_blocks(_blocks(plan, remaining, rows), arguments.json)
    return 0


def _blocks(
    plan: pd.DataFrame, remaining: pd.DataFrame, rows: list[dict[str, str]], vocabulary: int = 256
) -> pd.DataFrame:
    """Runs and FLOP by language and block: planned, done, diverged, left."""
    from m3bayes.pilot.plan import plan_cost

    cost = plan_cost(plan, vocabulary=vocabulary)
    diverged = {row["run"] for row in rows if row["status"] == "diverged"}
    done = {row["run"] for row in rows}
    cost = cost.assign(
        done=cost["run"].isin(list(done)),
        diverged=cost["run"].isin(list(diverged)),
        flops_left=cost["flops"].where(cost["run"].isin(list(remaining["run"])), 0.0),
    )
    groups = cost.groupby(["language", "block"], sort=False)
    return groups.agg(
        runs=("run", "size"),
        done=("done", "sum"),
        diverged=("diverged", "sum"),
        tokens=("tokens", "sum"),
        flops=("flops", "sum"),
        flops_left=("flops_left", "sum"),
    ).reset_index()


def _show_blocks(blocks: pd.DataFrame, as_json: bool, more: dict | None = None) -> None:
    totals = {name: blocks[name].sum() for name in blocks.columns[2:]}
    if as_json:
        print(json_text({"blocks": blocks.to_dict("records"), "total": totals} | (more or {})))
        return
    rows = [*blocks.itertuples(index=False, name=None), ("all", "", *totals.values())]
    print(table(list(blocks.columns), rows))


def _texts(arguments: Namespace) -> Texts:
    from m3bayes.pilot.corpus import read_corpora
    from m3bayes.pilot.trial import Texts

    for option, pairs in (("--target", arguments.target), ("--source", arguments.source)):
        given = [name for name, _ in pairs]
        twice = [name for name in given if given.count(name) > 1]
        if twice:
            raise M3BayesError(f"{option} {twice[0]} is given twice, expected one path a language")
    message("reading the texts; tens of megabytes take minutes")
    targets, sources = read_corpora(
        dict(arguments.target),
        dict(arguments.source),
        tokenizer=arguments.tokenizer,
        validation_tokens=arguments.validation_tokens,
        cache=arguments.cache,
    )
    for corpus in (*targets.values(), *sources.values()):
        message(
            f"{corpus.name}: {len(corpus.train):,} tokens to train on, {len(corpus.validation):,} held out"
        )
    return Texts(targets, sources)


def _check_extra() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise M3BayesError(
            f"m3bayes pilot needs {', '.join(missing)}, not installed: pip install 'm3bayes[pilot]'"
        )


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(positive(part) for part in text.split(","))


def _named_path(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ArgumentTypeError(f"expected NAME=PATH, as in de=texts/de, got {text!r}")
    return name, Path(path)
