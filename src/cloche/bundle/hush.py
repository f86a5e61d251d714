"""What a class prints while it is packed: kept aside, and shown in its last lines when packing fails."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator

#: Bytes and lines that are shown of it.
_SHOWN_BYTES = 8_192
_SHOWN_LINES = 20


class _Tail(io.TextIOBase):
    """A stream that keeps the end of what is written."""

    def __init__(self) -> None:
        self.text = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text = (self.text + text)[-_SHOWN_BYTES:]
        return len(text)


@contextlib.contextmanager
def hush() -> Iterator[None]:
    """Keep what this process's Python prints aside; its last lines go to stderr when the block fails."""
    tail = _Tail()
    try:
        with contextlib.redirect_stdout(tail), contextlib.redirect_stderr(tail):
            yield
    except BaseException:
        _show(tail.text)
        raise


@contextlib.contextmanager
def kept_aside() -> Iterator[int]:
    """A file descriptor that takes a child's output; its last lines go to stderr when the block fails."""
    with tempfile.TemporaryFile(buffering=0) as file:
        try:
            yield file.fileno()
        except BaseException:
            # the child shares the position, so it is read without moving it
            size = os.fstat(file.fileno()).st_size
            _show(os.pread(file.fileno(), _SHOWN_BYTES, max(size - _SHOWN_BYTES, 0)).decode(errors="replace"))
            raise


def _show(text: str) -> None:
    lines = text.strip().splitlines()[-_SHOWN_LINES:]
    if lines:
        print("the class printed, at last:", *lines, sep="\n  ", file=sys.stderr)
