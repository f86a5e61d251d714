"""Callers: what of a rollout's requests says nothing new of who sent them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloche.core.board import Board, Role, Slot
from cloche.core.marks import Marks
from cloche.serving.callers import ArmCallers, Callers
from cloche.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(100.0)


@pytest.fixture
def slot(board: Board) -> Slot:
    return board.claim(1, Role.WORKER, pid=1, start=1)


@pytest.fixture
def make_callers(tmp_path: Path, clock: FakeClock) -> Callable[..., Callers]:
    """The callers of one worker; all of them share one file."""

    def make(rollout: int = 7) -> Callers:
        return Callers(b"x-user-id", rollout, Marks(tmp_path / "callers"), clock)

    return make


def arms(callers: Callers, slot: Slot) -> tuple[ArmCallers, ArmCallers]:
    labels = {"deployment": "fraud"}
    stable = ArmCallers(slot, {**labels, "version": "3", "arm": "stable"}, callers)
    return stable, ArmCallers(slot, {**labels, "version": "4", "arm": "candidate"}, callers)


def ask(arm: ArmCallers, name: str, *, is_bad: bool = False, is_late: bool = False, times: int = 1) -> None:
    for _ in range(times):
        arm.count({b"x-user-id": name.encode()}, is_bad=is_bad, is_late=is_late)


def test_a_caller_counts_once_a_minute(make_callers: Callable[..., Callers], slot: Slot, clock: FakeClock) -> None:
    stable, candidate = arms(make_callers(), slot)
    ask(stable, "ada", times=10)
    ask(stable, "bob", times=2)
    assert stable.told()[:3] == (10, 0, 0)  # all but the first of each
    ask(candidate, "ada")  # a growing share has moved it: it is new there
    assert candidate.told()[:3] == (0, 0, 0)
    clock.now += 61
    ask(stable, "ada", times=3)
    assert stable.told()[:3] == (12, 0, 0)


def test_the_first_of_a_minute_counts_whatever_it_was(
    make_callers: Callable[..., Callers], slot: Slot, clock: FakeClock
) -> None:
    """Who asks a thousand times a minute would nearly always be bad, if any of them decided."""
    stable, _ = arms(make_callers(), slot)
    ask(stable, "ada")
    ask(stable, "ada", is_bad=True)
    assert stable.told()[:2] == (0, 1)
    clock.now += 61
    ask(stable, "ada", is_bad=True)
    assert stable.told()[:2] == (0, 1)


def test_who_was_counted_as_bad_is_not_counted_again_in_either_arm_nor_by_another_worker(
    make_callers: Callable[..., Callers], board: Board, slot: Slot, clock: FakeClock
) -> None:
    stable, candidate = arms(make_callers(), slot)
    there = arms(make_callers(), board.claim(2, Role.WORKER, pid=2, start=1))
    ask(stable, "ada", is_bad=True)
    assert stable.told()[:3] == (0, 0, 0)
    for _ in range(5):
        clock.now += 61
        for arm in (candidate, *there):
            ask(arm, "ada", is_bad=True)
            ask(arm, "ada")
    assert candidate.told()[:2] == there[1].told()[:2] == (5, 5)


def test_who_is_late_once_is_no_witness_of_the_pace_any_more_but_still_of_errors(
    make_callers: Callable[..., Callers], slot: Slot, clock: FakeClock
) -> None:
    """Its batches may be large, and they are all in one arm."""
    stable, _ = arms(make_callers(), slot)
    for _ in range(4):
        ask(stable, "ada", is_late=True)
        clock.now += 61
    assert stable.told() == (0, 0, 0, 3, 3)


def test_another_rollout_begins_anew(make_callers: Callable[..., Callers], slot: Slot) -> None:
    ask(arms(make_callers(7), slot)[1], "ada", is_bad=True)
    _, candidate = arms(make_callers(8), slot)
    ask(candidate, "ada", is_bad=True)
    assert candidate.told()[:2] == (0, 0)


def test_who_sends_no_name_is_a_caller_of_its_own_each_time(
    make_callers: Callable[..., Callers], slot: Slot
) -> None:
    stable, _ = arms(make_callers(), slot)
    for _ in range(9):
        stable.count({b"x-request-id": b"7"}, is_bad=True, is_late=True)
    assert stable.told()[:3] == (0, 0, 0)


def test_the_bad_answers_of_the_caller_with_most_of_them_but_its_first(
    make_callers: Callable[..., Callers], slot: Slot
) -> None:
    stable, candidate = arms(make_callers(), slot)
    ask(candidate, "ada", is_bad=True, times=5)
    ask(candidate, "bob", is_bad=True, times=3)
    ask(candidate, "ada", times=100)
    ask(stable, "eve", is_bad=True)
    assert (candidate.told()[2], stable.told()[2]) == (4, 0)
    ask(candidate, "bob", is_bad=True, times=3)
    assert candidate.told()[2] == 5


def test_very_many_callers_cost_no_more_memory_and_the_heavy_one_stays_known(
    make_callers: Callable[..., Callers], slot: Slot
) -> None:
    callers = make_callers()
    _, candidate = arms(callers, slot)
    for number in range(20_000):
        ask(candidate, f"caller-{number}", is_bad=True)
        if number % 10 == 0:
            ask(candidate, "heavy", is_bad=True)
    assert candidate.told()[2] == 1_999
    assert len(candidate._bad) <= 4_097
    assert sum(len(seen) for seen in callers._arms) <= 2 * 4_097
