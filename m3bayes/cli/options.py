"""Arguments that several sub-commands take, and how their values are read."""

from __future__ import annotations

import math
import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from m3bayes import laws
from m3bayes.errors import LawError, M3BayesError, NotConvergedError, RecipeError
from m3bayes.inference.noise import Noise
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.storage import load
from m3bayes.laws import Law
from m3bayes.plots.style import check_format
from m3bayes.runs import Runs, read_runs


def positive(text: str) -> float:
    value = _float(text)
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def share(text: str) -> float:
    value = _float(text)
    if not 0 < value < 1:
        raise ArgumentTypeError(f"expected a number between 0 and 1, got {text!r}")
    return value


def not_negative(text: str) -> float:
    value = _float(text)
    if not 0 <= value < math.inf:
        raise ArgumentTypeError(f"expected a number, 0 or above, got {text!r}")
    return value


def upper_end(text: str) -> float:
    """As :func:`positive`; ``inf`` lifts a bound."""
    return math.inf if text == "inf" else positive(text)


def whole(least: int) -> Callable[[str], int]:
    """A whole number of at least ``least``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise ArgumentTypeError(f"expected a whole number of {least} or more, got {text!r}")
        return value

    return read


def setting(text: str) -> tuple[str, float]:
    """``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ArgumentTypeError(f"expected NAME=VALUE, as in r=1, got {text!r}")
    return name.strip(), not_negative(value)


def interval(text: str) -> tuple[str, tuple[float | None, float | None]]:
    """``NAME=LOW:HIGH``; either end may be left out."""
    name, equals, value = text.partition("=")
    low, colon, high = value.partition(":")
    if not (name and equals and colon and (low or high)):
        raise ArgumentTypeError(f"expected NAME=LOW:HIGH, as in k=1:8 or N=:1e9, got {text!r}")
    ends = (not_negative(low) if low else None, upper_end(high) if high else None)
    if ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:
        raise ArgumentTypeError(f"expected LOW of NAME=LOW:HIGH to be at most HIGH, got {text!r}")
    return name.strip(), ends


def noise(text: str) -> Noise:
    """``student-t``, ``normal``, ``group:COLUMN``, ``known``, or some of them with commas between."""
    kind, by, known = "student-t", None, False
    for part in text.split(","):
        word, _, column = part.strip().partition(":")
        if word in ("student-t", "normal") and not column:
            kind = word
        elif word == "group" and column:
            by = column
        elif word == "known" and not column:
            known = True
        else:
            raise ArgumentTypeError(f"expected student-t, normal, group:COLUMN or known, got {part!r}")
    return Noise("normal" if kind == "normal" else "student-t", by, known)


def named_law(text: str, drop: Sequence[str] = (), sources: Sequence[str] = ()) -> Law:
    """``NAME`` or ``NAME:option=value,option=value``, without the coefficients in ``drop`` and with named ``sources``.

    A value may be several with + between, as in en+fr or en=.6+fr=.3.
    """
    name, _, rest = text.partition(":")
    options: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise LawError(f"--law {text}: expected NAME:option=value,option=value, got {part!r}")
        options[key.strip()] = _value(value.strip())
    options |= {key: tuple(given) for key, given in (("drop", drop), ("sources", sources)) if given}
    return laws.named(name, **options)


def names(text: str) -> tuple[str, ...]:
    """Names with commas between."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise ArgumentTypeError(f"expected names with commas between, got {text!r}")
    return found


def several(text: str) -> tuple[float, ...]:
    """Numbers above 0 with commas between."""
    if not all(part.strip() for part in text.split(",")):
        raise ArgumentTypeError(f"expected numbers with commas between, got {text!r}")
    return tuple(positive(part) for part in names(text))


def add_ci(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--ci",
        type=share,
        default=0.9,
        metavar="P",
        help="probability of the intervals shown, between 0 and 1 (default: %(default)s)",
    )


def add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the results as JSON on stdout")


def add_posterior(parser: ArgumentParser) -> None:
    parser.add_argument(
        "posterior", type=Path, metavar="POSTERIOR", help="file that `m3bayes fit` wrote (netCDF)"
    )


def add_allow(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--allow",
        choices=("passed", "flagged"),
        default="passed",
        help="flagged: go on with a posterior that has not passed the gate (default: %(default)s)",
    )


def load_allowed(path: Path, allow: str) -> Posterior:
    """The posterior at ``path``, refused where it is flagged and ``--allow flagged`` was not given."""
    post = load(path)
    if post.verdict != "passed" and allow != "flagged":
        codes = ", ".join(dict.fromkeys(note.code for note in post.notes))
        raise NotConvergedError(
            f"{path} is {post.verdict} ({codes}): fit again with more --warmup and --draws, "
            "or go on with --allow flagged",
            post,
        )
    return post


def add_sampling(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=whole(0), default=0, metavar="SEED", help="of the draws (default: %(default)s)"
    )
    parser.add_argument(
        "--chains", type=whole(1), default=4, metavar="COUNT", help="Markov chains (default: %(default)s)"
    )
    parser.add_argument(
        "--warmup",
        type=whole(20),
        metavar="COUNT",
        help="draws a chain that only adapt the sampler (default: 200 for up to 8 coordinates, else 800)",
    )
    parser.add_argument(
        "--draws",
        type=whole(4),
        default=1000,
        metavar="COUNT",
        help="draws kept a chain (default: %(default)s)",
    )


def add_table_options(parser: ArgumentParser) -> None:
    """How a table of runs is read, and the scatter of its losses: for :func:`table_of_runs`."""
    parser.add_argument(
        "--noise",
        type=noise,
        default=noise("student-t"),
        metavar="NOISE",
        help="scatter of log loss: student-t (default), normal, group:COLUMN (a sigma for each value of a "
        "column), known (the table's loss_se, in the loss's unit), or some of them with commas between",
    )
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        help='only runs for which this holds, as in "epochs <= 60 and loss < 4.5"',
    )
    parser.add_argument(
        "--unit-params",
        type=positive,
        default=1.0,
        metavar="COUNT",
        help="parameters in one unit of the table's params, 1e9 for billions (default: 1)",
    )
    parser.add_argument(
        "--unit-tokens",
        type=positive,
        default=1.0,
        metavar="COUNT",
        help="tokens in one unit of the table's target_tokens (default: 1)",
    )


def table_of_runs(path: Path, arguments: Namespace) -> Runs:
    """The table at ``path``, read as the arguments say."""
    return read_runs(
        path, where=arguments.where, unit_params=arguments.unit_params, unit_tokens=arguments.unit_tokens
    )


def check_out(path: Path | None, *read: Path, option: str = "--out") -> None:
    """Raise where a result could not be written to ``path``, or would replace a file that is ``read``: better
    before the work than after it."""
    if path is None:
        return
    if any(path.exists() and other.exists() and path.samefile(other) for other in read):
        raise M3BayesError(
            f"{option} {path} is the file to read: give another path, so that it is not replaced"
        )
    if path.is_dir():
        raise M3BayesError(f"{option} {path} is a folder: give the path of a file")
    if not path.parent.is_dir():
        raise M3BayesError(
            f"{option} {path}: the folder {path.parent} does not exist; make it or choose another"
        )
    if not os.access(path.parent, os.W_OK):
        raise M3BayesError(f"{option} {path}: the folder {path.parent} cannot be written to; choose another")


def check_figure(path: Path | None, *read: Path) -> None:
    """As :func:`check_out`, for a figure, whose format is that of its name."""
    check_out(path, *read, option="--figure")
    if path is not None:
        check_format(path)


def of_file(path: Path, error: RecipeError) -> RecipeError:
    """What is wrong with a table of recipes, with the file it is from."""
    return RecipeError(f"{path}: {str(error).removeprefix('recipes: ')}")


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _value(text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    value = _float(text)
    if not math.isnan(value):
        return value
    parts = [part.strip() for part in text.split("+")]
    if all("=" in part for part in parts):
        pairs = (part.split("=", 1) for part in parts)
        return {name.strip(): _value(given.strip()) for name, given in pairs}
    return tuple(parts) if len(parts) > 1 else text
