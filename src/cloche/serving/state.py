"""Where a worker is in its life, as its answers show it: readiness, draining, connections to give away."""

from __future__ import annotations

import math
from collections.abc import Callable

from cloche.core.board import Board, Head, Role, Slot, State

#: Connections above the fair share that are let be where nobody has less than half of it.
_SLACK = 4


class WorkerState:
    """A WorkerState is read at each answer and changed by the worker's own events only."""

    def __init__(self) -> None:
        self.is_ready = False
        self.is_draining = False
        #: Whether the machine goes on serving while this worker drains: then the probes that reach it say so.
        self.others_serve: Callable[[], bool] = lambda: False
        #: Kept-alive connections that are more than this worker's share: so many answers close theirs.
        self.excess = 0
        #: The Date header's line, renewed each second.
        self.date_line = b""
        #: Counts a request that was refused before it reached a model, by the error's code.
        self.refused: Callable[[str], None] | None = None

    def answers(self) -> bool:
        return self.is_ready and (not self.is_draining or self.others_serve())

    def closes_next(self) -> bool:
        """Whether the next answer closes its connection."""
        if self.is_draining:
            return True
        if self.excess > 0:
            self.excess -= 1
            return True
        return False

    def share(self, board: Board, slot: Slot, connections: int) -> None:
        """Write the number of open connections to the board and see whether they are more than a fair share."""
        slot.set(Head.CONNECTIONS, connections)
        ready = _ready(board)
        if len(ready) < 2:
            self.excess = 0
            return
        counts = [board.head(number, Head.CONNECTIONS) for number in ready]
        fair = math.ceil(sum(counts) / len(ready))
        excess = max(0, connections - fair)
        # callers come back to any worker by chance: small differences would be closed for nothing
        self.excess = excess if excess > max(_SLACK, fair // 10) or min(counts) < fair // 2 else 0


def others_serve(board: Board) -> bool:
    """Whether the supervisor goes on, with workers that serve: who drains was told to leave, not all to stop."""
    supervised = any(
        board.head(number, Head.STATE) != State.DRAINING and board.is_beating(number)
        for number in board.heads(Role.SUPERVISOR)
    )
    return supervised and bool(_ready(board))


def _ready(board: Board) -> list[int]:
    """The slots of the workers that serve."""
    return [
        number
        for number in board.heads(Role.WORKER)
        if board.head(number, Head.STATE) == State.READY and board.is_beating(number)
    ]
