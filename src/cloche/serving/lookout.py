"""The lookout: after an answer the loop looks for the next request for a moment before it sleeps, where that pays.

To wake a core that sleeps costs a caller who asks one thing after another a quarter of the latency of a fast
model. Seastar's engine polls for the same reason (its `--idle-poll-time-us`, 200 µs at first).
"""

from __future__ import annotations

import asyncio
import time

#: So long after an answer the next request is looked for.
LOOK_S = 200e-6
#: After two looks in vain, so many answers go by until the next.
VAIN = 32


class Lookout:
    """A Lookout watches the answers of one event loop; `answered` is called at each, in the loop.

    It stops where a second answer falls into the same turn: with much to do, to sleep is to collect a batch.
    What it can waste is `LOOK_S` every `VAIN` answers.
    """

    __slots__ = ("_answers", "_loop", "_misses", "_skip", "_until", "is_looking")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.is_looking = False
        self._answers = 0  # in this turn of the loop
        self._until = 0.0
        self._misses = 0  # looks in vain since the last that paid
        self._skip = 0

    def answered(self, now: float) -> None:
        """An answer was written at `now`, a reading of time.monotonic."""
        if self.is_looking:
            self._answers += 1
            if self._answers == 1:
                self._misses = 0
                self._until = now + LOOK_S
            else:
                self._until = 0.0
        elif self._skip:
            self._skip -= 1
        else:
            self.is_looking = True
            self._answers = 1
            self._until = now + LOOK_S
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._answers = 0
        if time.monotonic() < self._until:
            self._loop.call_soon(self._look)  # a loop that has something to do does not sleep
        else:
            self.is_looking = False
            self._misses += 1
            self._skip = VAIN if self._misses > 1 else 0
