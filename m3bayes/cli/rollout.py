"""``m3bayes rollout``: fit on some runs, predict the others."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace

from m3bayes.cli import several_laws
from m3bayes.cli.options import add_ci, share, whole
from m3bayes.cli.show import frame_table, json_text, notes, number, progress
from m3bayes.errors import M3BayesError
from m3bayes.evaluation import Rollout, rollout, rollout_weights
from m3bayes.evaluation.splits import CUTS, FOLDS, NEAR

DESCRIPTION = f"""\
Fit laws to part of the runs and predict the others. R2 and RMSE_log are of log loss; coverage_90 is the share of
the runs inside the 90 % interval of a new run, coverage_90_low to coverage_90_high where it lies with 95 %
probability if the interval is right; width_90 is in log loss; crps (of log loss) is better when lower, elpd (nats)
when higher; compute_ratio is the largest compute predicted over the largest fitted. {several_laws.EXIT}
"""
SHOWN = (
    "law", "split", "train", "test", "verdict", "compute_ratio", "R2", "RMSE_log", "MAPE", "coverage_90",
    "coverage_90_low", "coverage_90_high", "width_90", "crps", "elpd",
)  # fmt: skip


def shares(text: str) -> tuple[float, ...]:
    found = tuple(share(part) for part in text.split(",") if part.strip())
    if not found:
        raise ArgumentTypeError(f"expected shares with commas between, as in .5,.7, got {text!r}")
    return found


def add(commands) -> None:
    parser = commands.add_parser(
        "rollout", help="fit laws to part of the runs, predict the others", description=DESCRIPTION
    )
    several_laws.add_arguments(parser)
    parser.add_argument(
        "--by",
        default="compute",
        metavar="WHAT",
        help="compute, tokens, target_tokens or a column of numbers: predict the larger; params: the largest "
        "sizes; mixture: ratios no training run had; random; a column of labels: each in turn; atlas: the five "
        "splits of that protocol (default: %(default)s)",
    )
    parser.add_argument(
        "--cuts",
        type=shares,
        default=CUTS,
        metavar="SHARES",
        help="shares of the runs to train on; by size each cut is at the widest gap within "
        f"{NEAR:g} of the runs, so that runs of one size stay together "
        f"(default: {','.join(f'{cut:g}' for cut in CUTS)})",
    )
    parser.add_argument(
        "--folds",
        type=whole(2),
        default=FOLDS,
        metavar="K",
        help="parts of --by mixture (default: %(default)s)",
    )
    parser.add_argument(
        "--discrepancy",
        action="store_true",
        help="let every law fail beyond its runs, by as much as rollouts within them say (seven times the work)",
    )
    add_ci(parser)
    parser.set_defaults(run=run, draws=500)


def _weights(found: Rollout) -> dict[str, float] | None:
    """Those of a decision over the laws, where there are any: for `m3bayes recommend --weights`."""
    try:
        return rollout_weights(found)
    except M3BayesError:
        return None


def run(arguments: Namespace) -> int:
    runs, laws = several_laws.read(arguments)
    with progress("fit") as report:
        found = rollout(
            runs, laws, arguments.by, cuts=arguments.cuts, folds=arguments.folds, ci=arguments.ci,
            discrepancy=arguments.discrepancy, report=report, **several_laws.sampling(arguments),
        )  # fmt: skip
    weights = _weights(found)
    if arguments.json:
        content = {"table": runs.name, "runs": len(runs), "intervals": found.kind, "ci": found.ci}
        tables = {"splits": found.table.to_dict("records"), "held_out": found.runs.to_dict("records")}
        print(json_text(content | {"weights": weights, "notes": found.notes} | tables))
    else:
        print(f"{len(runs)} runs of {runs.name}; intervals: {found.kind}\n")
        print(frame_table(found.table[list(SHOWN)]))
        if weights is not None and len(weights) > 1:
            listed = ", ".join(f"{name} {number(weight, 2)}" for name, weight in weights.items())
            print(f"\nweights of the laws for a decision: {listed}")
        notes(found.notes)

    def draw():
        from m3bayes.plots import rolled_out

        return rolled_out(found)

    return several_laws.write(arguments, found.table, draw)
