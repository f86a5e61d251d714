"""What a worker serves: what is late for a candidate, by stable's own measure."""

from __future__ import annotations

import pytest

from cloche.app.versions import late_after
from cloche.monitoring.counters import SECONDS


def answers(seconds: float, how_many: int) -> list[int]:
    """So many answers, evenly within the bucket that ends there."""
    return [how_many if bound == seconds else 0 for bound in (*SECONDS, float("inf"))]


@pytest.mark.parametrize(
    ("buckets", "slow_s", "late_s"),
    [
        pytest.param(answers(0.1, 10_000), 1.0, 1.5 * 0.0995, id="half as long again as p99"),
        pytest.param(answers(0.001, 10_000), 1.0, 0.010995, id="ten milliseconds more at least"),
        pytest.param(answers(0.1, 999), 1.0, None, id="too few to know"),
        pytest.param([0] * len(answers(1.0, 0)), 1.0, None, id="none"),
        pytest.param(answers(0.1, 10_000), 0.12, None, id="what is bad before it is late"),
    ],
)
def test_late_is(buckets: list[int], slow_s: float, late_s: float | None) -> None:
    found = late_after(buckets, slow_s)
    assert found == (None if late_s is None else pytest.approx(late_s))
