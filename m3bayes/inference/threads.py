"""Threads that compute as their caller does: jax's precision and default device are settings of a thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import wraps
from threading import Event

import jax


def one_a_thread[Item, Result](
    function: Callable[[Item], Result], items: Sequence[Item], stopped: Event | None = None
) -> list[Result]:
    """``function`` of every item, as many at a time as there are cores, :func:`as_caller`.

    Where one of them raises, or Ctrl-C is pressed, ``stopped`` is set and those that have not begun are left out.
    Python cannot end a thread: those that run are waited for, and should look at ``stopped`` now and then.
    """
    pool = ThreadPoolExecutor(min(len(items), os.cpu_count() or 1))
    try:
        return list(pool.map(as_caller(function), items))
    except BaseException:
        if stopped is not None:
            stopped.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def as_caller[**Given, Result](function: Callable[Given, Result]) -> Callable[Given, Result]:
    """``function`` for another thread: it computes in float64, on the device that is the default in this one."""
    device = jax.config.jax_default_device

    @wraps(function)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        with jax.enable_x64(True), nullcontext() if device is None else jax.default_device(device):
            return function(*args, **kwargs)

    return called
