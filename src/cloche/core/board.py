"""The board: one memory-mapped file per machine that all of its processes count in; standard library only.

The file is a row of fixed slots, one a process, each with one writer, holding int64 numbers and nothing else:
a head (see `Head`) and up to 4,096 series, each the 64-bit hash of its labels and a number. The labels of a
hash stand in an append-only file beside it. A dead process's slot keeps its counters: the next process that
takes the slot resets the head only and counts on, so that no sum goes backwards. The last number of the file says
when it was made, and so tells it from every other board.

An aligned int64 is written by one store on the processors we run on, so a reader never sees half a number.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import threading
import time
from collections.abc import Iterator, Mapping
from enum import IntEnum
from pathlib import Path

SLOTS = 64
SERIES = 4096
_HEAD = 32
_SLOT = _HEAD + 2 * SERIES
_BYTES = 8
_MADE = SLOTS * _SLOT
#: Deaths of processes by the hash of the version that they ran or loaded.
BLAMED = "cloche_blamed_deaths_total"
#: Processes whose heartbeat is older than this are not counted as live.
LIVE_S = 5.0


class Head(IntEnum):
    """The numbers at the head of a slot."""

    PID = 0
    START = 1  # tells the process from a later one with its id
    ROLE = 2
    STATE = 3
    HEARTBEAT_NS = 4  # time.monotonic_ns(), written each second by a side thread
    REVISION = 5
    EXECUTING = 6  # hash of the version that is being executed, 0 when none
    IN_FLIGHT = 7
    CONNECTIONS = 8
    DROPPED = 9  # increments that found no room for their series
    LOADING = 10  # hash of the version that is being loaded, 0 when none
    TRIPPED = 11  # number of the last rollout whose candidate this process took its requests off
    LOOP_NS = 12  # of a processor that a worker's event loop has had, written each second
    DESIRED = 13  # how many workers the controller wants


class Role(IntEnum):
    """What a process is for."""

    NONE = 0
    SUPERVISOR = 1
    WORKER = 2
    HOST = 3
    CONTROLLER = 4


class State(IntEnum):
    """Where a process is in its life."""

    STARTING = 0
    READY = 1
    DRAINING = 2


class Board:
    """A Board is the whole file, for readers; `slot` gives a process its own part to write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.labels_path = path.with_suffix(".labels")
        size = (SLOTS * _SLOT + 1) * _BYTES
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            is_new = os.fstat(descriptor).st_size < size
            if is_new:
                allocate(descriptor, size)
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self.cells = memoryview(self._map).cast("q")
        if is_new:
            self.cells[_MADE] = time.time_ns()
        self._labels: dict[int, dict[str, str]] = {}
        self._labels_read = 0

    @property
    def made(self) -> int:
        """What tells this board from the ones before and after it."""
        return self.cells[_MADE]

    def head(self, slot: int, item: Head) -> int:
        return self.cells[slot * _SLOT + item]

    def heads(self, role: Role) -> list[int]:
        """The slots that processes of this role hold, dead or alive."""
        return [slot for slot in range(SLOTS) if self.head(slot, Head.ROLE) == role]

    def is_beating(self, slot: int) -> bool:
        """Whether the slot's process wrote its heartbeat within the last five seconds."""
        return time.monotonic_ns() - self.head(slot, Head.HEARTBEAT_NS) < LIVE_S * 1e9

    def claim(self, slot: int, role: Role, pid: int, start: int) -> Slot:
        """This process's own slot: the head is reset, what was counted there stays."""
        base = slot * _SLOT
        for item in range(_HEAD):
            self.cells[base + item] = 0
        self.cells[base + Head.HEARTBEAT_NS] = time.monotonic_ns()
        self.cells[base + Head.PID] = pid
        self.cells[base + Head.START] = start
        self.cells[base + Head.ROLE] = role
        return Slot(self, slot)

    def release(self, slot: int) -> None:
        """Take a dead process's name off its slot; its counters stay."""
        for item in range(_HEAD):
            self.cells[slot * _SLOT + item] = 0

    def sums(self) -> dict[int, int]:
        """Each series, summed over all slots, dead or alive."""
        total: dict[int, int] = {}
        cells = self.cells
        for base in range(_HEAD, SLOTS * _SLOT, _SLOT):
            for at in range(base, base + 2 * SERIES, 2):
                series = cells[at]
                if series == 0:
                    break
                total[series] = total.get(series, 0) + cells[at + 1]
        return total

    def series_from(self, slot: int, number: int) -> list[tuple[int, int]]:
        """The series of a slot from the one of this number on, each with its place in `cells`."""
        found: list[tuple[int, int]] = []
        base = slot * _SLOT + _HEAD
        for at in range(base + 2 * number, base + 2 * SERIES, 2):
            if self.cells[at] == 0:
                break
            found.append((self.cells[at], at + 1))
        return found

    def labelled(self) -> Iterator[tuple[dict[str, str], int]]:
        """Each series with its labels (`name` among them) and its sum."""
        return ((labels, value) for _, labels, value in self.described())

    def described(self) -> Iterator[tuple[int, dict[str, str], int]]:
        """Each series with its hash, its labels and its sum."""
        sums = self.sums()
        if any(series not in self._labels for series in sums):
            self._read_labels()
        for series, value in sums.items():
            labels = self._labels.get(series)
            if labels is not None:
                yield series, labels, value

    def _read_labels(self) -> None:
        if not self.labels_path.exists():
            return
        with self.labels_path.open("rb") as file:
            file.seek(self._labels_read)
            text = file.read()
        whole = text.rpartition(b"\n")[0]
        self._labels_read += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):  # torn by a full disk
                labels = json.loads(line)
                self._labels[series_hash(labels)] = labels


class Slot:
    """A Slot is the part of the board that one process writes.

    `series` gives the place of a number in `cells`, to any thread; counting is `cells[place] += n`, from one
    thread at a time.
    """

    def __init__(self, board: Board, number: int) -> None:
        self.board = board
        self.number = number
        self.cells = board.cells
        self._base = number * _SLOT
        self._next = self._base + _HEAD
        self._end = self._base + _SLOT
        self._places: dict[int, int] = {}
        self._making = threading.Lock()
        while self._next < self._end and self.cells[self._next] != 0:
            self._places[self.cells[self._next]] = self._next + 1
            self._next += 2

    def set(self, item: Head, value: int) -> None:
        self.cells[self._base + item] = value

    def get(self, item: Head) -> int:
        return self.cells[self._base + item]

    def place(self, item: Head) -> int:
        """Where in `cells` a number of the head stands, for the hot path."""
        return self._base + item

    def beat(self) -> None:
        self.cells[self._base + Head.HEARTBEAT_NS] = time.monotonic_ns()

    def series(self, **labels: str) -> int:
        """The place in `cells` of the series with these labels, made at first use.

        A full slot, or a full disk, gives the place of `Head.DROPPED`, so that what finds no room is counted
        at least.
        """
        key = series_hash(labels)
        place = self._places.get(key)
        if place is not None:
            return place
        with self._making:
            return self._places.get(key) or self._make(key, labels)

    def _make(self, key: int, labels: Mapping[str, str]) -> int:
        if self._next >= self._end:
            return self._base + Head.DROPPED
        # labels first, then hash: whoever reads the hash can find its labels
        if not self._describe(labels):
            return self._base + Head.DROPPED
        self.cells[self._next] = key
        place = self._next + 1
        self._places[key] = place
        self._next += 2
        return place

    def _describe(self, labels: Mapping[str, str]) -> bool:
        # a line that a full disk has torn ends at the next one's beginning
        line = b"\n" + json.dumps(labels, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            descriptor = os.open(self.board.labels_path, flags, 0o600)
        except OSError:
            return False
        try:
            return os.write(descriptor, line) == len(line)
        except OSError:
            return False
        finally:
            os.close(descriptor)


def board_before(path: Path) -> Path:
    """Where the board lies that this one followed, until what was counted there is carried to the store."""
    return path.with_name(f"{path.name}-before")


def set_aside(path: Path) -> None:
    """Make room for a new board; one that nobody has carried since is kept, and this one is not."""
    before = board_before(path)
    if before.exists():
        discard(path)
        return
    # labels first: a board that is there has them
    with contextlib.suppress(FileNotFoundError):
        path.with_suffix(".labels").rename(before.with_suffix(".labels"))
    path.rename(before)


def discard(path: Path) -> None:
    """Remove a board that nobody counts on any more."""
    path.unlink()
    path.with_suffix(".labels").unlink(missing_ok=True)


def allocate(descriptor: int, size: int) -> None:
    """Make the file so long, with room on the disk: a process that touches a hole in a full one is killed."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def series_hash(labels: Mapping[str, str]) -> int:
    """The 64-bit hash that stands for labels; never 0."""
    text = json.dumps(dict(labels), sort_keys=True, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big", signed=True) or 1
