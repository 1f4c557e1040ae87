"""``m3bayes demo``: the whole road on the embedded table."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from m3bayes import plots
from m3bayes.cli import recommend, summary
from m3bayes.cli.options import add_ci, add_json, add_sampling
from m3bayes.cli.show import message, number
from m3bayes.data import demo_runs
from m3bayes.decision import recommend as best_recipe
from m3bayes.decision.space import ranges
from m3bayes.errors import M3BayesError, NotConvergedError
from m3bayes.files import write_text
from m3bayes.inference.fit import fit

TARGET_TOKENS = 80_000
TIMES_LARGEST = 5  # the budget, against the largest run; beyond 30 the law is mostly guessing
WIDER = 4  # how far N and D may go beyond the runs, which together is more than the budget buys
DESCRIPTION = f"""\
Fit M3 to the embedded table of measured runs (small byte-level models of German with English, loss in nats per
byte), recommend a recipe for {TARGET_TOKENS:,} bytes of German and about {TIMES_LARGEST} times the compute of the
largest run, with N and tokens up to {WIDER} times those of the runs, and write runs.csv, posterior.nc, recipe.json and
recommendation.png.
"""


def add(commands) -> None:
    parser = commands.add_parser(
        "demo", help="fit and recommend on the embedded, measured table", description=DESCRIPTION
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        metavar="FOLDER",
        help="where to write (default: %(default)s)",
    )
    add_sampling(parser)
    parser.set_defaults(draws=500)  # enough for the gate on this table, and half the time
    add_ci(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    out = arguments.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise M3BayesError(f"--out {out}: {error.strerror}; choose another folder") from error
    runs = demo_runs()
    largest = runs.compute.max()
    compute = float(f"{TIMES_LARGEST * largest:.2g}")
    write_text(out / "runs.csv", runs.frame().to_csv(index=False, lineterminator="\n"))
    message(f"{len(runs)} measured runs of up to {number(largest)} FLOP; fitting M3 to them")
    post = fit(
        runs,
        seed=arguments.seed,
        chains=arguments.chains,
        warmup=arguments.warmup,
        draws=arguments.draws,
        allow="flagged",
    )
    post.save(out / "posterior.nc")
    message(f"wrote {out / 'posterior.nc'}")
    if not arguments.json:
        summary.show(post, arguments)
        print()
    if post.verdict != "passed":
        raise NotConvergedError(f"{out / 'posterior.nc'} is flagged: its notes say why", post)
    message(f"looking for the best recipe of {number(compute)} FLOP")
    wider = {name: (None, WIDER * ranges(runs)[name][1]) for name in ("params", "tokens", "source_tokens")}
    result = best_recipe(post, compute=compute, target_tokens=TARGET_TOKENS, bounds=wider, ci=arguments.ci)
    recommend.show(result, post, out / "recipe.json", as_json=arguments.json)
    plots.save_figure(plots.recommendation(post, result), out / "recommendation.png")
    message(f"wrote {out / 'recommendation.png'}")
    return 0
