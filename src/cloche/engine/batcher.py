"""The Batcher joins concurrent requests into one call; the one part of the engine that knows asyncio.

It never waits for company: what arrives while the model works becomes the next batch. Calls under about a
millisecond run in the event loop, the rows of one turn together; slower ones run on one model thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn, Protocol

from cloche.core.errors import BusyError, ClocheError, ModelError
from cloche.core.signature import Columns, join_rows, take_rows
from cloche.engine.cost import CostLine
from cloche.engine.engine import Engine, Prepared
from cloche.engine.queue import Answer, Receiver, Waiting, plan

#: Calls that take no longer than this run in the event loop.
INLINE_S = 0.001
#: Requests that wait at most; more are shed.
MOST_WAITING = 10_000
#: The deadline of a deployment, in batches of the longest kind.
_BATCHES_IN_DEADLINE = 4
#: What no batch has confirmed for so long may be wrong.
_STALE_S = 10.0


class Recorder(Protocol):
    """What the Batcher tells of its work; monitoring implements it."""

    def batch(self, rows: int, seconds: float) -> None: ...
    def queued(self, seconds: float) -> None: ...
    def shed(self, reason: str) -> None: ...
    def executing(self, active: bool) -> None: ...


class Batcher:
    """A Batcher holds the queue of one loaded version.

    `submit` gives a future of the answer, `put` tells a receiver; both fail with BusyError (shed, CL-E601, or
    past the deadline, CL-E602), ModelError, or InputError from a runtime that refuses the rows. `batch_s` bounds
    how long one batch may take, so that who comes next can still be answered in time.
    """

    def __init__(
        self,
        engine: Engine,
        recorder: Recorder,
        cost: CostLine,
        *,
        batch_s: float,
        clock: Callable[[], float] = time.monotonic,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.engine = engine
        self.cost = cost
        #: Batches that began before (by the clock) don't tell the model's cost: others held the interpreter.
        self.quiet_from = 0.0
        self._recorder = recorder
        self._batch_s = batch_s
        self._hopeless_s = _BATCHES_IN_DEADLINE * batch_s
        self._clock = clock
        self._measured_at = clock()
        self._waiting: deque[Waiting] = deque()
        self._rows_waiting = 0
        self._in_flight: dict[bytes, Waiting] = {}
        self._flush_is_due = False
        self._busy_until = 0.0
        self._thread: ThreadPoolExecutor | None = None
        self._thread_is_busy = False
        self.allow_inline(True)
        self.loop = loop or asyncio.get_running_loop()

    def allow_inline(self, allowed: bool) -> None:
        """Whether calls that are short enough run in the event loop; those that leave the process never do."""
        self._inline_s = INLINE_S if allowed and self.engine.runtime.in_process else -1.0

    def is_inline(self, rows: int) -> bool:
        """Whether a request of so many rows is answered within one turn of the loop."""
        return self.cost.seconds(rows) <= self._inline_s and not self._thread_is_busy

    def submit(self, prepared: Prepared, deadline: float, now: float) -> asyncio.Future[Answer]:
        """Queue one request; `deadline` and `now` are readings of the clock (time.monotonic)."""
        future: asyncio.Future[Answer] = self.loop.create_future()
        self.put(prepared, deadline, now, future)
        return future

    def put(self, prepared: Prepared, deadline: float, now: float, receiver: Receiver) -> None:
        """`submit` for who wants to be told at once; raises BusyError CL-E601 itself when it is shed here."""
        if prepared.key is not None:
            leader = self._in_flight.get(prepared.key)
            if leader is not None and leader.is_wanted():
                self._follow(leader, receiver, deadline, now)
                return
        waiting = Waiting(prepared, now, deadline, receiver)
        self._admit(waiting, now)
        if prepared.key is not None:
            self._in_flight[prepared.key] = waiting
        self._waiting.append(waiting)
        self._rows_waiting += prepared.rows
        if not self._flush_is_due and not self._thread_is_busy:
            self._flush_is_due = True
            self.loop.call_soon(self._flush)
        if not self.is_inline(prepared.rows):
            self._time(waiting, now)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _follow(self, leader: Waiting, receiver: Receiver, deadline: float, now: float) -> None:
        if leader.followers is None:
            leader.followers = []
        leader.followers.append(receiver)
        if deadline > leader.deadline:
            self._time(leader, now)  # it runs for those who have longer, and still answers the first in time
            leader.deadline = deadline
        self._expire_at(receiver, deadline, now)

    def check(self, deadline: float, now: float) -> None:
        """Refuse a request before it is read where not even one row could be answered in time.

        Raises BusyError CL-E601. With a cache it may be answered all the same, so then nothing is refused.
        """
        if not self._waiting or self.engine.cache is not None:
            return
        late_s = self._late_s(1, deadline, now)
        if late_s is not None:
            self._shed(late_s)

    def _admit(self, waiting: Waiting, now: float) -> None:
        late_s = self._late_s(waiting.prepared.rows, waiting.deadline, now)
        if late_s is None:
            return
        if self._is_probe(waiting.prepared.rows, now):
            waiting.is_probe = True
            return
        self._shed(late_s)

    def _shed(self, late_s: float) -> NoReturn:
        self._recorder.shed("overload")
        raise _overloaded(late_s)

    def _late_s(self, rows: int, deadline: float, now: float) -> float | None:
        """By how much so many rows would miss a deadline, behind those who wait; None where they would not."""
        waiting = self._waiting
        late_s = max(now, self._busy_until) + self._queue_s() + self.cost.seconds(rows) - deadline
        # a queue that is full to the very deadline answers few: its batches are cut short, and many end late
        spare_s = (deadline - now) / _BATCHES_IN_DEADLINE if waiting else 0.0
        fits = late_s + spare_s <= 0.0 and len(waiting) < MOST_WAITING
        return None if fits and not self._lags(deadline, now) else late_s

    def _lags(self, deadline: float, now: float) -> bool:
        """Whether a queue of several batches is longer than the cost line says.

        How long its first has waited, the last will: with half of its time left it is still part of a full batch.
        """
        if self.cost.per_row_s * self._rows_waiting < self._batch_s:
            return False
        return now - self._waiting[0].since > (deadline - now) / 2

    def _queue_s(self) -> float:
        """How long those who wait will take, in batches of the longest kind."""
        if not self._waiting:
            return 0.0
        fixed_s, work_s = self.cost.fixed_s, self.cost.per_row_s * self._rows_waiting
        room_s = self._batch_s - fixed_s
        batches = work_s / room_s if room_s > self.cost.per_row_s else len(self._waiting)
        return fixed_s * max(1.0, batches) + work_s

    def _is_probe(self, rows: int, now: float) -> bool:
        """Whether to run a request although it seems hopeless, as only a measurement can mend a wrong line.

        The line may be wrong (a machine that stood still for a while) when even one row seems to take longer than
        any deadline, or when so many rows do and no batch was measured lately. It is tried while nothing runs.
        """
        if self._waiting or self._thread_is_busy:
            return False
        seems_s = self.cost.seconds(rows if now - self._measured_at > _STALE_S else 1)
        return seems_s > self._hopeless_s

    def _time(self, waiting: Waiting, now: float) -> None:
        if not waiting.is_timed:
            waiting.is_timed = True
            self._expire_at(waiting.receiver, waiting.deadline, now)

    def _expire_at(self, receiver: Receiver, deadline: float, now: float) -> None:
        timer = self.loop.call_later(max(0.0, deadline - now), self._expire, receiver)
        receiver.add_done_callback(lambda _: timer.cancel())

    def _expire(self, receiver: Receiver) -> None:
        if not receiver.done():
            self._recorder.shed("deadline")
            receiver.set_exception(_too_late())

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._thread_is_busy:
            return
        now = self._clock()
        chosen = plan(self._waiting, now, self.cost, self._batch_s, self._inline_s)
        self._rows_waiting -= chosen.rows()
        for one in chosen.abandoned:
            self._settle(one, _too_late())
        for late in chosen.expired:
            self._recorder.shed("deadline")
            self._settle(late, _too_late())
        for one in chosen.shed:
            self._recorder.shed("overload")
            self._settle(one, _overloaded(self.cost.seconds(one.prepared.rows)))
        if chosen.run and chosen.inline:
            self._finish(chosen.run, now, *self._run(chosen.run))
        elif chosen.run:
            self._run_on_thread(chosen.run, now)
        self._flush_later()

    def _flush_later(self) -> None:
        if self._waiting and not self._flush_is_due and not self._thread_is_busy:
            self._flush_is_due = True
            self.loop.call_soon(self._flush)

    def _run_on_thread(self, batch: list[Waiting], now: float) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._thread_is_busy = True
        self._busy_until = now + self.cost.seconds(sum(one.prepared.rows for one in batch))
        for one in (*batch, *self._waiting):
            self._time(one, now)  # who came for a turn of the loop now waits for the thread
        running = self.loop.run_in_executor(self._thread, self._run, batch)

        def done(outcome: asyncio.Future[tuple[list[Columns | ClocheError], float]]) -> None:
            self._thread_is_busy = False
            self._busy_until = 0.0
            if outcome.cancelled():
                return
            failure = outcome.exception()
            if failure is None:
                self._finish(batch, now, *outcome.result())
            for one in batch if failure is not None else ():
                self._settle(one, ModelError(f"{type(failure).__name__}: {failure}"))
            self._flush_later()

        running.add_done_callback(done)

    def _run(self, batch: list[Waiting]) -> tuple[list[Columns | ClocheError], float]:
        start = self._clock()
        self._recorder.executing(True)
        # who has the longest says how long to wait: the others have timers of their own
        outcomes = self._run_together([one.prepared for one in batch], max(one.deadline for one in batch))
        self._recorder.executing(False)
        return outcomes, self._clock() - start

    def _run_together(self, batch: list[Prepared], until: float) -> list[Columns | ClocheError]:
        """The outcome of each request; when the joined call fails, a poisonous row must fail alone."""
        failure: ClocheError
        try:
            left_s = max(until - self._clock(), 0.001)
            return _split(self.engine.run(join_rows([one.columns for one in batch]), left_s), batch)
        except BusyError as error:
            return [error] * len(batch)  # no row's fault, and asking again would take as long
        except ClocheError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - an edge: what a runtime raises is the answer, never a hang
            failure = ModelError(f"{type(error).__name__}: {error}")
        if len(batch) == 1:
            return [failure]
        # what kills a process would kill one more at each bisection, so then each goes alone
        step = 1 if failure.code == "CL-E902" else (len(batch) + 1) // 2
        parts: Iterable[list[Prepared]] = (batch[at : at + step] for at in range(0, len(batch), step))
        return [outcome for part in parts for outcome in self._run_together(part, until)]

    def _finish(
        self, batch: list[Waiting], started: float, outcomes: list[Columns | ClocheError], seconds: float
    ) -> None:
        rows = 0
        failed = False
        for one, outcome in zip(batch, outcomes, strict=True):
            rows += one.prepared.rows
            queued = started - one.since
            self._recorder.queued(queued)
            if isinstance(outcome, ClocheError):
                failed = True
                self._settle(one, outcome)
            else:
                self.engine.remember(one.prepared, outcome)
                self._settle(one, (outcome, queued, seconds))
        self._recorder.batch(rows, seconds)
        if failed and not (isinstance(outcomes[0], BusyError) and outcomes[0].code == "CL-E602"):
            return  # calls that failed or were run again say nothing of what a batch costs
        if started < self.quiet_from:
            return
        # one that was given up took this long at least: unless that is learnt, the next is as large again
        if batch[0].is_probe:
            self.cost.forget()
        self.cost.observe(rows, seconds)
        self._measured_at = started + seconds

    def _settle(self, waiting: Waiting, outcome: Answer | ClocheError) -> None:
        key = waiting.prepared.key
        if key is not None and self._in_flight.get(key) is waiting:
            del self._in_flight[key]
        for receiver in (waiting.receiver, *(waiting.followers or ())):
            if receiver.done():
                continue
            if isinstance(outcome, ClocheError):
                receiver.set_exception(outcome)
            else:
                receiver.set_result(outcome)


def _split(outputs: Columns, batch: list[Prepared]) -> list[Columns | ClocheError]:
    if len(batch) == 1:
        return [outputs]
    answers: list[Columns | ClocheError] = []
    at = 0
    for one in batch:
        answers.append(take_rows(outputs, at, at + one.rows))
        at += one.rows
    return answers


def _overloaded(beyond_s: float) -> BusyError:
    return BusyError(
        "the model is overloaded: this request could not have been answered in time",
        code="CL-E601",
        hint="send less, or start more workers",
        retry_after_s=max(1.0, beyond_s),
    )


def _too_late() -> BusyError:
    return BusyError(
        "the deadline passed before the answer was there",
        code="CL-E602",
        hint="send a longer Cloche-Deadline, or raise `deadline` in cloche.toml",
    )
