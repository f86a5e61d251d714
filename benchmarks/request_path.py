"""What each part of the request path costs."""

from __future__ import annotations


def measure(*, seconds: float, rounds: int) -> list[dict[str, object]]:
    return []
