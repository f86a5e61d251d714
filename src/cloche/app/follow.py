"""A worker follows what is desired: a side thread loads what is new, then its paths lead elsewhere at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from cloche.app.desired import Desired, read_desired, replace, stamp
from cloche.app.versions import Standing, Versions
from cloche.control.watch import tally_path, trouble_path
from cloche.core.aside import in_short_turns
from cloche.core.board import Board, Head, Slot
from cloche.core.errors import ClocheError
from cloche.rollout.shadow import Tally
from cloche.serving.http import App
from cloche.serving.pages import Pages
from cloche.serving.state import WorkerState
from cloche.serving.worker import GRACE_S

#: How often the file is looked at: together with the controller's look at the store, a change of one row must be
#: in every worker within 300 ms.
POLL_S = 0.05
_TELL_S = 1.0
_log = logging.getLogger("cloche.worker")


class Follower:
    """A Follower keeps one worker at what its desired file says, and says on the board at which revision."""

    def __init__(
        self, path: Path, app: App, versions: Versions, place: tuple[Board, Slot], state: WorkerState,
        loop: asyncio.AbstractEventLoop,
    ) -> None:  # fmt: skip
        self._path = path
        self._app = app
        self._versions = versions
        self._board, self._slot = place
        self._state = state
        self._loop = loop
        self._stop = threading.Event()
        self._leaving: list[tuple[float, Standing]] = []
        self._shape: Desired | None = None
        self._told: dict[int, Tally] = {}
        self._tell_at = 0.0

    def start(self, served: Desired) -> None:
        """Follow from now on, in a thread that ends with the process; `served` is what it serves already."""
        self._shape = served.unweighted()
        threading.Thread(target=self._run, name="desired", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        seen: object = None
        while not self._stop.wait(POLL_S):
            now = stamp(self._path)
            if now != seen and now is not None:
                seen = now
                self._try()
            self._tell_tallies()
            while self._leaving and self._leaving[0][0] <= time.monotonic():
                with contextlib.suppress(OSError):
                    self._leaving.pop(0)[1].close()

    def _tell_tallies(self) -> None:
        """Say what shadows have found out, once a second."""
        now = time.monotonic()
        if now < self._tell_at:
            return
        self._tell_at = now + _TELL_S
        tallies = self._versions.tallies()
        if tallies != self._told:
            with contextlib.suppress(OSError):  # a full disk; tried again at the next look
                replace(tally_path(self._path.parent, self._slot.number), msgspec.json.encode(tallies))
                self._told = tallies

    def _try(self) -> None:
        try:
            desired = read_desired(self._path)
            self.apply(desired)
        except Exception as error:  # noqa: BLE001 - the edge of the thread: without it nothing would be followed any more
            known = error if isinstance(error, ClocheError) else None
            words = known.message if known is not None else f"{type(error).__name__}: {error}"
            bug = None if known else error
            _log.error("can't serve what is desired: %s", words, exc_info=bug, extra={"action": "desired_refused"})
            with contextlib.suppress(OSError, UnboundLocalError):
                told = {"revision": desired.revision, "words": words}
                replace(trouble_path(self._path.parent, self._slot.number), json.dumps(told).encode())
        else:
            self._slot.set(Head.REVISION, desired.revision)

    def apply(self, desired: Desired) -> None:
        """Serve what is desired; what is served stays as it is where that can't be. Raises ClocheError."""
        shape = desired.unweighted()
        if shape != self._shape:
            try:
                with in_short_turns():
                    table = self._versions.table(desired)
                    pages = Pages(table, self._board, self._state)
            except BaseException:
                if self._shape is not None:  # nobody was led to what was loaded meanwhile
                    self._retire(self._shape, 0.0)
                raise
            self._in_loop(lambda: self._app.turn_to(table, pages))
            self._shape = shape
            # those who are in their queues, or on the way there, have so long
            self._retire(desired, desired.deadline_s + GRACE_S)
        self._versions.weigh(desired)

    def _retire(self, desired: Desired, seconds: float) -> None:
        """Close what is not desired, after so long."""
        ends = time.monotonic() + seconds
        self._leaving += [(ends, one) for one in self._versions.leave(desired)]
        self._leaving.sort(key=lambda leaving: leaving[0])

    def _in_loop(self, work: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            work()
            done.set()

        self._loop.call_soon_threadsafe(run)
        while not done.wait(1.0):
            if self._stop.is_set():
                return
