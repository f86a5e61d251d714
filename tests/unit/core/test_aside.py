"""What is done aside: short turns with the interpreter, and work that gives way to who answers."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from cloche.core import aside
from cloche.core.aside import SHORT_TURN_S, giving_way, in_front, in_short_turns


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_turns_are_short_until_the_last_is_done() -> None:
    usual = sys.getswitchinterval()
    with in_short_turns():
        with in_short_turns():
            assert sys.getswitchinterval() == pytest.approx(SHORT_TURN_S, abs=2e-6)
        assert sys.getswitchinterval() == pytest.approx(SHORT_TURN_S, abs=2e-6), "the first is not done"
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_an_error_gives_the_usual_turn_back() -> None:
    usual = sys.getswitchinterval()
    with pytest.raises(ValueError, match="no model"), in_short_turns():
        raise ValueError("no model")
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_turns_that_are_shorter_already_stay_so() -> None:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SHORT_TURN_S / 2)
    try:
        with in_short_turns():
            assert sys.getswitchinterval() == pytest.approx(SHORT_TURN_S / 2, abs=2e-6)
    finally:
        sys.setswitchinterval(usual)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows the priority of a single thread")
def test_work_gives_way_and_threads_that_it_leaves_behind_do_not() -> None:
    usual = niceness()
    told: list[int] = []
    go = threading.Event()

    def stay() -> None:
        go.wait(10)
        told.append(niceness())

    stays = threading.Thread(target=stay)

    def work() -> int:
        in_front(stays.start)
        return niceness()

    assert giving_way(work) > usual
    go.set()
    stays.join()
    assert told == [usual]
    assert niceness() == usual == in_front(niceness)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows the priority of a single thread")
def test_work_gives_way_for_so_long_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """With privileges; without, the thread can't be let forward, and stands back less far from the start."""
    usual = niceness()
    monkeypatch.setattr(aside, "PATIENCE_S", 0.05)

    def work() -> tuple[int, int]:
        first = niceness()
        until = time.monotonic() + 5
        while niceness() != usual and time.monotonic() < until:
            time.sleep(0.01)
        return first, niceness()

    first, last = giving_way(work)
    assert (first, last) == (19, usual) if os.geteuid() == 0 else first == last == min(usual + 10, 19)


def test_errors_come_through() -> None:
    def fail() -> None:
        raise ValueError("no model")

    with pytest.raises(ValueError, match="no model"):
        giving_way(fail)
    with pytest.raises(ValueError, match="no model"):
        giving_way(lambda: in_front(fail))
