"""A batch run that a schedule began, in a process of its own: `python -m cloche.app.batch_run`.

One line of JSON on stdin says what to run. Stdin stays open as long as whoever started it lives: at its end, as at
SIGTERM, the run stops after its chunk, and is resumed by who comes next.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time

import msgspec

from cloche.app.batch import Run, Runs
from cloche.app.batch_task import Task
from cloche.batch.plan import Progress
from cloche.core.errors import ClocheError
from cloche.monitoring import log
from cloche.store.database import Store
from cloche.store.slots import Slots

_log = logging.getLogger("cloche.batch")


def main() -> int:
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    logs = log.start(sys.stderr, colour=task.colour)
    threading.Thread(target=_until_alone, args=(stop,), name="cloche-leash", daemon=True).start()
    try:
        with Store(task.database) as store:
            return _run(task, store.acting_as(f"schedule {task.batch.name}"), stop)
    except ClocheError as error:
        _log.error("%s: %s", task.batch.name, error.message, extra={"action": "batch_failed", "code": error.code})
        return error.exit_code
    finally:
        logs.stop()


def _run(task: Task, store: Store, stop: threading.Event) -> int:
    began = _begin(task, store)
    name, run, since = task.batch.name, began.plan.run, time.monotonic()
    verb = "goes on" if task.resume else "begins"
    extra = {"action": "batch_begun", "run": run}
    _log.info("%s: %s %s, answered by %s", name, run, verb, began.plan.ref, extra=extra)
    deadline_s = task.batch.deadline_s
    is_late = False

    def tell(done: Progress) -> None:
        nonlocal is_late
        if deadline_s is not None and not is_late and time.monotonic() - since > deadline_s:
            is_late = True
            told = {"action": "batch_late", "run": run, "rows": done.rows, "total": done.total}
            _log.warning("%s: %s takes longer than its deadline of %g s", name, run, deadline_s, extra=told)

    row = began.carry_out(tell, stop)
    why = f": {row.why}" if row.why else ""
    told = {"action": "batch_ended", "run": run, "rows": row.rows, "rejected": row.rejected}
    level = logging.INFO if row.state in ("completed", "interrupted", "cancelled") else logging.WARNING
    _log.log(level, "%s: %s %s, %d rows%s", name, run, row.state, row.rows, why, extra=told)
    return 0


def _begin(task: Task, store: Store) -> Run:
    """The run, held; a slot whose run can't be begun says why."""
    runs = Runs(store, task.place)
    if task.resume is not None:
        return runs.resume(task.resume)
    try:
        return runs.begin(task.batch, name=task.batch.name, slot=task.slot)
    except ClocheError as error:
        if task.slot is not None:
            Slots(store).fail(task.batch.name, task.slot, error.message)
        raise


def _until_alone(stop: threading.Event) -> None:
    # not through sys.stdin, whose lock this thread would hold when the process ends
    while os.read(0, 4096):
        pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
