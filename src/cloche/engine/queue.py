"""Who waits for the model, and which of them the next batch is made of: a pure function."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeAlias

import msgspec

from cloche.core.errors import ClocheError
from cloche.core.signature import Columns
from cloche.engine.cost import CostLine
from cloche.engine.engine import Prepared

#: Of the time that is left to a batch so much is planned with; the rest is for what takes longer than usual.
_USED = 0.9
#: The outcome of one request: its outputs, its seconds in the queue, the seconds of the batch it ran in.
Answer: TypeAlias = tuple[Columns, float, float]


class Receiver(Protocol):
    """A Receiver hears what became of a request, in the event loop: a future, or what needs no turn of the loop
    between hearing and answering."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, result: Answer, /) -> None: ...
    def set_exception(self, exception: ClocheError, /) -> None: ...
    def add_done_callback(self, callback: Callable[..., object], /) -> None: ...


class Waiting(msgspec.Struct, gc=False):
    """Waiting is one request in the queue; `followers` asked for the same rows while it was in flight."""

    prepared: Prepared
    since: float
    deadline: float
    receiver: Receiver
    followers: list[Receiver] | None = None
    #: Its turn comes although the cost line says that it can't make it: see Batcher._is_probe.
    is_probe: bool = False
    #: A timer ends it at its deadline.
    is_timed: bool = False

    def is_wanted(self) -> bool:
        """Whether anyone still waits for the answer."""
        return not self.receiver.done() or any(not one.done() for one in self.followers or ())


class Plan(msgspec.Struct, frozen=True):
    """A Plan says what becomes of those who wait: the batch to run (in the event loop or not), who is too
    late, who can't make it, and whom nobody waits for any more."""

    run: list[Waiting]
    expired: list[Waiting]
    shed: list[Waiting]
    abandoned: list[Waiting]
    inline: bool = False

    def rows(self) -> int:
        return sum(
            one.prepared.rows for part in (self.run, self.expired, self.shed, self.abandoned) for one in part
        )


def plan(waiting: deque[Waiting], now: float, cost: CostLine, batch_s: float, inline_s: float) -> Plan:
    """Take the next batch off the front of the queue, in order of arrival.

    It holds as many as finish within the tightest deadline among them and within `batch_s` (at least one), or
    within `inline_s` where the first does: such a batch is fit for the event loop. Rows are joined only where
    their open axes have the same sizes. Who is past the deadline, or would be even alone, is taken off as
    well and not run.
    """
    run: list[Waiting] = []
    expired: list[Waiting] = []
    shed: list[Waiting] = []
    abandoned: list[Waiting] = []
    rows = 0
    tightest = float("inf")
    limit_s = batch_s
    inline = False
    while waiting:
        first = waiting[0]
        size = first.prepared.rows
        alone_s = cost.seconds(size)
        if not first.is_wanted():
            abandoned.append(waiting.popleft())
            continue
        if first.deadline <= now:
            expired.append(waiting.popleft())
            continue
        if now + alone_s > first.deadline and not first.is_probe:
            shed.append(waiting.popleft())
            continue
        if run:
            seconds = cost.seconds(rows + size)
            if seconds > limit_s or seconds > _USED * (min(tightest, first.deadline) - now):
                break
            if first.prepared.sizes != run[0].prepared.sizes:
                break
        else:
            inline = alone_s <= inline_s
            limit_s = inline_s if inline else batch_s
        rows += size
        tightest = min(tightest, first.deadline)
        run.append(waiting.popleft())
    return Plan(run, expired, shed, abandoned, inline)
