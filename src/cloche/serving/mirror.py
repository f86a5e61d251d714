"""A shadow: the candidate answers copies of some requests, for nobody, and both answers are compared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from cloche.core.errors import ClocheError
from cloche.core.ids import PredictionIds
from cloche.core.routing import choose
from cloche.core.signature import Columns
from cloche.engine.batcher import Batcher
from cloche.engine.engine import Prepared
from cloche.engine.queue import Answer as Outcome
from cloche.rollout.shadow import Tally, add, compare
from cloche.serving.split import NOBODY, Arm

#: Of one core the candidate takes no more than this share.
_MOST_OF_A_CORE = 0.2


class Mirror(Arm):
    """A Mirror hands a share of the requests to a candidate once they are answered.

    What the candidate can't take without using more than a fifth of a core is left out. `tally` is what was found.
    """

    __slots__ = (
        "_deadline_s",
        "_engine_batcher",
        "_free_at",
        "_ids",
        "_loop",
        "_salt",
        "_sticky",
        "tally",
        "weight",
    )

    def __init__(
        self, candidate: Batcher, *, rollout: int, deadline_s: float, sticky: bytes | None = None
    ) -> None:
        self.weight = 0
        self.tally = Tally()
        self._engine_batcher = candidate
        self._loop = candidate.loop
        self._deadline_s = deadline_s
        self._salt = rollout.to_bytes(8, "big")
        self._sticky = sticky
        self._ids = PredictionIds()
        self._free_at = 0.0

    def takes(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request with these headers is mirrored."""
        if self.weight == 0:
            return False
        key = headers.get(self._sticky) if self._sticky is not None else None
        key = key or headers.get(b"x-request-id") or self._ids.next().encode()
        return choose(key, self._salt, self.weight)

    def count(self, status: int, seconds: float, headers: Mapping[bytes, bytes] = NOBODY) -> None:
        """Nobody's answer is the candidate's."""

    def answered(self, prepared: Prepared | None, outcome: Outcome) -> None:
        if prepared is None or outcome[1] < 0:  # out of the cache
            return
        if asyncio._get_running_loop() is self._loop:
            self._copy(prepared, outcome)
        else:  # the answer to a large body is made on a side thread
            self._loop.call_soon_threadsafe(self._copy, prepared, outcome)

    def _copy(self, prepared: Prepared, outcome: Outcome) -> None:
        now = time.monotonic()
        if now < self._free_at:
            self.tally = add([self.tally, Tally(dropped=1)])
            return
        batcher = self._engine_batcher
        try:
            copy = batcher.engine.prepare(self._widened(prepared))
            self._free_at = now + batcher.cost.seconds(copy.rows) / _MOST_OF_A_CORE
            batcher.put(copy, now + self._deadline_s, now, Pair(self._found, prepared.columns, outcome))
        except ClocheError:
            self.tally = add([self.tally, Tally(failed=1)])

    def _widened(self, prepared: Prepared) -> Columns:
        """The columns with nulls for what the candidate has besides, as if the caller had left them out."""
        new = [one for one in self._engine_batcher.engine.signature.inputs if one.name not in prepared.columns]
        if not new:
            return prepared.columns
        return {**prepared.columns, **{one.name: one.nulls(prepared.rows) for one in new if one.takes_null}}

    def _found(self, tally: Tally) -> None:
        self.tally = add([self.tally, tally])


class Pair:
    """A Pair waits for the candidate's answer beside the stable one's; it is the Batcher's Receiver."""

    def __init__(self, found: Callable[[Tally], None], inputs: Columns, stable: Outcome) -> None:
        self._found = found
        self._inputs = inputs
        self._stable = stable
        self._is_done = False
        self._then: Callable[..., object] | None = None

    def done(self) -> bool:
        return self._is_done

    def add_done_callback(self, callback: Callable[..., object], /) -> None:
        self._then = callback

    def set_result(self, result: Outcome, /) -> None:
        outputs, _, seconds = self._stable
        try:
            tally = compare(self._inputs, outputs, result[0], (seconds, result[2]))
        except (KeyError, ValueError):  # other outputs than the stable version's: a break that was let through
            tally = Tally(failed=1)
        self._end(tally)

    def set_exception(self, exception: ClocheError, /) -> None:
        self._end(Tally(failed=1))

    def _end(self, tally: Tally) -> None:
        self._is_done = True
        self._found(tally)
        if self._then is not None:
            self._then(self)
