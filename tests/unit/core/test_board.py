"""The board: one writer a slot, sums over all of them, and nothing lost when a process dies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.board import (
    LIVE_S,
    SERIES,
    SLOTS,
    Board,
    Head,
    Role,
    State,
    board_before,
    series_hash,
    set_aside,
)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "board")


def values(board: Board) -> dict[tuple[tuple[str, str], ...], int]:
    return {tuple(sorted(labels.items())): value for labels, value in board.labelled()}


def test_what_is_counted_is_summed_over_slots(board: Board) -> None:
    for number in (1, 2, 63):
        slot = board.claim(number, Role.WORKER, pid=number, start=0)
        slot.cells[slot.series(name="requests", code="200")] += number
    assert values(board) == {(("code", "200"), ("name", "requests")): 66}


def test_another_process_reads_what_this_one_writes(board: Board) -> None:
    slot = board.claim(3, Role.HOST, os.getpid(), 7)
    slot.set(Head.STATE, State.READY)
    slot.cells[slot.series(name="requests")] += 5
    program = (
        "import sys; from pathlib import Path; from cloche.core.board import Board, Head\n"
        "board = Board(Path(sys.argv[1]))\n"
        "print(board.head(3, Head.PID), board.head(3, Head.STATE), list(board.labelled()))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program, str(board.path)], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == f"{os.getpid()} 1 [({{'name': 'requests'}}, 5)]"


def test_threads_that_ask_for_the_same_series_get_the_same_place(board: Board) -> None:
    slot = board.claim(1, Role.WORKER, os.getpid(), 0)
    names = [f"series_{number}" for number in range(100)]
    begin = threading.Barrier(4)
    found: list[dict[str, int]] = []

    def ask() -> None:
        begin.wait(10)
        found.append({name: slot.series(name=name) for name in names})

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == found[2] == found[3]
    assert len(set(found[0].values())) == len(board.series_from(1, 0)) == len(names)


def test_a_slot_that_is_taken_over_counts_on_but_its_head_is_new(board: Board) -> None:
    first = board.claim(1, Role.WORKER, pid=10, start=1)
    first.set(Head.EXECUTING, 99)
    first.cells[first.series(name="requests")] += 5
    second = board.claim(1, Role.WORKER, pid=11, start=2)
    assert second.get(Head.EXECUTING) == 0
    assert (board.head(1, Head.PID), board.head(1, Head.START)) == (11, 2)
    assert second.series(name="requests") == first.series(name="requests")
    second.cells[second.series(name="requests")] += 1
    second.cells[second.series(name="errors")] += 2
    assert values(board) == {(("name", "requests"),): 6, (("name", "errors"),): 2}


def test_a_released_slot_keeps_its_counts_and_has_no_owner(board: Board) -> None:
    slot = board.claim(1, Role.WORKER, pid=10, start=1)
    slot.cells[slot.series(name="requests")] += 5
    assert board.heads(Role.WORKER) == [1]
    board.release(1)
    assert board.heads(Role.WORKER) == []
    assert values(board) == {(("name", "requests"),): 5}


def test_a_slot_is_beating_until_its_heartbeat_is_old(board: Board) -> None:
    slot = board.claim(1, Role.WORKER, pid=10, start=1)
    assert board.is_beating(1)
    slot.set(Head.HEARTBEAT_NS, time.monotonic_ns() - int((LIVE_S + 1) * 1e9))
    assert not board.is_beating(1)
    slot.beat()
    assert board.is_beating(1)


def test_a_full_slot_counts_what_finds_no_room(board: Board) -> None:
    slot = board.claim(SLOTS - 1, Role.WORKER, pid=10, start=1)
    for number in range(SERIES):
        slot.cells[slot.series(name="requests", key=str(number))] += 1
    place = slot.series(name="one", key="too many")
    slot.cells[place] += 3
    assert slot.get(Head.DROPPED) == 3
    assert len(values(board)) == SERIES
    # what had room goes on
    slot.cells[slot.series(name="requests", key="0")] += 1
    assert values(board)[(("key", "0"), ("name", "requests"))] == 2


def test_a_full_slot_does_not_reach_into_its_neighbour(board: Board) -> None:
    neighbour = board.claim(2, Role.WORKER, pid=11, start=1)
    slot = board.claim(1, Role.WORKER, pid=10, start=1)
    for number in range(SERIES):
        slot.cells[slot.series(key=str(number))] = -1
    assert neighbour.get(Head.PID) == 11
    assert neighbour.get(Head.STATE) == State.STARTING
    assert board.series_from(2, 0) == []


def test_the_series_of_a_slot_are_read_from_any_number_on(board: Board) -> None:
    slot = board.claim(1, Role.WORKER, pid=10, start=1)
    board.claim(2, Role.WORKER, pid=11, start=1)
    places = [(series_hash({"name": name}), slot.series(name=name)) for name in ("a", "b", "c")]
    assert board.series_from(1, 0) == places
    assert board.series_from(1, 2) == places[2:]
    assert board.series_from(1, 3) == board.series_from(2, 0) == []


def test_labels_that_come_later_are_read_too(board: Board, tmp_path: Path) -> None:
    reader = Board(tmp_path / "board")
    slot = board.claim(1, Role.WORKER, pid=10, start=1)
    slot.cells[slot.series(name="first")] += 1
    assert len(values(reader)) == 1
    slot.cells[slot.series(name="second")] += 1
    assert len(values(reader)) == 2


def test_half_a_line_of_labels_is_left_for_later(board: Board) -> None:
    slot = board.claim(1, Role.WORKER, pid=10, start=1)
    slot.series(name="whole")
    line = board.labels_path.read_bytes()
    slot.cells[slot.series(name="torn")] += 1
    whole = board.labels_path.read_bytes()
    board.labels_path.write_bytes(whole[:-4])
    assert list(values(board)) == [(("name", "whole"),)]
    board.labels_path.write_bytes(whole)
    assert set(values(board)) == {(("name", "whole"),), (("name", "torn"),)}
    assert whole.startswith(line)


def test_the_file_is_this_users_only(board: Board) -> None:
    board.claim(1, Role.WORKER, pid=10, start=1).series(name="requests")
    assert board.path.stat().st_mode & 0o777 == 0o600
    assert board.labels_path.stat().st_mode & 0o777 == 0o600


@given(st.dictionaries(st.text(min_size=1), st.text(), min_size=1))
def test_a_hash_is_the_same_in_any_order_never_0_and_fits_in_64_bits(labels: dict[str, str]) -> None:
    backwards = dict(reversed(labels.items()))
    assert series_hash(labels) == series_hash(backwards)
    assert series_hash(labels) != 0
    assert -(2**63) <= series_hash(labels) < 2**63


def test_sums_never_go_backwards_while_writers_come_and_go(board: Board) -> None:
    program = (
        "import sys, os; from pathlib import Path; from cloche.core.board import Board, Role\n"
        "slot = Board(Path(sys.argv[1])).claim(1, Role.WORKER, os.getpid(), 0)\n"
        "place = slot.series(name='n')\n"
        "print(flush=True)\n"
        "while True: slot.cells[place] += 1\n"
    )
    seen = 0
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program, str(board.path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            before = seen
            while seen < before + 10_000:
                now = board.sums().get(series_hash({"name": "n"}), 0)
                assert now >= seen
                seen = now
            writer.kill()
    assert seen >= 30_000


def test_the_file_has_its_room_on_the_disk_from_the_start(board: Board) -> None:
    # a process that touches a hole of a mapped file on a full disk is killed by SIGBUS
    found = board.path.stat()
    if hasattr(os, "posix_fallocate"):
        assert found.st_blocks * 512 >= found.st_size


def test_a_full_disk_stops_no_count(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = board.claim(1, Role.WORKER, pid=1, start=0)
    write = os.write

    def torn(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[:9])

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    for one in (torn, full):
        monkeypatch.setattr(os, "write", one)
        place = slot.series(name="requests", code="200")
        assert place == slot.place(Head.DROPPED)
        slot.cells[place] += 1
    monkeypatch.setattr(os, "write", write)
    slot.cells[slot.series(name="requests", code="200")] += 5
    assert values(board) == {(("code", "200"), ("name", "requests")): 5}
    assert slot.get(Head.DROPPED) == 2


def test_a_board_that_is_set_aside_keeps_what_it_counted_until_it_is_carried(board: Board) -> None:
    slot = board.claim(1, Role.WORKER, 1, 1)
    slot.cells[slot.series(name="requests")] += 5
    set_aside(board.path)
    later = Board(board.path)
    assert (later.made > board.made, values(later)) == (True, {})
    before = Board(board_before(board.path))
    assert (before.made, values(before)) == (board.made, {(("name", "requests"),): 5})
    set_aside(later.path)  # the older one was not carried yet: it stays
    assert not later.path.exists()
    assert Board(board_before(board.path)).made == board.made
