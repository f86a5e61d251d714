"""Rate limits, exact over all workers: real slots on one real board, and a clock that the test moves."""

from __future__ import annotations

import random

import pytest

from cloche.core.board import SERIES, Board, Head, Role
from cloche.core.units import Rate
from cloche.serving.limits import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1020.0  # the begin of a minute, since windows are fixed

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limiters(board: Board, clock: Clock, count: int) -> list[RateLimiter]:
    slots = [board.claim(number, Role.WORKER, pid=number, start=1) for number in range(1, count + 1)]
    return [RateLimiter(board, slot, "fraud", clock) for slot in slots]


def test_as_many_pass_as_the_rate_says_and_the_next_is_told_how_long_to_wait(board: Board, clock: Clock) -> None:
    (limiter,) = limiters(board, clock, 1)
    rate = Rate(5, 10)
    assert [limiter.take("key", rate) for _ in range(5)] == [0.0] * 5
    wait = limiter.take("key", rate)
    assert 0 < wait <= 20
    assert limiter.take("other", rate) == 0.0
    clock.now += wait - 0.01
    assert limiter.take("key", rate) > 0
    clock.now += 0.02
    assert limiter.take("key", rate) == 0.0


def test_what_one_worker_let_through_counts_at_once_with_the_others(board: Board, clock: Clock) -> None:
    one, other = limiters(board, clock, 2)
    rate = Rate(10, 10)
    assert other.take("key", rate) == 0.0  # looked round before the first had counted anything
    assert [one.take("key", rate) for _ in range(5)] == [0.0] * 5
    assert [other.take("key", rate) == 0.0 for _ in range(6)] == [True] * 4 + [False] * 2
    assert one.take("key", rate) > 0


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("rate", [Rate(100, 1), Rate(600, 60), Rate(20, 1)])
def test_over_any_number_of_windows_the_rate_holds_to_5_percent(
    board: Board, clock: Clock, workers: int, rate: Rate
) -> None:
    made = limiters(board, clock, workers)
    chance = random.Random(7)
    passed: list[float] = []
    start = clock.now
    # four times as many as are allowed, evenly spread over time, unevenly over workers
    for number in range(4 * 20 * rate.count):
        clock.now = start + number * rate.window_s / rate.count / 4
        limiter = made[min(chance.randrange(workers), chance.randrange(workers))]
        if limiter.take("key", rate) == 0.0:
            passed.append(clock.now)
    assert len(passed) == pytest.approx(20 * rate.count, rel=0.05)
    for window in range(20):
        begin = start + window * rate.window_s
        count = sum(begin <= moment < begin + rate.window_s for moment in passed)
        assert count <= rate.count * 1.05


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_small_rate_is_met_on_average_and_the_wait_that_is_told_is_enough(
    board: Board, clock: Clock, count: int
) -> None:
    (limiter,) = limiters(board, clock, 1)
    rate = Rate(count, 60)
    start = clock.now + 30  # within a window
    passed, clock.now = 0, start
    while clock.now < start + 100 * rate.window_s:
        wait = limiter.take("key", rate)
        passed += wait == 0.0
        clock.now += wait + 0.001
    assert passed == pytest.approx(100 * count, rel=0.05)


def test_a_rate_below_the_limit_is_never_held_up(board: Board, clock: Clock) -> None:
    made = limiters(board, clock, 4)
    for number in range(1000):
        clock.now = 1020.0 + number / 90
        assert made[number % 4].take("key", Rate(100, 1)) == 0.0


def test_what_a_dead_worker_let_through_still_counts(board: Board, clock: Clock) -> None:
    dead, alive = limiters(board, clock, 2)
    rate = Rate(5, 10)
    assert [dead.take("key", rate) for _ in range(5)] == [0.0] * 5
    again = RateLimiter(board, board.claim(1, Role.WORKER, pid=9, start=2), "fraud", clock)
    assert alive.take("key", rate) > 0
    assert again.take("key", rate) > 0


def test_a_worker_that_came_later_is_seen(board: Board, clock: Clock) -> None:
    (first,) = limiters(board, clock, 1)
    rate = Rate(5, 10)
    assert first.take("key", rate) == 0.0
    later = RateLimiter(board, board.claim(9, Role.WORKER, pid=9, start=1), "fraud", clock)
    clock.now += 1.0
    assert [later.take("key", rate) for _ in range(4)] == [0.0] * 4
    assert first.take("key", rate) > 0


def test_in_a_full_slot_the_limits_of_keys_stay_apart(board: Board, clock: Clock) -> None:
    slot = board.claim(1, Role.WORKER, pid=1, start=1)
    for number in range(SERIES):
        slot.series(name="x", number=str(number))
    limiter = RateLimiter(board, slot, "fraud", clock)
    rate = Rate(3, 10)
    for key in ("one", "other"):
        assert [limiter.take(key, rate) == 0.0 for _ in range(4)] == [True] * 3 + [False]
    assert slot.get(Head.DROPPED) == 0
    clock.now += 20
    assert limiter.take("one", rate) == 0.0
