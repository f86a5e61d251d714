"""Rate limits that hold over all workers of a machine: each counts in its slot of the board, a request sums."""

from __future__ import annotations

import time
from collections.abc import Callable

from cloche.core.board import Board, Role, Slot, series_hash
from cloche.core.units import Rate

_COUNT_BITS = 32
_COUNT_MASK = (1 << _COUNT_BITS) - 1
#: How often the other workers are looked for anew.
_LOOK_S = 0.5


class _Meter:
    """A meter is one key's count: two places a slot, for even and odd windows.

    A place holds the window's number and its count in one int64, so that it is read and written whole.
    """

    __slots__ = ("hashes", "looked", "others", "own")

    def __init__(self, slot: Slot, key: str) -> None:
        labels = [{"name": "limit", "key": key, "window": str(parity)} for parity in (0, 1)]
        self.hashes = [series_hash(one) for one in labels]
        self.own = [slot.series(**one) for one in labels]
        self.others: tuple[list[int], list[int]] = ([], [])
        self.looked = -1.0


class RateLimiter:
    """A RateLimiter lets a key through `rate.count` times in a sliding window of `rate.window_s` seconds.

    Fixed windows, the one before weighted by what is left of it. Over n workers at most n - 1 requests more
    get through at a boundary.
    """

    def __init__(self, board: Board, slot: Slot, clock: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._slot = slot
        self._clock = clock
        self._cells = board.cells
        self._meters: dict[str, _Meter] = {}

    def take(self, key: str, rate: Rate) -> float:
        """Count one request of `key`; 0.0 when it may pass, else the seconds until one may."""
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = _Meter(self._slot, key)
        now = self._clock()
        if now - meter.looked > _LOOK_S:
            self._look(meter, now)
        window, spent = divmod(now, rate.window_s)
        number = int(window)
        parity = number & 1
        current = self._sum(meter, parity, number)
        before = self._sum(meter, 1 - parity, number - 1)
        left = 1.0 - spent / rate.window_s
        if current + before * left + 1.0 > rate.count:
            return self._wait(rate, current, before, spent)
        place = meter.own[parity]
        value = self._cells[place]
        fresh = value >> _COUNT_BITS != number
        self._cells[place] = (number << _COUNT_BITS) + 1 if fresh else value + 1
        return 0.0

    def _sum(self, meter: _Meter, parity: int, number: int) -> int:
        cells = self._cells
        total = 0
        for place in (meter.own[parity], *meter.others[parity]):
            value = cells[place]
            if value >> _COUNT_BITS == number:
                total += value & _COUNT_MASK
        return total

    def _wait(self, rate: Rate, current: int, before: int, spent: float) -> float:
        """Seconds until one request fits, if nobody else asks."""
        if before > 0 and current + 1 <= rate.count:
            weight = (rate.count - 1 - current) / before
            return max(0.001, rate.window_s * (1.0 - weight) - spent)
        return rate.window_s - spent + rate.window_s * (1.0 - (rate.count - 1) / max(current, 1))

    def _look(self, meter: _Meter, now: float) -> None:
        """Find the places of this key in the other workers' slots; a dead one's window still counts."""
        meter.looked = now
        slots = [slot for slot in self._board.heads(Role.WORKER) if slot != self._slot.number]
        for parity in (0, 1):
            found = (self._board.find(slot, meter.hashes[parity]) for slot in slots)
            meter.others[parity][:] = [place for place in found if place is not None]
