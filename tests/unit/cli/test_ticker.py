"""The progress of long work: on a terminal only, and only once it lasts."""

from __future__ import annotations

import io
import os
import pty
import sys
import threading
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Cloche

from cloche.cli.terminal import Terminal
from cloche.cli.ticker import Ticker, ticking
from cloche.testing import FakeClock, toy_onnx


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(0.0)


@pytest.fixture
def ticker(clock: FakeClock) -> Ticker:
    return Ticker(io.StringIO(), clock)


def test_within_a_second_nothing_is_shown(ticker: Ticker, clock: FakeClock) -> None:
    ticker("converting")
    clock.now = 0.9
    assert ticker.line() == ""


def test_then_it_says_what_is_done_and_after_three_seconds_how_long(ticker: Ticker, clock: FakeClock) -> None:
    ticker("converting")
    clock.now = 1.5
    assert ticker.line() == "converting …"
    clock.now = 4.0
    assert ticker.line() == "converting … 4 s"
    ticker("measuring speed")
    assert ticker.line() == "measuring speed … 0 s"


def test_rows_are_counted_with_their_rate_and_what_is_left(ticker: Ticker, clock: FakeClock) -> None:
    ticker("running the rows", 0, 1000)
    clock.now = 5.0
    ticker("running the rows", 250, 1000)
    assert ticker.line() == "running the rows  ━━━─────────  250 of 1,000 rows  50 rows/s  15 s left"
    clock.now = 6.0
    assert ticker.line() == "running the rows  ━━━─────────  250 of 1,000 rows  50 rows/s  14 s left"


class Screen(io.StringIO):
    """A stream that tells when something was drawn on it."""

    encoding = "ascii"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.drawn = threading.Event()

    def flush(self) -> None:
        self.drawn.set()


def test_the_line_is_gone_when_the_work_is_over(clock: FakeClock) -> None:
    screen = Screen()
    with Ticker(screen, clock) as ticker:
        ticker("converting")
        clock.now = 2.0
        assert screen.drawn.wait(5)
    assert screen.getvalue() == "\r\x1b[Kconverting ?\r\x1b[K"


def test_piped_it_is_silent(cloche: Cloche, tmp_path: Path) -> None:
    toy_onnx(tmp_path / "toy.onnx")
    result = cloche("pack", "toy.onnx", "--name", "toy")
    assert result.code == 0
    assert result.err == "next  cloche up toy@champion\n"


@pytest.mark.parametrize("quiet", [{"json": True}, {"verbosity": -1}, {"environ": {"TERM": "dumb"}}])
def test_who_asks_for_quiet_gets_it_on_a_terminal_too(
    monkeypatch: pytest.MonkeyPatch, quiet: dict[str, object]
) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal, os.fdopen(leader):
        monkeypatch.setattr(sys, "stderr", terminal)
        asked: dict[str, object] = {"directory": Path(), "environ": {}} | quiet
        with ticking(Terminal(**asked)) as tell:  # type: ignore[arg-type]
            assert tell is None
        with ticking(Terminal(directory=Path(), environ={})) as tell:
            assert tell is not None
