"""``m3bayes pooled``: what groups have in common, and the posterior of one of them as a file of its own."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from m3bayes.cli import summary
from m3bayes.cli.options import add_ci, add_json, check_figure, check_out
from m3bayes.cli.show import frame_table, json_text, message, notes, section
from m3bayes.errors import M3BayesError
from m3bayes.inference.pooled import Pooled
from m3bayes.inference.pooled_storage import load_pooled

DESCRIPTION = """\
What `m3bayes fit --pool COLUMN` found: how much each coefficient differs between groups, and with --group the
posterior of one group, with --new that of a group without runs, as a file that all other commands take; its
coefficients are then shown instead.
"""


def add(commands) -> None:
    parser = commands.add_parser(
        "pooled", help="spread between groups of a pooled fit; one group's posterior", description=DESCRIPTION
    )
    parser.add_argument("pooled", type=Path, metavar="POOLED", help="file that `m3bayes fit --pool` wrote")
    one = parser.add_mutually_exclusive_group()
    one.add_argument(
        "--group", metavar="NAME", help="write the posterior of this group to --out, which is then needed"
    )
    one.add_argument(
        "--new",
        action="store_true",
        help="write the posterior of a group without runs to --out, which is then needed: its partially pooled "
        "coefficients come from the spread between groups, free ones keep the prior",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="posterior file to write (netCDF)")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw every group's coefficients here (PNG, PDF or SVG)"
    )
    add_ci(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    wanted = arguments.new or arguments.group is not None
    if wanted != (arguments.out is not None):
        raise M3BayesError("--out goes with --group NAME or --new: give both, or neither to see the spreads")
    check_out(arguments.out, arguments.pooled)
    check_figure(arguments.figure, arguments.pooled)
    pooled = load_pooled(arguments.pooled)
    if arguments.out is None:
        show(pooled, arguments)
    else:
        post = pooled.new_group() if arguments.new else pooled.of(str(arguments.group))
        post.save(arguments.out)
        summary.show(post, arguments)
    if arguments.figure is not None:
        from m3bayes.plots.pooled import pooled_coefficients
        from m3bayes.plots.style import save_figure

        save_figure(pooled_coefficients(pooled, ci=arguments.ci), arguments.figure)
    for path in (arguments.out, arguments.figure):
        if path is not None:
            message(f"wrote {path}")
    return 0


def show(pooled: Pooled, arguments: Namespace) -> None:
    """Print the spreads and the groups, also what `m3bayes fit --pool` ends with."""
    between = pooled.between(arguments.ci).reset_index()
    counts = {group: sum(str(value) == group for value in pooled.runs[pooled.by]) for group in pooled.groups}
    if arguments.json:
        coefficients = pooled.summary(arguments.ci).reset_index()
        told = {
            "law": pooled.law.name,
            "options": pooled.law.options,
            "table": pooled.runs.name,
            "by": pooled.by,
            "runs": counts,
            "verdict": pooled.verdict,
            "ci": arguments.ci,
            "between": between.to_dict("records"),
            "summary": coefficients.to_dict("records"),
            "notes": pooled.notes,
            "settings": pooled.settings,
        }
        print(json_text(told))
        return
    chains, kept = pooled.draws["sigma"].shape[:2]
    listed = ", ".join(f"{group} ({count})" for group, count in counts.items())
    print(
        f"{pooled.law.name} on {len(pooled.runs)} runs of {pooled.runs.name}, pooled by {pooled.by}: "
        f"{pooled.verdict}, {chains} chains x {kept} draws\nruns: {listed}\n"
    )
    title = f"Spread between groups, of logs (logits where bounded), medians and {arguments.ci:.0%} intervals"
    print(section(title, frame_table(between)))
    notes(pooled.notes)
