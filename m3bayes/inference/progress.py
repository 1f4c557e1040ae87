"""A progress bar over all chains: transitions done, divergences, time left."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def bar(label: str, total: int, shown: bool | None) -> Iterator[Callable[[int, int, int], None]]:
    """Gives ``report(chain, done, divergences)``, callable from several threads.

    ``shown=None`` shows the bar only where standard error is a terminal.
    """
    visible = sys.stderr.isatty() if shown is None else shown
    state: dict[int, tuple[int, int]] = {}
    lock = threading.Lock()
    with tqdm(total=total, desc=label, unit="draw", disable=not visible, leave=True, file=sys.stderr) as line:

        def report(chain: int, done: int, divergences: int) -> None:
            with lock:
                before = state.get(chain, (0, 0))[0]
                state[chain] = (done, divergences)
                line.set_postfix(divergences=sum(bad for _, bad in state.values()), refresh=False)
                line.update(done - before)

        yield report
