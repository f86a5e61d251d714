"""The supervisor's words on stderr: one JSON object a line, on a terminal one plain line; never waits."""

from __future__ import annotations

import contextlib
import json
import os
import select
import time

from cloche.core.paint import paint, paint_error

STDOUT, STDERR = 1, 2
_CHUNK = 512  # POSIX's least PIPE_BUF: a pipe that select calls writable takes it without waiting


def emit(descriptor: int, text: str, wait_s: float = 0.0) -> bool:
    """Write text unless its reader is gone or does not read: then False, and the rest is dropped."""
    left = text.encode()
    with contextlib.suppress(OSError):
        while left:
            if not select.select([], [descriptor], [], wait_s)[1]:
                return False
            left = left[os.write(descriptor, left[:_CHUNK]) :]
        return True
    return False


class Log:
    """A Log is where the supervisor says what happens; `colour` is for people who asked for no other."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def say(self, action: str, sentence: str, *, level: str = "info", **fields: object) -> None:
        """Log one thing that happened; `action` is its name for machines."""
        if os.isatty(STDERR):
            emit(STDERR, f"{paint(sentence, level) if self._colour else sentence}\n")
            return
        now = time.time()
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}+00:00"
        # the form of `monitoring.log`, which this process does not import
        line = {
            "time": stamp,
            "level": level,
            "logger": "cloche.supervisor",
            "message": sentence,
            "action": action,
        }
        emit(STDERR, json.dumps({**line, **fields}, separators=(",", ":")) + "\n")

    def complain(self, text: str, wait_s: float = 0.0) -> None:
        """Write an error that ends this process, in the colour that the command line gives it."""
        emit(STDERR, f"{paint_error(text) if self._colour else text}\n", wait_s=wait_s)
