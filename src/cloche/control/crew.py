"""The seats of a wish and the children on them: started in order, watched, replaced, drained, more or fewer."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import time
from collections import Counter
from typing import Any

from cloche.control.adopt import control_path
from cloche.control.children import Child, backoff_s, describe_exit
from cloche.control.listeners import shut
from cloche.control.log import Log
from cloche.control.wish import Group, Wish
from cloche.core.board import BLAMED, Board, Head, Slot, State
from cloche.core.errors import BusyError, ModelError
from cloche.core.member import BEAT_S

_STEADY_S = 10.0  # a child that was ready for so long starts its seat's count of failures anew
_TRIES = 4  # at the first start
_NO_PIDFD_S = 0.2  # how often to look where the kernel does not tell of a death
_LAST_LOOK_S = 0.1  # for workers to take what is queued, once nothing new is let in
_HOSTS_S = 10.0  # for hosts to end, once no worker can call them


class StartFailedError(Exception):
    """A child said at the first start why it can't serve: starting it again won't help."""

    def __init__(self, words: str, exit_code: int) -> None:
        super().__init__(words)
        self.exit_code = exit_code


class Seat:
    """A Seat is one place of a group, with its slot of the board; children come and go on it.

    One that is not `wanted` stays or becomes empty; `leave_by` is when the child that drains there is killed.
    """

    def __init__(self, slot: int, group: Group, index: int) -> None:
        self.slot = slot
        self.group = group
        self.config = group.config[index] if index < len(group.config) else {}
        self.name = f"{group.kind} {index + 1}" if group.first > 1 or index else group.kind
        self.wanted = index < group.first
        self.leave_by: float | None = None
        self.child: Child | None = None
        self.ready_at: float | None = None
        self.failures = 0
        self.due = 0.0


class Crew:
    """A Crew is all seats of a wish.

    `turn` is called at least each `patience_s` and whenever `selector` reports something. Times are those of
    time.monotonic.
    """

    def __init__(
        self, wish: Wish, board: Board, slot: Slot, listeners: dict[str, list[socket.socket]], log: Log
    ) -> None:
        self.selector = selectors.DefaultSelector()
        self._wish = wish
        self._board = board
        self._slot = slot
        self._listeners = listeners
        self._log = log
        self._started = False
        self._stop_by: float | None = None
        self._shut_at = 0.0
        self._hosts_asked = False
        self._seats: list[Seat] = []
        for group in wish.groups:
            slot.series(name="cloche_worker_restarts_total", kind=group.kind)
            for index in range(group.size):
                self._seats.append(Seat(len(self._seats) + 1, group, index))

    def adopt(self, children: dict[int, Child]) -> None:
        """Put running processes on the seats of their slots, however many there are."""
        if not children:
            return
        self._started = True
        now = time.monotonic()
        for seat in self._seats:
            seat.wanted = seat.slot in children
            if seat.wanted:
                self._take(seat, children[seat.slot])
                seat.config = children[seat.slot].config or seat.config
            if seat.wanted and self._board.head(seat.slot, Head.STATE) == State.DRAINING:
                self._dismiss(seat, now)
        for group in self._wish.groups:
            if group.kind == "host":
                self._seat_hosts(group.config[: group.first])
            else:
                self._resize(group.kind, max(group.first, len(self._wanted(group.kind))), now)

    def turn(self, now: float) -> None:
        """Do what is due. Raises StartFailedError, BusyError or ModelError when the first start fails."""
        for seat, child in self._taken():
            if child.is_dead():
                self._on_death(seat, child, now)
            else:
                self._look(seat, child, now)
        if self._stop_by is not None:
            self._go_on_draining(now, self._stop_by)
            return
        for seat in self._seats:
            if seat.child is None and seat.wanted and seat.due <= now and self._may_start(seat):
                self._start(seat, now)
        self._started = self._started or self.is_ready()

    def patience_s(self, now: float) -> float:
        """How long the next turn can wait."""
        waits = [BEAT_S, self._wish.stuck_s / 4]
        waits += [seat.due - now for seat in self._seats if seat.child is None and seat.wanted and seat.due > now]
        waits += [seat.leave_by - now for seat in self._seats if seat.leave_by is not None and seat.leave_by > now]
        if any(child.pidfd is None for _, child in self._taken()):
            waits.append(_NO_PIDFD_S)
        if self._stop_by is not None:
            waits += [self._stop_by - now, *([self._shut_at - now] if any(self._listeners.values()) else [])]
        return max(0.0, min(waits))

    def hear(self, child: Child, now: float) -> None:
        """Take in what a child says over its leash; only the controller is heard on what else is to run."""
        if not child.listen():
            self.selector.unregister(child.leash)
        asked, child.asked = child.asked, {}
        seat = next((seat for seat in self._seats if seat.child is child), None)
        if seat is None or seat.group.kind != "controller" or self._stop_by is not None:
            return
        scale, hosts = asked.get("scale", {}), asked.get("hosts", {})
        if scale.get("kind") == "worker" and type(scale.get("count")) is int:
            self._scale("worker", scale["count"], now)
        configs = hosts.get("configs")
        if isinstance(configs, list) and all(isinstance(one, dict) and "socket" in one for one in configs):
            self._have_hosts(configs, now)

    def is_ready(self) -> bool:
        """Whether every seat that is wanted has a child that serves."""
        return all(seat.ready_at is not None for seat in self._serving() if seat.wanted)

    def is_empty(self) -> bool:
        """Whether no child is left."""
        return not self._taken()

    def drain(self, now: float) -> None:
        """Ask the workers to finish and end, then the hosts; what never served is killed.

        The sockets take connections until the lame duck is over.
        """
        self._shut_at = now + self._wish.lame_duck_s
        self._stop_by = self._shut_at + self._wish.drain_s
        for seat, child in self._taken():
            if seat.ready_at is None:
                child.signal(signal.SIGKILL)
            elif seat.group.kind != "host":
                child.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End every child at once."""
        for _, child in self._taken():
            child.signal(signal.SIGKILL)

    def _scale(self, kind: str, count: int, now: float) -> None:
        size = sum(seat.group.kind == kind for seat in self._seats)
        count = max(1, min(count, size))
        had = len(self._wanted(kind))
        if count == had:
            return
        self._log.say("resized", f"{kind}s: {count} instead of {had}", kind=kind, count=count)
        self._resize(kind, count, now)

    def _resize(self, kind: str, count: int, now: float) -> None:
        """Have so many: the newest leave; who comes gets an empty seat, else one that is being left."""
        wanted = self._wanted(kind)
        # one that has yet to start, because another is still leaving it, is newer than all that run
        wanted.sort(
            key=lambda seat: (seat.child.since if seat.child and seat.leave_by is None else now, seat.slot)
        )
        for seat in wanted[count:]:
            self._dismiss(seat, now)
        spare = [seat for seat in self._seats if seat.group.kind == kind and not seat.wanted]
        spare.sort(key=lambda seat: (seat.child is not None, seat.slot))
        for seat in spare[: max(0, count - len(wanted))]:
            seat.wanted = True

    def _have_hosts(self, configs: list[dict[str, Any]], now: float) -> None:
        """Have a host with each of these configs and no other; one that goes on keeps its seat."""
        told = {config["socket"]: config for config in configs}
        for seat in self._wanted("host"):
            if seat.config.get("socket") in told:
                seat.config = told[seat.config["socket"]]  # for the next that sits there
            else:
                self._log.say("host_left", f"{seat.name} is not needed any more", kind="host", slot=seat.slot)
                self._dismiss(seat, now)
        self._seat_hosts(tuple(told.values()))

    def _seat_hosts(self, configs: tuple[dict[str, Any], ...]) -> None:
        """Give an empty seat to each of these hosts that has none; who finds none is asked for again."""
        held = Counter(seat.config.get("socket") for seat in self._wanted("host"))
        lacking = [config for config in configs if not _take_one(held, config.get("socket"))]
        empty = [
            seat for seat in self._seats if seat.group.kind == "host" and seat.child is None and not seat.wanted
        ]
        for seat, config in zip(empty, lacking, strict=False):
            seat.config, seat.wanted = config, True

    def _dismiss(self, seat: Seat, now: float) -> None:
        seat.wanted, seat.failures, seat.due = False, 0, 0.0
        if seat.child is not None and seat.leave_by is None:
            seat.leave_by = now + self._wish.lame_duck_s + self._wish.drain_s
            if seat.group.kind == "host" and seat.ready_at is None:
                # nobody has asked it anything, and what it loads would take its memory for minutes
                seat.child.killed_for = "was not needed any more"
                seat.child.signal(signal.SIGKILL)
            else:
                seat.child.signal(signal.SIGTERM)

    def _wanted(self, kind: str) -> list[Seat]:
        return [seat for seat in self._seats if seat.group.kind == kind and seat.wanted]

    def _serving(self) -> list[Seat]:
        return [seat for seat in self._seats if seat.group.kind != "controller"]

    def _go_on_draining(self, now: float, stop_by: float) -> None:
        if now >= self._shut_at:
            for listeners in self._listeners.values():
                while listeners:
                    shut(listeners.pop())
        if not self._hosts_asked and all(seat.group.kind == "host" for seat, _ in self._taken()):
            self._hosts_asked = True
            self._stop_by = now + _HOSTS_S
            for _, child in self._taken():
                child.signal(signal.SIGTERM)
        elif now > stop_by:
            self._log.say("killed_late", "not drained in time: what is left is killed", level="warning")
            self._stop_by = now + _HOSTS_S
            self.kill()

    def _may_start(self, seat: Seat) -> bool:
        # workers wait for the hosts at the first start; later each is replaced by itself
        if self._started or seat.group.kind == "host":
            return True
        if seat.group.kind == "controller":
            return self.is_ready()  # what serves starts alone on the cores
        return all(other.ready_at is not None for other in self._wanted("host"))

    def _start(self, seat: Seat, now: float) -> None:
        task = {
            "slot": seat.slot,
            "role": seat.group.kind,
            "board": str(self._board.path),
            "control": str(control_path(self._wish.runtime, seat.slot)),
            "digest": self._wish.digest,
            "orphan_s": self._wish.orphan_s,
            "lame_duck_s": self._wish.lame_duck_s + _LAST_LOOK_S,
            "colour": self._wish.colour,
            "config": seat.config,
        }
        listeners = self._listeners.get(seat.group.kind, [])
        try:
            child = Child.spawn(seat.group.argv, task, listeners, self._wish.runtime)
        except OSError as error:
            self._fail(seat, f"{seat.name} can't be started: {error}", now)
        else:
            self._take(seat, child)

    def _take(self, seat: Seat, child: Child) -> None:
        seat.child = child
        self.selector.register(child.leash, selectors.EVENT_READ, child)
        if child.pidfd is not None:
            self.selector.register(child.pidfd, selectors.EVENT_READ, child)

    def _look(self, seat: Seat, child: Child, now: float) -> None:
        claimed = self._board.head(seat.slot, Head.PID) == child.pid
        if claimed and seat.ready_at is None and self._board.head(seat.slot, Head.STATE) == State.READY:
            seat.ready_at = now
        beat = self._board.head(seat.slot, Head.HEARTBEAT_NS) / 1e9 if claimed else 0.0
        if now - max(beat, child.since) > self._wish.stuck_s:
            self._kill(seat, child, f"gave no sign for {self._wish.stuck_s:g} s")
        elif seat.leave_by is not None and now > seat.leave_by:
            self._kill(seat, child, "had not drained in time")
        elif seat.ready_at is None and now - child.since > self._wish.load_timeout_s:
            self._kill(seat, child, f"was not ready within {self._wish.load_timeout_s:g} s")

    def _kill(self, seat: Seat, child: Child, why: str) -> None:
        if not child.killed_for:
            child.killed_for = why
            self._log.say(
                "killed",
                f"{seat.name} (process {child.pid}) {why}: killed",
                level="warning",
                kind=seat.group.kind,
                pid=child.pid,
            )
        child.signal(signal.SIGKILL)

    def _on_death(self, seat: Seat, child: Child, now: float) -> None:
        for watched in (child.leash, child.pidfd):
            if watched is not None:
                with contextlib.suppress(KeyError):
                    self.selector.unregister(watched)
        child.close()
        executing = self._board.head(seat.slot, Head.EXECUTING) or self._board.head(seat.slot, Head.LOADING)
        self._board.release(seat.slot)
        ready_at, seat.ready_at, seat.child = seat.ready_at, None, None
        was_told, seat.leave_by = seat.leave_by is not None, None
        left = was_told and (child.status in (None, 0, -signal.SIGTERM) or bool(child.killed_for))
        if self._stop_by is not None or left:
            return
        if not self._started and ready_at is None:
            self._check_hopeless(seat, child)
        if ready_at is not None and now - ready_at > _STEADY_S:
            seat.failures = 0
        self._slot.cells[self._slot.series(name="cloche_worker_restarts_total", kind=seat.group.kind)] += 1
        if executing:
            self._slot.cells[self._slot.series(name=BLAMED, executing=str(executing))] += 1
        words = f"{seat.name} (process {child.pid}) died, {describe_exit(child.status)}"
        self._fail(seat, f"{words}\n{child.words}".rstrip(), now, pid=child.pid, executing=executing)

    def _check_hopeless(self, seat: Seat, child: Child) -> None:
        if child.words or (child.status is not None and 2 <= child.status <= 7):
            words = child.words or f"{seat.name} can't start: {describe_exit(child.status)}"
            raise StartFailedError(words, child.status or 1)
        if child.killed_for:
            raise BusyError(
                f"{seat.name} {child.killed_for}",
                code="CL-E603",
                hint="raise load_timeout under [serve] in cloche.toml",
            )

    def _fail(self, seat: Seat, words: str, now: float, **fields: object) -> None:
        seat.failures += 1
        if not self._started and seat.failures >= _TRIES:
            raise ModelError(
                f"{words}, for the {_TRIES}th time before everything was ready",
                code="CL-E902",
                hint="what it wrote stands above",
            )
        delay = backoff_s(seat.failures)
        seat.due = now + delay
        if seat.wanted:
            words += f"; the next starts in {delay:g} s" if delay else "; the next starts now"
        self._log.say("died", words, level="warning", kind=seat.group.kind, **fields)

    def _taken(self) -> list[tuple[Seat, Child]]:
        return [(seat, seat.child) for seat in self._seats if seat.child is not None]


def _take_one(counts: Counter[object], key: object) -> bool:
    """Whether one more of these is there, which is taken."""
    counts[key] -= 1
    return counts[key] >= 0
