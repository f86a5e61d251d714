"""What a worker counts stands on the board, in whole numbers, and survives the worker."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.board import Board, Head, Role
from cloche.monitoring.counters import NANO, ROWS, SECONDS, DeploymentCounters, Histogram


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "board")


def on_board(board: Board, name: str) -> dict[str, int]:
    """label=value of each series of this name (without deployment and version) -> number."""
    return {
        ",".join(
            f"{label}={text}"
            for label, text in sorted(labels.items())
            if label not in ("name", "deployment", "version")
        ): value
        for labels, value in board.labelled()
        if labels["name"] == name
    }


@pytest.mark.parametrize(
    ("seconds", "le"),
    [
        (0.0, "0.0001"),
        (0.0001, "0.0001"),  # a bound belongs to its bucket
        (0.00010001, "0.00025"),
        (0.9, "1"),
        (10.0, "10"),
        (10.1, "+Inf"),
    ],
)
def test_a_value_falls_into_the_first_bucket_that_holds_it(board: Board, seconds: float, le: str) -> None:
    slot = board.claim(1, Role.WORKER, pid=1, start=1)
    Histogram(slot, "h", SECONDS, {}).observe(seconds)
    counted = on_board(board, "h")
    assert counted[f"le={le}"] == 1
    assert sum(value for label, value in counted.items() if label.startswith("le=")) == 1
    assert counted[f"sum={NANO}"] == pytest.approx(seconds * NANO, abs=1)


def test_the_buckets_reach_from_100_microseconds_to_10_seconds() -> None:
    assert (SECONDS[0], SECONDS[-1]) == (0.0001, 10.0)
    assert list(SECONDS) == sorted(SECONDS)
    assert list(ROWS) == sorted(ROWS)


@given(values=st.lists(st.floats(0, 20), max_size=20))
def test_every_value_is_counted_once_and_summed(
    values: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    board = Board(tmp_path_factory.mktemp("board") / "board")
    histogram = Histogram(board.claim(1, Role.WORKER, pid=1, start=1), "h", SECONDS, {})
    for value in values:
        histogram.observe(value)
    counted = on_board(board, "h")
    assert sum(number for label, number in counted.items() if label.startswith("le=")) == len(values)
    assert counted[f"sum={NANO}"] / NANO == pytest.approx(sum(values), abs=1e-7)


def test_a_requests_way_is_counted(board: Board) -> None:
    slot = board.claim(1, Role.WORKER, pid=1, start=1)
    counters = DeploymentCounters(slot, "fraud", "3")
    counters.began()
    counters.began()
    assert slot.get(Head.IN_FLIGHT) == 2
    counters.answered("cloche", 200, 0.002)
    counters.answered("oip", 422, 0.001)
    assert slot.get(Head.IN_FLIGHT) == 0
    counters.failed("CL-E104")
    counters.flagged(3)
    counters.shed("overload")
    counters.cache(True)
    counters.cache(False)
    counters.batch(7, 0.001)
    counters.queued(0.0001)
    assert on_board(board, "cloche_requests_total") == {"code=200,dialect=cloche": 1, "code=422,dialect=oip": 1}
    assert on_board(board, "cloche_errors_total") == {"reason=CL-E104": 1}
    assert on_board(board, "cloche_flagged_values_total") == {"": 3}
    assert on_board(board, "cloche_shed_total") == {"reason=overload": 1}
    assert on_board(board, "cloche_cache_hits_total") == on_board(board, "cloche_cache_misses_total") == {"": 1}
    assert on_board(board, "cloche_batch_size")["le=8"] == 1
    assert on_board(board, "cloche_batch_size")["sum=1"] == 7
    assert on_board(board, "cloche_queue_seconds")["le=0.0001"] == 1


def test_what_is_executed_stands_in_the_head_while_it_is(board: Board) -> None:
    slot = board.claim(1, Role.WORKER, pid=1, start=1)
    counters = DeploymentCounters(slot, "fraud", "3")
    counters.executing(True)
    assert slot.get(Head.EXECUTING) != 0
    counters.executing(False)
    assert slot.get(Head.EXECUTING) == 0


def test_the_next_process_of_a_slot_counts_on(board: Board) -> None:
    for pid in (1, 2):
        counters = DeploymentCounters(board.claim(1, Role.WORKER, pid=pid, start=pid), "fraud", "3")
        counters.began()
        counters.answered("cloche", 200, 0.002)
    assert on_board(board, "cloche_requests_total") == {"code=200,dialect=cloche": 2}
