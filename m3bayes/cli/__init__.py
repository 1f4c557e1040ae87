"""The command line: fit, summary, check, compare, rollout, calibrate, predict, recommend, plans, guidelines, next ...

Results go to stdout, messages to stderr. Exit codes: 0 fine, 2 bad input, 3 not converged, 4 infeasible.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib.metadata import version

from m3bayes.cli import (
    calibrate,
    check,
    compare,
    crossover,
    demo,
    discrepancy,
    fit,
    guidelines,
    laws,
    multilinguality,
    next,
    pilot,
    plans,
    pooled,
    predict,
    recommend,
    rollout,
    sources,
    summary,
    transfer,
)
from m3bayes.cli.show import message
from m3bayes.errors import InfeasibleError, M3BayesError, NotConvergedError

FINE, BAD_INPUT, NOT_CONVERGED, INFEASIBLE = 0, 2, 3, 4
INTERRUPTED, BROKEN_PIPE = 130, 141  # as shells have it: 128 + the signal's number

EPILOG = """\
units     parameters and tokens are in the table's own units (--unit-params and --unit-tokens of `m3bayes fit`
          say how many one unit is, 1 by default), losses in the table's unit, compute always in FLOP
streams   results on stdout, messages on stderr
exit      0 fine, 2 bad input, 3 not converged, 4 no recipe meets the request, 130 and 143 stopped
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Only bugs leave it as exceptions."""
    try:
        arguments = parser().parse_args(argv)
        code = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse has said what was wrong, or shown its help
        return int(stop.code or 0)
    except NotConvergedError as error:
        message(f"not converged: {error}")
        return NOT_CONVERGED
    except InfeasibleError as error:
        message(f"infeasible: {error}")
        return INFEASIBLE
    except BrokenPipeError:
        # the reader has left; without this Python complains again when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (M3BayesError, OSError) as error:
        message(f"error: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        message("stopped")
        return INTERRUPTED


def parser() -> ArgumentParser:
    """The parser of all commands; what it gives has ``run(arguments) -> exit code``."""
    program = ArgumentParser(
        prog="m3bayes",
        description="Bayesian scaling laws: from a table of training runs to a posterior and a recipe.",
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    program.add_argument("--version", action="version", version=f"m3bayes {version('m3bayes')}")
    commands = program.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        fit,
        summary,
        pooled,
        check,
        discrepancy,
        calibrate,
        compare,
        rollout,
        predict,
        recommend,
        plans,
        guidelines,
        next,
        multilinguality,
        crossover,
        transfer,
        sources,
        pilot,
        laws,
        demo,
    ):
        command.add(commands)
    return program
