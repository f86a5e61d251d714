"""Ctrl-C once stops long work where it is safe to go on later; twice, at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopping:
    """A Stopping is whether, and by which signal, the work was asked to stop."""

    def __init__(self, said: str) -> None:
        self.event = threading.Event()
        self.signal: int | None = None
        self._said = said

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop where it is safe; at the second time, at once."""
        if self.signal is None:
            self.signal = number
            self.event.set()
            os.write(2, self._said.encode())  # not through sys.stderr, which may be in use
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            sys.exit(128 + number)


@contextmanager
def stopping(said: str) -> Iterator[Stopping]:
    """Within it the first Ctrl-C or SIGTERM only asks, and writes what is `said` to stderr."""
    asked = Stopping(f"\n{said}\n" if said else "")
    before = {number: signal.signal(number, asked.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
