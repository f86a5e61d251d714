"""What all processes of a machine know of callers, in small memory-mapped files that do not grow."""

from __future__ import annotations

import mmap
import os
from hashlib import blake2b
from pathlib import Path

from cloche.core.board import allocate

_CELLS = 4096
_CLAIMS = 32_768
_BYTES = 8


class Marks:
    """A Marks remembers the last few thousand of the 64-bit numbers (but 0) that were added to it.

    Each stands where it falls by its value and drives out what stood there. Processes write without a lock: a cell
    is written in one store, and the worst that two at once can do is to forget one of theirs.
    """

    def __init__(self, path: Path) -> None:
        self._map = _mapped(path, _CELLS)
        self._cells = memoryview(self._map).cast("q")

    def has(self, mark: int) -> bool:
        return self._cells[mark % _CELLS] == mark

    def add(self, mark: int) -> None:
        self._cells[mark % _CELLS] = mark


class Claims:
    """A Claims picks some thousands of the keys of one trial, each once: of those that fall together the first.

    Whom it picks has nothing to do with where else a key is dealt to by its hash.
    """

    def __init__(self, path: Path, trial: int) -> None:
        self._map = _mapped(path, _CLAIMS)
        self._cells = memoryview(self._map).cast("q")
        self._trial = trial
        self._salt = trial.to_bytes(8, "big")

    def claim(self, key: bytes) -> bool:
        """Whether the key is picked by this."""
        digest = blake2b(key, digest_size=8, salt=self._salt, person=b"claims").digest()
        place = int.from_bytes(digest, "big") % _CLAIMS
        if self._cells[place] == self._trial:
            return False
        self._cells[place] = self._trial
        return True


def _mapped(path: Path, cells: int) -> mmap.mmap:
    """The file; where there is no room for it, memory of this process alone."""
    size = cells * _BYTES
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
