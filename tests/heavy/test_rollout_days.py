"""Days of a rollout of an identical version: the guards of two workers and the controller look at all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche.rollout.analysis import Policy

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DAYS = 2_000


@pytest.mark.heavy
@pytest.mark.parametrize("case", ["plain", "cached", "unlucky"])
def test_an_identical_version_is_hardly_ever_taken_back(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand days at 10 requests a second, also with a cache and a fifth of them of one
    user; and as many rollouts with a user who fails."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from days import taken_back

    count = taken_back(case, DAYS, processes=2)
    print(f"\n{case}: {count} of {DAYS} days ended with a rollback of an identical version")
    assert count <= DAYS * Policy().alpha
