"""Shows on a terminal what lasts: nothing for a second, then what is done, then how far it is and how fast."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from cloche.cli.terminal import Terminal
from cloche.core.units import format_size

_SHOWN_AFTER_S = 1.0
_COUNTED_AFTER_S = 3.0
_TICK_S = 0.2
_WIDTH = 12


class Ticker:
    """A Ticker is one line about what is done now, redrawn while it lasts and gone when it is over."""

    def __init__(
        self, stream: TextIO, clock: Callable[[], float] = time.monotonic, *, in_bytes: bool = False
    ) -> None:
        self._stream = stream
        self._in_bytes = in_bytes
        self._clock = clock
        self._began = clock()
        #: What, since when, when it was last heard of, rows (or bytes) done, and in all; replaced as one, since a
        #: thread of its own draws it.
        self._step = ("", self._began, self._began, 0, 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="ticker", daemon=True)

    def __call__(self, what: str, done: int = 0, total: int = 0, /) -> None:
        """Say what is done next, or how many rows or bytes of it are done."""
        name, since, *_ = self._step
        now = self._clock()
        self._step = (what, since if what == name else now, now, done, total)

    def line(self) -> str:
        """What the terminal shows now."""
        now = self._clock()
        what, since, heard, done, total = self._step
        if now - self._began < _SHOWN_AFTER_S or not what:
            return ""
        if now - self._began < _COUNTED_AFTER_S:
            return f"{what} …"
        if not done or done >= total:
            return f"{what} … {now - since:.0f} s"
        rate = done / max(heard - since, 1e-9)
        left = max((total - done) / rate - (now - heard), 0)
        full = _WIDTH * done // total
        bar = f"{'━' * full}{'─' * (_WIDTH - full)}"
        counts = f"{done:,} of {total:,} rows  {rate:,.0f} rows/s"
        if self._in_bytes:
            counts = f"{format_size(done)} of {format_size(total)}  {format_size(int(rate))}/s"
        return f"{what}  {bar}  {counts}  {left:.0f} s left"

    def _draw(self) -> None:
        shown = ""
        while not self._over.wait(_TICK_S):
            if (line := self.line()) != shown:
                self._write(line[: shutil.get_terminal_size().columns - 1])
                shown = line
        if shown:
            self._write("")

    def _write(self, line: str) -> None:
        encoding = self._stream.encoding or "ascii"
        self._stream.write(f"\r\x1b[K{line}".encode(encoding, "replace").decode(encoding))
        self._stream.flush()

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def ticking(terminal: Terminal, *, in_bytes: bool = False) -> Iterator[Ticker | None]:
    """What hears of the steps of long work; None, and silence, where no person looks at a terminal."""
    can_redraw = sys.stderr.isatty() and terminal.environ.get("TERM") != "dumb"
    if terminal.json or terminal.verbosity < 0 or not can_redraw:
        yield None
        return
    with Ticker(sys.stderr, in_bytes=in_bytes) as ticker:
        yield ticker
