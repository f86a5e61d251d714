"""How long a version takes to answer, as all processes of a machine have counted it: the board, read."""

from __future__ import annotations

from collections.abc import Sequence

from cloche.core.board import Board, series_hash
from cloche.monitoring.counters import SECONDS

#: A histogram of how long answers took, and the upper bounds of its buckets as they are written.
DURATION = "cloche_request_duration_seconds"
BOUNDS = (*(format(bound, "g") for bound in SECONDS), "+Inf")


def durations(board: Board, deployment: str, version: int) -> list[int]:
    """How many answers took so long, by bucket of `SECONDS`, the last for all that took longer."""
    sums = board.sums()
    labels = {"name": DURATION, "deployment": deployment, "version": str(version)}
    return [sums.get(series_hash({**labels, "le": bound}), 0) for bound in BOUNDS]


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Seconds within which this share of the answers was there, by line within a bucket; None where none was."""
    wanted, passed = share * sum(buckets), 0
    for place, count in enumerate(buckets):
        if count and passed + count >= wanted:
            low = SECONDS[place - 1] if place else 0.0
            high = SECONDS[place] if place < len(SECONDS) else SECONDS[-1]
            return low + (high - low) * (wanted - passed) / count
        passed += count
    return None


def milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds
