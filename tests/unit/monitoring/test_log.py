"""Log lines are JSON, one a line, and a slow reader never holds up who writes."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cloche.core.keys import mint_key
from cloche.monitoring import log


@pytest.fixture(autouse=True)
def _root_logger_is_put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def line(message: str, *args: Any, exc_info: Any = None, **extra: Any) -> dict[str, Any]:
    record = logging.LogRecord("cloche.test", logging.WARNING, __file__, 1, message, args, exc_info)
    vars(record).update(extra)
    text = log.JsonFormatter().format(record)
    assert "\n" not in text
    return json.loads(text)  # type: ignore[no-any-return]


def test_a_line_says_when_who_what_and_what_came_as_extra() -> None:
    made = line("draining %d", 3, action="draining", connections=3)
    assert made.pop("time").endswith("+00:00")
    assert made == {
        "level": "warning",
        "logger": "cloche.test",
        "message": "draining 3",
        "action": "draining",
        "connections": 3,
    }


def test_a_traceback_is_one_field() -> None:
    try:
        raise ValueError("broken\nin two")
    except ValueError as error:
        made = line("a bug", exc_info=(type(error), error, error.__traceback__))
    assert "ValueError: broken\nin two" in made["traceback"]


@pytest.mark.parametrize(
    "odd", ["two\nlines", "\x1b[31mred", "half \ud800 a pair", object(), 2**70, float("nan"), b"bytes", {1: {2}}]
)
def test_whatever_is_logged_is_still_a_line(odd: Any) -> None:
    made = line("%s", odd, value=odd)
    assert made["level"] == "warning"
    assert "value" in made


def test_fields_have_a_length() -> None:
    made = line("x" * 20_000, value="y" * 20_000)
    assert (len(made["message"]), len(made["value"])) == (8_000, 8_000)


def test_a_key_never_stands_in_the_log() -> None:
    key = mint_key("someone", created=0.0)
    made = line("said %s", key.text, header=f"Bearer {key.text}")
    assert key.text not in str(made)
    assert made["message"] == f"said clk_live_{key.record.id}_…"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said_on_a_terminal(*, colour: bool) -> str:
    terminal = Terminal()
    listener = log.start(terminal, colour=colour)
    try:
        logger = logging.getLogger("cloche.worker")
        logger.info("draining %d", 3, extra={"action": "draining"})
        logger.warning("two\nlines \x1b[31mred", extra={"request_id": "r1", "code": "CL-E900"})
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("a bug")
    finally:
        listener.stop()
    return terminal.getvalue()


def test_a_terminal_gets_sentences_and_below_them_a_traceback() -> None:
    lines = said_on_a_terminal(colour=False).splitlines()
    who = f"worker (process {os.getpid()})"
    assert lines[:3] == [
        f"{who}: draining 3",
        f"{who}: two lines  [31mred (request r1, code CL-E900)",
        f"{who}: a bug",
    ]
    assert lines[-1] == "  ValueError: broken"


def test_what_went_wrong_is_coloured_where_that_is_wished() -> None:
    lines = said_on_a_terminal(colour=True).splitlines()
    assert "\x1b" not in lines[0]
    assert lines[1].startswith("\x1b[33m")
    assert lines[2].startswith("\x1b[1;31m")


def test_lines_come_out_in_order_and_stop_writes_what_waits() -> None:
    stream = io.StringIO()
    listener = log.start(stream)
    for number in range(100):
        logging.getLogger("cloche.test").info("line %d", number)
    logging.getLogger("cloche.test").debug("not this one")
    listener.stop()
    written = [json.loads(text)["message"] for text in stream.getvalue().splitlines()]
    assert written == [f"line {number}" for number in range(100)]


def test_a_reader_that_does_not_read_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MOST_WAITING", 10)
    go = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            go.wait(10)
            return super().write(text)

    stream = Stuck()
    listener = log.start(stream)
    handler = logging.getLogger().handlers[0]
    for number in range(100):
        logging.getLogger("cloche.test").info("line %d", number)
    monkeypatch.setattr(log, "PATIENCE_S", 0.01)
    thread = listener._thread
    assert thread is not None
    listener.stop()  # comes back although nothing was read
    go.set()
    while handler.queue.qsize():  # type: ignore[attr-defined]
        thread.join(0.01)
    handler.queue.put(listener._sentinel)  # type: ignore[attr-defined]
    thread.join(10)
    written = len(stream.getvalue().splitlines())
    assert 10 <= written <= 12
    assert written + handler.dropped == 100  # type: ignore[attr-defined]
