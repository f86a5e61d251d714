"""Windows: what was answered by time and version, and the times within which it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.board import Board, Role
from cloche.monitoring.counters import SECONDS, DeploymentCounters
from cloche.monitoring.latency import BOUNDS, quantile
from cloche.monitoring.windows import over, resolution_of
from cloche.store.increases import DAY, HOUR, MINUTE, SECOND
from cloche.store.statistics import Counted, Statistics
from cloche.store.watch import WatchStore

BEGIN = 20_000 * DAY


class World:
    """A World is a board, the statistics that it is carried to, and a time that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.now = float(BEGIN)
        self.watch = WatchStore("sqlite://", clock=lambda: self.now)
        self.statistics = Statistics(self.watch)
        self._board = Board(folder / "board")
        self._slot = self._board.claim(1, Role.WORKER, 1, 1)

    def answer(self, count: int, version: int = 1, code: int = 200, seconds: float = 0.002) -> None:
        counters = DeploymentCounters(self._slot, "fraud", str(version))
        for _ in range(count):
            counters.began()
            counters.answered("cloche", code, seconds)
            if code >= 400:
                counters.failed("CL-E901")
        self.statistics.carry("one", self._board.made, [Counted(*one) for one in self._board.described()])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.watch.close()


def test_each_version_has_its_window_and_all_of_them_a_total(world: World) -> None:
    world.answer(10)
    world.now += MINUTE
    world.answer(4, version=2)
    world.answer(1, version=2, code=500)
    world.answer(2, version=2, code=422)
    world.answer(5)
    world.now += 30
    seen = over(world.statistics, world.now - HOUR, world.now, MINUTE)
    found = [(one.start - BEGIN, one.version, one.requests, one.errors, one.refused) for one in seen.windows]
    assert found == [(0, 1, 10, 0, 0), (60, 1, 5, 0, 0), (60, 2, 7, 1, 2)]
    assert [one.seconds for one in seen.windows] == [60, 30, 30]
    assert [(one.version, one.requests, one.seconds) for one in seen.totals] == [(1, 15, 90), (2, 7, 90)]
    assert seen.totals[1].codes == {"200": 4, "422": 2, "500": 1}
    assert seen.totals[1].reasons == {"CL-E901": 3}
    (only,) = over(world.statistics, world.now - HOUR, world.now, HOUR, deployment="fraud", version=2).windows
    assert only.requests == 7
    assert over(world.statistics, world.now - HOUR, world.now, HOUR, deployment="other").totals == ()


def test_what_was_folded_is_shown_as_before_in_windows_that_are_as_long(world: World) -> None:
    for _ in range(5):
        world.answer(3)
        world.now += MINUTE
    world.now += 2 * DAY
    fine = over(world.statistics, BEGIN, world.now, MINUTE)
    while world.statistics.fold():
        pass
    folded = over(world.statistics, BEGIN, world.now, MINUTE)
    assert len(fine.windows) == 5
    assert [(one.start, one.seconds, one.requests) for one in folded.windows] == [(BEGIN, HOUR, 15)]
    assert folded.totals == fine.totals


def test_without_anything_there_is_nothing(world: World) -> None:
    assert over(world.statistics, BEGIN, BEGIN + DAY, HOUR).windows == ()
    assert over(world.statistics, BEGIN, BEGIN + DAY, HOUR).totals == ()


@pytest.mark.parametrize(
    ("seconds", "step"), [(30, SECOND), (HOUR, MINUTE), (2 * HOUR, MINUTE), (DAY, HOUR), (7 * DAY, DAY)]
)
def test_a_table_fits_a_screen_or_two(seconds: float, step: int) -> None:
    assert resolution_of(seconds) == step


@given(st.lists(st.integers(0, 1000), min_size=len(BOUNDS), max_size=len(BOUNDS)))
def test_times_grow_with_the_share_and_stay_within_the_buckets(buckets: list[int]) -> None:
    found: list[Any] = [quantile(buckets, share) for share in (0.01, 0.5, 0.95, 0.99, 1.0)]
    if not sum(buckets):
        assert found == [None] * 5
        return
    assert found == sorted(found)
    assert all(0 <= one <= SECONDS[-1] for one in found)
