"""Begins batch runs when they are due, each in a process of its own: a thread beside the control loop.

Only the machine that leads does. A slot is a row that can be inserted once, and gets one run; a run that was
interrupted is gone on with before the next begins.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from cloche.app.batch_task import RunPlace, Task, is_gone
from cloche.app.describe import Machine, read_machine
from cloche.app.desired import stamp
from cloche.app.wish import python_command
from cloche.batch.schedule import due
from cloche.core.errors import ClocheError
from cloche.settings import Batch
from cloche.store.batches import HOLD_S, Batches, RunRow
from cloche.store.database import Store
from cloche.store.machines import Lease
from cloche.store.slots import Slots

_LOOK_S = 1.0
#: How long a process has to finish its chunk when all stop.
_GRACE_S = 20.0
#: A run whose processes died so often is given up.
MOST_ATTEMPTS = 5
_log = logging.getLogger("cloche.batch")


class Schedules:
    """A Schedules is that thread; `leads` says whether this machine decides; use it in a `with`."""

    def __init__(
        self,
        machine: Path,
        store: Store,
        lease: Lease | None,
        *,
        colour: bool = False,
        clock: Callable[[], float] = time.time,
        look_s: float = _LOOK_S,
    ) -> None:
        self._file = machine
        self._read: object = None
        self._machine: Machine | None = None
        self._batches = Batches(store)
        self._slots = Slots(store, lease)
        self._colour = colour
        self._now = clock
        self._look_s = look_s
        self.leads = lease is None
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        #: When the next process of a name may be started.
        self._not_before: dict[str, float] = {}
        self._said = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloche-schedules", daemon=True)

    def __enter__(self) -> Schedules:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let each run finish its chunk; whoever leads next goes on with it."""
        self._stop.set()
        self._thread.join(_GRACE_S + self._look_s + 5.0)

    def _run(self) -> None:
        while not self._stop.wait(self._look_s):
            try:
                self.turn()
            except (ClocheError, OSError) as error:
                self._fails(error.message if isinstance(error, ClocheError) else str(error))
            else:
                self._said = ""
        self._end_children()

    def turn(self) -> None:
        """One look: what ended, what is due. Raises ClocheError."""
        fresh = stamp(self._file)
        if fresh != self._read or self._machine is None:
            self._machine, self._read = read_machine(self._file), fresh
        self._reap()
        if not self.leads:
            return
        for batch in self._machine.batch:
            if batch.schedule is not None and batch.name not in self._children:
                self._turn_one(self._machine, batch)

    def _turn_one(self, machine: Machine, batch: Batch) -> None:
        schedule, now = batch.schedule, self._now()
        assert schedule is not None
        last = self._slots.last(batch.name)
        if last is None or last.schedule != str(schedule):
            self._slots.since(batch.name, str(schedule), now)
            return
        if time.monotonic() < self._not_before.get(batch.name, 0.0):
            return
        newest = next(iter(self._batches.list(batch.name, most=1)), None)
        is_over = newest is None or newest.state not in ("running", "interrupted")
        if newest is not None and newest.state == "running" and not is_gone(newest.holder, machine.id):
            return
        if newest is not None and newest.slot is not None and not is_over:
            self._go_on(machine, batch, newest)
        elif last.state == "claimed":
            # whoever claimed it has begun nothing; that one may be about to
            if last.age_s > HOLD_S:
                self._start(machine, batch, slot=last.slot)
        elif (slot := due(schedule, last.slot, now)) is not None and self._slots.claim(
            batch.name, slot, str(schedule)
        ):
            self._start(machine, batch, slot=slot)

    def _go_on(self, machine: Machine, batch: Batch, row: RunRow) -> None:
        if row.attempt < MOST_ATTEMPTS:
            self._start(machine, batch, resume=row.id)
            return
        why = f"it was begun {row.attempt} times, and its process ended each time"
        self._batches.give_up(row.id, why, gone=row.holder)
        extra = {"action": "batch_failed", "run": row.id}
        _log.error("%s: %s is given up: %s", batch.name, row.id, why, extra=extra)

    def _start(
        self, machine: Machine, batch: Batch, *, slot: float | None = None, resume: str | None = None
    ) -> None:
        task = Task(
            database=machine.database,
            place=RunPlace(machine=machine.id, bundles=machine.bundles, allow_code=machine.allow_code),
            batch=batch,
            slot=slot,
            resume=resume,
            colour=self._colour,
        )
        child = subprocess.Popen(python_command("cloche.app.batch_run"), stdin=subprocess.PIPE)
        self._children[batch.name] = child
        # a process that ends at once is not started again at once
        self._not_before[batch.name] = time.monotonic() + HOLD_S
        assert child.stdin is not None
        child.stdin.write(msgspec.json.encode(task) + b"\n")
        child.stdin.flush()

    def _reap(self) -> None:
        for name, child in list(self._children.items()):
            code = child.poll()
            if code is None:
                continue
            del self._children[name]
            assert child.stdin is not None
            child.stdin.close()
            if code == 0:
                self._not_before.pop(name, None)
            elif code < 0:
                self._not_before[name] = time.monotonic() + self._look_s
                extra = {"action": "batch_died", "signal": -code}
                _log.error("%s: the process of its run was ended by signal %d", name, -code, extra=extra)

    def _end_children(self) -> None:
        for child in self._children.values():
            child.terminate()
        ends = time.monotonic() + _GRACE_S
        for child in self._children.values():
            try:
                child.wait(max(0.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._reap()

    def _fails(self, words: str) -> None:
        if words != self._said:
            _log.error("schedules wait: %s", words, extra={"action": "schedules_wait"})
        self._said = words
