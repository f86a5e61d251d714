"""A set of numbers that all processes of a machine share, and that forgets: one small memory-mapped file."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from cloche.core.board import allocate

_CELLS = 4096
_BYTES = 8


class Marks:
    """A Marks remembers the last few thousand of the 64-bit numbers (but 0) that were added to it.

    Each stands where it falls by its value and drives out what stood there. Processes write without a lock: a cell
    is written in one store, and the worst that two at once can do is to forget one of theirs.
    """

    def __init__(self, path: Path) -> None:
        self._map = _mapped(path)
        self._cells = memoryview(self._map).cast("q")

    def has(self, mark: int) -> bool:
        return self._cells[mark % _CELLS] == mark

    def add(self, mark: int) -> None:
        self._cells[mark % _CELLS] = mark


def _mapped(path: Path) -> mmap.mmap:
    """The file; where there is no room for it, memory of this process alone."""
    size = _CELLS * _BYTES
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < size:
                allocate(descriptor, size)
            return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError:
        return mmap.mmap(-1, size)
