"""What keeps a bad request from taking every host down: a budget of retries, and a list of what killed hosts."""

from __future__ import annotations

import threading
from collections import OrderedDict

REFUSED_S = 600.0
_DEATHS = 2
_REMEMBERED = 1_024


class RetryBudget:
    """A RetryBudget grants one retry in ten calls, and a few to begin with that come back by themselves.

    The few are for the single failure in a quiet hour; the share keeps an outage from doubling its load.
    """

    def __init__(self, now: float, *, share: float = 0.1, floor: float = 3.0, cap: float = 100.0) -> None:
        self._share = share
        self._floor = floor
        self._cap = cap
        self._tokens = floor
        self._seen = now
        self._lock = threading.Lock()

    def call(self) -> None:
        """Count a call."""
        with self._lock:
            self._tokens = min(self._tokens + self._share, self._cap)

    def spend(self, now: float) -> bool:
        """Whether a retry may be made; it is then spent. Below the floor one comes back each second."""
        with self._lock:
            if self._tokens < self._floor:
                self._tokens = min(self._floor, self._tokens + now - self._seen)
            self._seen = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class Suspects:
    """A Suspects remembers which requests killed a host, by fingerprint, for ten minutes."""

    def __init__(self) -> None:
        self._deaths: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._deaths)

    def blame(self, fingerprint: bytes, now: float) -> int:
        """Count a death; how many the request has caused by now."""
        with self._lock:
            deaths = self._count(fingerprint, now) + 1
            self._deaths[fingerprint] = (deaths, now + REFUSED_S)
            self._deaths.move_to_end(fingerprint)
            while len(self._deaths) > _REMEMBERED:
                self._deaths.popitem(last=False)
            return deaths

    def forgive(self, fingerprint: bytes) -> None:
        """It was answered: the host had died of something else."""
        with self._lock:
            self._deaths.pop(fingerprint, None)

    def is_suspect(self, fingerprint: bytes, now: float) -> bool:
        with self._lock:
            return self._count(fingerprint, now) > 0

    def is_refused(self, fingerprint: bytes, now: float) -> bool:
        with self._lock:
            return self._count(fingerprint, now) >= _DEATHS

    def _count(self, fingerprint: bytes, now: float) -> int:
        deaths, until = self._deaths.get(fingerprint, (0, 0.0))
        if deaths and until <= now:
            del self._deaths[fingerprint]
            return 0
        return deaths
