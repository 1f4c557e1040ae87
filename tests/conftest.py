"""One compilation cache for the whole test run, sub-processes included: compiling is most of the time."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CACHE = Path(__file__).parent.parent / ".jax_cache"
assert "jax" not in sys.modules, "the cache must be named before jax starts"

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# the tests run on the processor, so that they say the same with and without an accelerator
os.environ.setdefault("JAX_PLATFORMS", "cpu")

MAPS = Path("/proc/self/maps")  # a line a memory map; Linux only
MOST_MAPS = 30_000  # a process may have 65 530, and jax crashes where it gets no more


@pytest.fixture(autouse=True)
def few_memory_maps() -> Iterator[None]:
    """Forget compiled programs, which hold memory maps, once there are too many."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        import jax

        jax.clear_caches()
        gc.collect()
