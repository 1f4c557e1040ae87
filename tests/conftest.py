"""One compilation cache for the whole test run, sub-processes included: compiling is most of the time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".jax_cache"
assert "jax" not in sys.modules, "the cache must be named before jax starts"

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# the tests run on the processor, so that they say the same with and without an accelerator
os.environ.setdefault("JAX_PLATFORMS", "cpu")
