"""What all workers of this machine did between two looks at the board: the load that scaling goes by."""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from cloche.core.board import Board, Head, Role, State
from cloche.scaling import Load

#: Until a start was seen.
_STARTUP_S = 2.0
_NANO = 1_000_000_000


class _Sums(NamedTuple):
    """What was counted up to a look; `loop_ns` by slot and process, of those that serve."""

    at: float
    answered: int
    shed: int
    in_flight: int
    inference_ns: int
    loop_ns: dict[tuple[int, int], int]


class Meter:
    """A Meter reads the board; deployments that are `hosted` keep no worker busy while their model works."""

    def __init__(self, board: Board, hosted: Set[str] = frozenset()) -> None:
        self._board = board
        self.hosted = hosted
        self._before: _Sums | None = None
        self._starting: dict[int, float] = {}
        self.startup_s = _STARTUP_S

    def counts(self) -> tuple[int, int]:
        """How many workers serve, and how many start."""
        states = [self._board.head(slot, Head.STATE) for slot in self._live()]
        return states.count(State.READY), states.count(State.STARTING)

    def read(self, now: float) -> Load | None:
        """The load since the last look, at `now` (time.monotonic); None at the first."""
        self._learn(now)
        sums, before = self._sums(now), self._before
        self._before = sums
        if before is None:
            return None
        ready, starting = self.counts()
        answered = sums.answered - before.answered
        inference_s = (sums.inference_ns - before.inference_ns) / _NANO
        # who came meanwhile is counted from its next look on: until then it loaded
        loops_s = (
            sum(ns - before.loop_ns[key] for key, ns in sums.loop_ns.items() if key in before.loop_ns) / _NANO
        )
        return Load(
            at=now,
            seconds=now - before.at,
            arrivals=max(0, answered + sums.in_flight - before.in_flight),
            answered=max(0, answered - (sums.shed - before.shed)),
            # of the event loop and the thread of the model, which go on beside each other, who has more to do
            busy_s=max(loops_s, inference_s),
            waiting=max(0, sums.in_flight - ready),
            ready=ready,
            starting=starting,
            startup_s=self.startup_s,
        )

    def _live(self) -> list[int]:
        return [slot for slot in self._board.heads(Role.WORKER) if self._board.is_beating(slot)]

    def _learn(self, now: float) -> None:
        board = self._board
        states = {board.head(slot, Head.PID): board.head(slot, Head.STATE) for slot in self._live()}
        for pid, state in states.items():
            if state == State.STARTING:
                self._starting.setdefault(pid, now)
            elif state == State.READY and pid in self._starting:
                self.startup_s = (self.startup_s + now - self._starting.pop(pid)) / 2
        self._starting = {pid: since for pid, since in self._starting.items() if pid in states}

    def _sums(self, now: float) -> _Sums:
        board = self._board
        answered = shed = inference_ns = 0
        for labels, value in board.labelled():
            name = labels["name"]
            if name == "cloche_requests_total":
                answered += value
            elif name == "cloche_shed_total":
                shed += value
            elif name == "cloche_inference_seconds" and "sum" in labels:
                inference_ns += value if labels["deployment"] not in self.hosted else 0
        live = self._live()
        loop_ns = {
            (slot, board.head(slot, Head.PID)): board.head(slot, Head.LOOP_NS)
            for slot in live
            if board.head(slot, Head.LOOP_NS)
        }
        in_flight = sum(board.head(slot, Head.IN_FLIGHT) for slot in live)
        return _Sums(now, answered, shed, in_flight, inference_ns, loop_ns)
