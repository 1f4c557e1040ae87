"""``m3bayes summary``: what a posterior file holds."""

from __future__ import annotations

from argparse import Namespace

from m3bayes.cli.options import add_ci, add_json, add_posterior
from m3bayes.cli.show import frame_table, json_text, notes
from m3bayes.inference.pooled import of_pooled
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.storage import load

SHOWN = ("coefficient", "mean", "sd", "median", "lower", "upper", "ess_bulk", "ess_tail", "r_hat", "unit")


def add(commands) -> None:
    parser = commands.add_parser(
        "summary",
        help="coefficients, verdict and notes of a posterior",
        description="Show the coefficients of a posterior in the table's units, its verdict and its notes.",
    )
    add_posterior(parser)
    add_ci(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    show(load(arguments.posterior), arguments)
    return 0


def show(post: Posterior, arguments: Namespace) -> None:
    """Print the summary of ``post``, also what `m3bayes fit` ends with."""
    frame = post.summary(ci=arguments.ci)
    frame = frame.reset_index()
    if arguments.json:
        print(json_text(describe(post) | {"ci": arguments.ci, "summary": frame.to_dict("records")}))
        return
    print(f"{headline(post)}\n")
    print(frame_table(frame[list(SHOWN)]))
    said = of_pooled(post)  # in the headline
    notes([note for note in post.notes if note not in said])


def headline(post: Posterior) -> str:
    draws = next(iter(post.draws.values()))
    chains, kept = draws.shape[:2]
    lines = [
        f"{post.law.name} on {len(post.runs)} runs of {post.runs.name}: {post.verdict}, {chains} chains x {kept} draws",
        *(note.message for note in of_pooled(post)),
        f"intervals hold {post.intervals}",
    ]
    return "\n".join(lines)


def describe(post: Posterior) -> dict:
    """What every command says about a posterior, for JSON."""
    return {
        "law": post.law.name,
        "options": post.law.options,
        "formula": post.law.formula,
        "table": post.runs.name,
        "runs": len(post.runs),
        "verdict": post.verdict,
        "intervals": post.intervals,
        "notes": post.notes,
        "settings": post.settings,
    }
