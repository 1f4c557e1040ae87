"""The table that a sweep writes: one row a finished run, each put there in one step.

| column | meaning | unit |
|---|---|---|
| run, block, language | as in the plan; source is the name of the source text | - |
| params, target_tokens, epochs, target_ratio, final_ratio, first_ratio | what was trained | as in m3bayes.runs |
| loss, source_loss | held-out losses at the end; blank where the run diverged | nats a token |
| tokens, first_stage_tokens, last_stage_tokens | all tokens, and those of two stages (first blank at one) | tokens |
| flops | head and attention counted, see model.Shape.flops | FLOP |
| lr, weight_decay, decay, steps | peak learning rate, and how it falls | - |
| subset, seed | seeds of the choice of target text, of weights and order | - |
| status | ok, or diverged | - |
| seconds | wall time; of runs trained side by side each has its share | s |
| device, versions, corpus, date | where, with what, on which text (first digits of its sha256), when | - |

Further columns, of plans that have them alone; a row that has none is blank there:

| column | meaning | unit |
|---|---|---|
| <source>_tokens, <source>_unique_tokens | tokens read of each source, equal since none is read twice | tokens |
| checkpoint, continued | the run whose model this one goes on from, blank from scratch; 1 or 0 | - |

``corpus`` has the target, each source, and the checkpoint.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from m3bayes.errors import M3BayesError, RunTableError
from m3bayes.files import write_text

COLUMNS = (
    "run", "block", "language", "source", "params", "target_tokens", "epochs", "target_ratio", "final_ratio",
    "first_ratio", "loss", "source_loss", "tokens", "first_stage_tokens", "last_stage_tokens", "flops", "lr",
    "weight_decay", "decay", "steps", "subset", "seed", "status", "seconds", "device", "versions", "corpus", "date",
)  # fmt: skip

OF_CHECKPOINTS = ("checkpoint", "continued")

Row = Mapping[str, object]


def read_results(path: Path) -> list[dict[str, str]]:
    """The rows written so far, as text; none where there is no file. Raises RunTableError."""
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
            found = tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunTableError(f"{path} cannot be read as a sweep's table: {error}") from error
    odd = sorted(set(COLUMNS).difference(found) | {name for name in found if not _is_known(name)})
    if odd or found[: len(COLUMNS)] != COLUMNS:
        raise RunTableError(
            f"{path} is not the table of a sweep (columns {', '.join(odd) or 'in another order'}): "
            "give another --out, or the table that an earlier sweep wrote"
        )
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise RunTableError(f"{path}: row {number} does not have {len(found)} cells; remove it")
    return rows


def _is_known(column: str) -> bool:
    return column in (*COLUMNS, *OF_CHECKPOINTS) or column.endswith("_tokens")


def append(path: Path, rows: Sequence[Row]) -> None:
    """Put ``rows`` at the end of the table in one step: after a kill it has all of them or none."""
    text = io.StringIO()
    every = [*read_results(path), *rows]
    further = dict.fromkeys(name for row in every for name in row if name not in COLUMNS)
    writer: csv.DictWriter[str] = csv.DictWriter(text, (*COLUMNS, *further), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(every)
    write_text(path, text.getvalue())


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Hold the table for one sweep; raises M3BayesError where another holds it. A kill lets go of it."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise M3BayesError(f"{path} cannot be written: {error.strerror}; choose another --out") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise M3BayesError(
                f"{path} is being written by another sweep; wait for it, or give another --out"
            ) from None
        yield
    finally:
        os.close(descriptor)
