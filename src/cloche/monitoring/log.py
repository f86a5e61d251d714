"""Logs: one JSON object a line, written by a side thread so that a slow reader never holds up an answer."""

from __future__ import annotations

import logging
import logging.handlers
import queue
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

#: Lines that wait for a slow reader; more are dropped and counted.
MOST_WAITING = 10_000
_LONGEST = 8_000
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
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
        line.update({name: value for name, value in vars(record).items() if name not in _STANDARD})
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = self.formatException(record.exc_info)[-_LONGEST:]
        return _encode(line).decode()


class _Dropping(logging.handlers.QueueHandler):
    """Puts records on the queue as they are; a full queue drops and counts."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        self.dropped += 1


def start(stream: TextIO, level: int = logging.INFO) -> logging.handlers.QueueListener:
    """Send the whole process's log to `stream`; `stop()` of what comes back writes what still waits."""
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(MOST_WAITING)
    writer = logging.StreamHandler(stream)
    writer.setFormatter(JsonFormatter())
    listener = logging.handlers.QueueListener(waiting, writer)
    root = logging.getLogger()
    root.handlers[:] = [_Dropping(waiting)]
    root.setLevel(level)
    listener.start()
    return listener
