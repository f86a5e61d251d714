"""How long a version takes, read from the board."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloche.core.board import Board, Role
from cloche.monitoring.counters import SECONDS, DeploymentCounters
from cloche.monitoring.latency import durations, quantile


def test_answers_of_all_processes_by_bucket(tmp_path: Path) -> None:
    board = Board(tmp_path / "board")
    for number in (1, 2):
        slot = board.claim(number, Role.WORKER, pid=number, start=1)
        for version, seconds in (("3", 0.02), ("3", 99.0), ("4", 0.02)):
            DeploymentCounters(slot, "fraud", version).duration.observe(seconds)
    found = durations(board, "fraud", 3)
    assert (sum(found), found[SECONDS.index(0.025)], found[-1]) == (4, 2, 2)
    assert not sum(durations(board, "churn", 3))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_quantile_is_within_its_bucket(share: float) -> None:
    values = np.random.default_rng(0).lognormal(-4.0, 0.5, 10_000)
    buckets = np.histogram(values, [0.0, *SECONDS, np.inf])[0].tolist()
    true, found = float(np.quantile(values, share)), quantile(buckets, share)
    place = int(np.searchsorted(SECONDS, true))
    assert found is not None
    assert SECONDS[place - 1] <= found <= SECONDS[place]


def test_what_is_beyond_the_last_bucket_is_that(tmp_path: Path) -> None:
    assert quantile([0] * len(SECONDS) + [5], 0.5) == SECONDS[-1]
