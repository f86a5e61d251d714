"""Carries what the board counts to the statistics once a second, and folds those: beside the control loop.

Nothing waits for it: it has a thread and connections of its own. What can't be written stays on the board and is
written with the next second that can.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from cloche.core.board import Board, Head, Role, State, board_before, discard
from cloche.core.errors import ClocheError, ConflictError
from cloche.store.machines import Lease
from cloche.store.statistics import Counted, Statistics
from cloche.store.watch import WatchStore

CARRY_S = 1.0
#: How long the last look may take: who stops does not wait for a database that is gone.
_LAST_S = 5.0
#: Metrics begin so; what workers share about limits stands on the board as well and is none.
_METRIC = "cloche_"
_log = logging.getLogger("cloche.controller")


class Carrier:
    """A Carrier is that thread; `database` is the URL of the store, `leads` says who folds; use it in a `with`."""

    def __init__(self, board: Path, database: str, machine: str, lease: Lease | None) -> None:
        self._path = board
        self._database = database
        self._machine = machine
        self._lease = lease
        self.leads = lease is None
        self._watch: WatchStore | None = None
        self._stop = threading.Event()
        self._failed = 0
        self._thread = threading.Thread(target=self._run, name="cloche-carrier", daemon=True)

    def __enter__(self) -> Carrier:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Carry once more what was counted up to now."""
        self._stop.set()
        self._thread.join(_LAST_S)

    def outlast(self, board: Board) -> None:
        """Wait, where all stop, for the last worker to go: what it counts until then is to be carried."""
        while board.head(0, Head.STATE) == State.DRAINING and any(map(board.is_beating, board.heads(Role.WORKER))):
            time.sleep(0.02)

    def _run(self) -> None:
        statistics, board = None, Board(self._path)
        ends = False
        while not ends:
            ends = self._stop.wait(CARRY_S)
            try:
                statistics = statistics or self._open()
                statistics.carry(self._machine, board.made, _counted(board))
                if self.leads:
                    self._fold(statistics)
            except (ClocheError, IntegrityError, OSError) as error:
                self._fails(error)
                statistics = None  # the next try begins with whatever is there then
                self._close()
            else:
                self._succeeds()
        self._close()

    def _open(self) -> Statistics:
        """The statistics, with all in them that the board before this one counted."""
        self._watch = WatchStore(self._database)
        statistics = Statistics(self._watch)
        before = board_before(self._path)
        if before.exists():
            board = Board(before)
            statistics.carry(self._machine, board.made, _counted(board))
            # before this board is carried: with another one carried since, that one would seem new again
            discard(before)
        return statistics

    def _close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._watch = None

    def _fold(self, statistics: Statistics) -> None:
        try:
            statistics.fold(None if self._lease is None else self._lease.check)
        except ConflictError:
            self.leads = False  # another one leads, and folds

    def _fails(self, error: Exception) -> None:
        if not self._failed:
            words = error.message if isinstance(error, ClocheError) else str(error)
            extra = {"action": "statistics_wait"}
            _log.warning("statistics wait on the board until they can be written: %s", words, extra=extra)
        self._failed += 1

    def _succeeds(self) -> None:
        if self._failed:
            extra = {"action": "statistics_written", "seconds": self._failed}
            _log.info("statistics are written again; %d seconds are one in them", self._failed, extra=extra)
        self._failed = 0


def _counted(board: Board) -> list[Counted]:
    return [
        Counted(key, labels, value)
        for key, labels, value in board.described()
        if labels["name"].startswith(_METRIC)
    ]
