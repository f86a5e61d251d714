"""Rate limits that hold over all workers of a machine: each counts in its slot of the board, a request sums."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, MutableSequence

from cloche.core.board import Board, Role, Slot, series_hash
from cloche.core.units import Rate

_COUNT_BITS = 32
_COUNT_MASK = (1 << _COUNT_BITS) - 1
#: How often other workers are looked for; what they count is seen at once.
_LOOK_S = 0.5


class _Meter:
    """A meter is one key's count: two places a slot, for even and odd windows.

    A place holds the window's number and its count in one int64, so that it is read and written whole.
    `places` are those in the other workers' slots. In a slot that is full the count is this worker's alone.
    """

    __slots__ = ("cells", "own", "places")

    def __init__(self, slot: Slot, of: str, key: str, found: dict[int, list[int]]) -> None:
        labels = [{"name": "limit", "of": of, "key": key, "window": str(parity)} for parity in (0, 1)]
        self.cells: MutableSequence[int] | memoryview[int] = slot.cells
        self.own = [slot.series(**one) for one in labels]
        if self.own[0] == self.own[1]:  # the place of what finds no room
            self.cells, self.own = [0, 0], [0, 1]
        self.places = [found.setdefault(series_hash(one), []) for one in labels]


class RateLimiter:
    """A RateLimiter lets a key through `rate.count` times in a sliding window of `rate.window_s` seconds.

    `of` is what is limited, a deployment: each counts for itself.

    Fixed windows, the one before weighted by what is left of it, to the nearest whole request. Over n workers
    at most n - 1 requests more get through at a boundary.
    """

    def __init__(self, board: Board, slot: Slot, of: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._slot = slot
        self._of = of
        self._clock = clock
        self._cells = board.cells
        self._meters: dict[str, _Meter] = {}
        #: Where the other workers' series stand, by hash; and in which slots they are looked for, up to where.
        self._found: dict[int, list[int]] = {}
        self._read: dict[int, int] = {}
        self._looked = -math.inf

    def take(self, key: str, rate: Rate) -> float:
        """Count one request of `key`; 0.0 when it may pass, else the seconds until one may."""
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = _Meter(self._slot, self._of, key, self._found)
        now = self._clock()
        self._look(now)
        window, spent = divmod(now, rate.window_s)
        number = int(window)
        parity = number & 1
        current = self._sum(meter, parity, number)
        before = self._sum(meter, 1 - parity, number - 1)
        left = 1.0 - spent / rate.window_s
        if current + before * left + 0.5 > rate.count:
            return self._wait(rate, current, before, spent)
        place = meter.own[parity]
        value = meter.cells[place]
        fresh = value >> _COUNT_BITS != number
        meter.cells[place] = (number << _COUNT_BITS) + 1 if fresh else value + 1
        return 0.0

    def _sum(self, meter: _Meter, parity: int, number: int) -> int:
        cells = self._cells
        value = meter.cells[meter.own[parity]]
        total = value & _COUNT_MASK if value >> _COUNT_BITS == number else 0
        for place in meter.places[parity]:
            value = cells[place]
            if value >> _COUNT_BITS == number:
                total += value & _COUNT_MASK
        return total

    def _wait(self, rate: Rate, current: int, before: int, spent: float) -> float:
        """Seconds until one request fits, if nobody else asks."""
        if current < rate.count:  # then it is what is left of the window before that is too much
            weight = (rate.count - 0.5 - current) / before
            return max(0.001, rate.window_s * (1.0 - weight) - spent)
        return rate.window_s - spent + rate.window_s * (1.0 - (rate.count - 0.5) / current)

    def _look(self, now: float) -> None:
        """Find what the other workers began to count since the last look; a dead one's window still counts."""
        if now - self._looked > _LOOK_S:
            self._looked = now
            for number in self._board.heads(Role.WORKER):
                if number != self._slot.number:
                    self._read.setdefault(number, 0)
        for number, at in self._read.items():
            fresh = self._board.series_from(number, at)
            if fresh:
                self._read[number] = at + len(fresh)
                for series, place in fresh:
                    self._found.setdefault(series, []).append(place)
