"""Laws are tested in double precision, as inference uses them."""

from __future__ import annotations

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def double_precision():
    with jax.enable_x64(True):
        yield
