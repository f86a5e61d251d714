"""Logs: JSON lines, at a terminal sentences, written by a side thread: a slow reader never holds up an answer."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import queue
import re
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from cloche.core.paint import paint

#: Lines that wait for a slow reader; more are dropped and counted.
MOST_WAITING = 10_000
#: What a reader has at the end, twice, to take what still waits.
PATIENCE_S = 2.0
_LONGEST = 8_000
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: A whole API key, wherever it came from; what stays tells whose it was.
_SECRET = re.compile(r"(clk_(?:live|test)_[0-9a-z]{10})_[0-9A-Za-z]{43}_[0-9a-f]{8}")
#: What a sentence tells of the fields of a record, and in what words.
_TOLD = {"request_id": "request", "code": "code"}
_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonFormatter(logging.Formatter):
    """A JsonFormatter writes time, level, logger, message, what came as `extra`, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_LONGEST],
        }
        line.update({name: _capped(value) for name, value in vars(record).items() if name not in _STANDARD})
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = self.formatException(record.exc_info)[-_LONGEST:]
        try:
            text = _encode(line).decode()
        except (UnicodeEncodeError, OverflowError, ValueError):  # half a surrogate pair from a file name
            text = json.dumps(line, default=str)
        return _SECRET.sub(r"\1_…", text)


class SentenceFormatter(logging.Formatter):
    """A SentenceFormatter writes one line for people: who, what, of which request; a traceback below it."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        name, found = record.name.removeprefix("cloche."), vars(record)
        about = ", ".join(f"{word} {found[key]}" for key, word in _TOLD.items() if found.get(key))
        text = _printable(f"{name} (process {record.process}): {record.getMessage()}"[:_LONGEST])
        if about:
            text += _printable(f" ({about})")
        text = paint(text, record.levelname.lower()) if self._colour else text
        if record.exc_info and record.exc_info[0] is not None:
            lines = self.formatException(record.exc_info)[-_LONGEST:].splitlines()
            text = "\n".join([text, *(f"  {_printable(line)}" for line in lines)])
        return _SECRET.sub(r"\1_…", text)


def _printable(text: str) -> str:
    """On one line and without what a terminal would obey."""
    return "".join(each if each.isprintable() else " " for each in text)


def _capped(value: Any) -> Any:
    return value[:_LONGEST] if isinstance(value, str) else value


class _Dropping(logging.handlers.QueueHandler):
    """Puts records on the queue as they are; a full queue drops and counts."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        self.dropped += 1


class Writer(logging.handlers.QueueListener):
    """A Writer is the side thread; `stop` gives a reader that does not read a few seconds and no more."""

    def stop(self) -> None:
        thread = self._thread
        if thread is None:
            return
        with contextlib.suppress(queue.Full):
            self.queue.put(self._sentinel, timeout=PATIENCE_S)  # type: ignore[attr-defined]
        thread.join(PATIENCE_S)
        self._thread = None


def start(stream: TextIO, level: int = logging.INFO, *, colour: bool = False) -> Writer:
    """Send the whole process's log to `stream`, in sentences where that is a terminal (in colour, if so wished).

    `stop()` of what comes back writes what still waits.
    """
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(MOST_WAITING)
    writer = logging.StreamHandler(stream)
    if stream.isatty():
        writer.setFormatter(SentenceFormatter(colour=colour))
    else:
        writer.setFormatter(JsonFormatter())
    listener = Writer(waiting, writer)
    root = logging.getLogger()
    root.handlers[:] = [_Dropping(waiting)]
    root.setLevel(level)
    listener.start()
    return listener
