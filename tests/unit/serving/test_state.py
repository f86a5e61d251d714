"""Readiness, and how kept-alive connections are spread over workers."""

from __future__ import annotations

from cloche.core.board import Board, Head, Role, Slot, State
from cloche.serving.state import WorkerState, others_serve


def worker(board: Board, number: int, connections: int) -> Slot:
    slot = board.claim(number, Role.WORKER, pid=number, start=1)
    slot.set(Head.STATE, State.READY)
    slot.set(Head.CONNECTIONS, connections)
    return slot


def test_it_answers_when_ready_and_not_draining() -> None:
    state = WorkerState()
    assert not state.answers()
    state.is_ready = True
    assert state.answers()
    state.is_draining = True
    assert not state.answers()
    assert state.closes_next()


def test_who_drains_alone_says_that_the_machine_goes_on(board: Board) -> None:
    state = WorkerState()
    state.is_ready = state.is_draining = True
    state.others_serve = lambda: others_serve(board)
    own = worker(board, 1, 0)
    own.set(Head.STATE, State.DRAINING)
    assert not state.answers(), "there is no other"
    other = worker(board, 2, 0)
    assert not state.answers(), "nobody looks after it"
    supervisor = board.claim(0, Role.SUPERVISOR, pid=9, start=1)
    assert state.answers()
    assert state.closes_next()
    supervisor.set(Head.STATE, State.DRAINING)
    assert not state.answers(), "all stop"
    supervisor.set(Head.STATE, State.STARTING)
    other.set(Head.STATE, State.DRAINING)
    assert not state.answers()


def test_a_worker_with_more_than_its_share_gives_the_rest_away(board: Board) -> None:
    slot = worker(board, 1, 0)
    worker(board, 2, 4)
    state = WorkerState()
    state.share(board, slot, 40)
    assert board.head(1, Head.CONNECTIONS) == 40
    assert state.excess == 18
    assert [state.closes_next() for _ in range(20)] == [True] * 18 + [False] * 2


def test_a_few_more_are_let_be(board: Board) -> None:
    slot = worker(board, 1, 0)
    worker(board, 2, 2)
    state = WorkerState()
    state.share(board, slot, 8)
    assert state.excess == 0


def test_none_is_left_with_less_than_half_of_its_share(board: Board) -> None:
    slot = worker(board, 1, 0)
    worker(board, 2, 14)
    worker(board, 3, 2)
    state = WorkerState()
    state.share(board, slot, 14)
    assert state.excess == 4


def test_a_worker_alone_keeps_all(board: Board) -> None:
    slot = worker(board, 1, 0)
    dead = worker(board, 2, 0)
    dead.set(Head.HEARTBEAT_NS, 0)
    starting = worker(board, 3, 0)
    starting.set(Head.STATE, State.STARTING)
    state = WorkerState()
    state.share(board, slot, 100)
    assert state.excess == 0
