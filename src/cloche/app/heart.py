"""The sign of life of a process that holds a batch run, once a second, in a thread beside the run."""

from __future__ import annotations

import threading
import time

from cloche.batch.plan import Progress
from cloche.core.errors import BusyError, ConflictError
from cloche.store.batches import HOLD_S, Batches, Claim

_LOOK_S = 1.0
#: The store is told at least so often.
_BEAT_S = 5.0
_LAST_S = 10.0


class Heart:
    """A Heart tells the store how far a run is, and hears there whether it shall stop; use it in a `with`.

    It stops the run where another process has taken it, and where the store could not be told for so long that
    another may: what is safe stays.
    """

    def __init__(self, batches: Batches, claim: Claim, stop: threading.Event, *, look_s: float = _LOOK_S) -> None:
        self._batches = batches
        self._claim = claim
        self._stop = stop
        self._look_s = look_s
        self.progress = Progress(rows=0, rejected=0, total=None)
        self.cancelled_by: str | None = None
        self._lost: ConflictError | BusyError | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloche-heart", daemon=True)

    def is_stopped(self) -> bool:
        """Whether the run shall end after its chunk."""
        return self._stop.is_set() or self.cancelled_by is not None or self._lost is not None

    def check(self) -> None:
        """Raises ConflictError CL-E520 or BusyError CL-E606 where the run is not this process's any more."""
        if self._lost is not None:
            raise self._lost

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(_LAST_S)

    def _run(self) -> None:
        told, beaten = None, time.monotonic()
        while not self._over.wait(self._look_s) and self._lost is None:
            progress = self.progress
            if progress is told and time.monotonic() - beaten < _BEAT_S:
                continue
            try:
                self.cancelled_by = self._batches.beat(
                    self._claim, progress.rows, progress.rejected, progress.total
                )
            except ConflictError as error:
                self._lost = error
            except BusyError as error:
                if time.monotonic() - beaten > HOLD_S:
                    self._lost = error
            else:
                told, beaten = progress, time.monotonic()
