"""Ctrl-C and SIGTERM while a command works."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from m3bayes.cli.show import message


@contextmanager
def stopped_at_once(said: Callable[[], str]) -> Iterator[None]:
    """SIGINT and SIGTERM end the process where it is, with what ``said`` gives: Python would wait for the fits to end,
    and what a command keeps while it works is whole at every moment."""

    def stop(number: int, _: object) -> None:
        message(f"stopped; {said()}")
        sys.stderr.flush()
        os._exit(128 + number)  # as shells have it

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
