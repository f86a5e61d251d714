"""Days of a rollout of an identical version: the guards of two workers and the controller look at all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche.rollout.analysis import Policy

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DAYS = 400


@pytest.mark.heavy
@pytest.mark.parametrize("case", ["plain", "cached", "unlucky"])
def test_an_identical_version_is_hardly_ever_taken_back(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days at 10 requests a second, with a fifth of one caller's and a cache, and with a caller who fails.

    `python benchmarks/days.py` takes two thousand of each.
    """
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from days import taken_back

    count = taken_back(case, DAYS, processes=2)
    print(f"\n{case}: {count} of {DAYS} days ended with a rollback of an identical version")
    assert count <= DAYS * Policy().alpha
