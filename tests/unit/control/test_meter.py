"""The load of a machine, read off a real board between two looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche.control.meter import Meter
from cloche.core.board import Board, Head, Role, Slot, State
from cloche.monitoring.counters import DeploymentCounters


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "board")


def worker(board: Board, number: int, state: State = State.READY) -> Slot:
    slot = board.claim(number, Role.WORKER, pid=100 + number, start=1)
    slot.set(Head.STATE, state)
    slot.set(Head.LOOP_NS, 5_000_000_000)
    return slot


def answer(counters: DeploymentCounters, count: int, inference_s: float = 0.0) -> None:
    for _ in range(count):
        counters.began()
        counters.batch(1, inference_s)
        counters.answered("cloche", 200, inference_s)


def test_the_first_look_has_nothing_to_compare_with(board: Board) -> None:
    worker(board, 1)
    assert Meter(board, frozenset()).read(0.0) is None


def test_what_came_between_two_looks_is_counted_over_all_workers(board: Board) -> None:
    slots = [worker(board, 1), worker(board, 2)]
    fraud, churn = DeploymentCounters(slots[0], "fraud", "1"), DeploymentCounters(slots[1], "churn", "2")
    answer(fraud, 10)
    meter = Meter(board, frozenset())
    meter.read(0.0)
    answer(fraud, 30, 0.01)
    answer(churn, 20, 0.02)
    for _ in range(5):
        churn.began()
    load = meter.read(2.0)
    assert load is not None
    assert (load.seconds, load.arrivals, load.answered, load.waiting) == (2.0, 55, 50, 3)
    assert load.busy_s == pytest.approx(0.7)
    assert (load.ready, load.starting) == (2, 0)


def test_a_worker_is_as_busy_as_its_loop_or_its_model_whichever_is_more(board: Board) -> None:
    slot = worker(board, 1)
    meter = Meter(board, frozenset())
    meter.read(0.0)
    answer(DeploymentCounters(slot, "fraud", "1"), 10, 0.01)
    slot.set(Head.LOOP_NS, 5_600_000_000)
    load = meter.read(1.0)
    assert load is not None
    assert load.busy_s == pytest.approx(0.6)


def test_a_model_in_a_host_keeps_no_worker_busy(board: Board) -> None:
    slot = worker(board, 1)
    meter = Meter(board, frozenset({"mood"}))
    meter.read(0.0)
    answer(DeploymentCounters(slot, "mood", "1"), 10, 0.1)
    load = meter.read(1.0)
    assert load is not None
    assert (load.arrivals, load.busy_s) == (10, 0.0)


def test_what_was_shed_came_but_was_not_answered(board: Board) -> None:
    counters = DeploymentCounters(worker(board, 1), "fraud", "1")
    meter = Meter(board, frozenset())
    meter.read(0.0)
    answer(counters, 10, 0.01)
    for _ in range(4):
        counters.began()
        counters.shed("overload")
        counters.answered("cloche", 503, 0.0)
    load = meter.read(1.0)
    assert load is not None
    assert (load.arrivals, load.answered) == (14, 10)


def test_nothing_goes_backwards_when_a_worker_goes_and_another_comes(board: Board) -> None:
    gone, stays = worker(board, 1), worker(board, 2)
    counters = DeploymentCounters(gone, "fraud", "1")
    answer(counters, 10, 0.01)
    counters.began()
    meter = Meter(board, frozenset())
    meter.read(0.0)
    board.release(1)
    stays.set(Head.LOOP_NS, 5_100_000_000)
    load = meter.read(1.0)
    assert load is not None
    assert (load.arrivals, load.answered, load.ready) == (0, 0, 1)
    assert load.busy_s == pytest.approx(0.1)
    board.claim(1, Role.WORKER, pid=999, start=2).set(Head.LOOP_NS, 9_000_000_000)
    load = meter.read(2.0)
    assert load is not None
    assert load.busy_s == 0.0, "what a worker did before it was seen is how it loaded"


def test_who_drains_is_neither_ready_nor_starting(board: Board) -> None:
    worker(board, 1)
    worker(board, 2, State.DRAINING)
    worker(board, 3, State.STARTING)
    worker(board, 4).set(Head.HEARTBEAT_NS, 0)
    assert Meter(board, frozenset()).counts() == (1, 1)


def test_how_long_a_start_takes_is_learnt(board: Board) -> None:
    worker(board, 1)
    meter = Meter(board, frozenset())
    meter.read(0.0)
    starts = worker(board, 2, State.STARTING)
    meter.read(10.0)
    meter.read(15.0)
    starts.set(Head.STATE, State.READY)
    load = meter.read(20.0)
    assert load is not None
    assert load.startup_s == 6.0  # half of it: it was 2 before
