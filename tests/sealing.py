"""Files with a seal, as bytes, for tests that write what no m3bayes would."""

from __future__ import annotations

from m3bayes.files import seal


def sealed(payload: bytes, label: str) -> bytes:
    return payload + seal(payload, label)
