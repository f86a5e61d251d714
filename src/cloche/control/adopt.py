"""After the death of a supervisor: find what it left running, and take over its sockets and its watch."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from cloche.control.children import Child
from cloche.control.lock import describe, read_note
from cloche.control.wish import Wish
from cloche.core.board import SLOTS, Board, Head, Role
from cloche.core.errors import ConflictError
from cloche.core.platform import is_alive, peer_uid

_ANSWER_S = 10.0  # for all together; a process that holds its interpreter's lock may take seconds
_DEATH_S = 5.0
_ADDRESSES = 16


class Adopted(NamedTuple):
    """What lives on: processes by slot, and by their kind the listening sockets that one of them gave."""

    children: dict[int, Child]
    listeners: dict[str, list[socket.socket]]


def control_path(runtime: Path, slot: int) -> Path:
    """Where the process of a slot waits for a supervisor."""
    return runtime / f"member-{slot}.sock"


def live_slots(board: Board) -> list[int]:
    """The slots whose workers and hosts still run."""
    slots = []
    for slot in range(1, SLOTS):
        held = board.head(slot, Head.ROLE) in (Role.WORKER, Role.HOST, Role.CONTROLLER)
        if held and is_alive(board.head(slot, Head.PID), board.head(slot, Head.START)):
            slots.append(slot)
    return slots


def adopt(wish: Wish, board: Board) -> Adopted:
    """Take over every process that runs on this board.

    One that does not answer is killed: a new one takes its place. Raises ConflictError CL-E501 when what
    runs was started by another wish; it is left as it is.
    """
    deadline = time.monotonic() + min(_ANSWER_S, wish.stuck_s)
    adopted = Adopted({}, {})
    takers = Counter(where.taker for where in wish.listen)
    others = []
    for slot in live_slots(board):
        pid, start = board.head(slot, Head.PID), board.head(slot, Head.START)
        greeted = _greet(control_path(wish.runtime, slot), deadline)
        if greeted is None or greeted[0].get("pid") != pid:
            _kill(pid, start)
            continue
        hello, descriptors, leash = greeted
        if hello["digest"] != wish.digest:
            others.append(pid)
        kind = hello["role"]
        if len(descriptors) == takers[kind] and kind not in adopted.listeners:
            adopted.listeners[kind] = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        else:
            for descriptor in descriptors:
                os.close(descriptor)
        child = adopted.children[slot] = Child(pid, start, leash)
        child.config = hello.get("config")
    if others:
        raise _conflict(wish, others)
    for listener in (one for taken in adopted.listeners.values() for one in taken):
        listener.setblocking(False)
    return adopted


def _greet(path: Path, deadline: float) -> tuple[dict[str, Any], list[int], socket.socket] | None:
    leash = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    said, descriptors = b"", list[int]()
    try:
        leash.settimeout(max(0.05, deadline - time.monotonic()))
        leash.connect(str(path))
        if peer_uid(leash) != os.getuid():
            raise ConnectionError("another user's")
        while not said.endswith(b"\n"):
            part, more, _, _ = socket.recv_fds(leash, 4096, _ADDRESSES)
            descriptors += more
            said += part
            if not part:
                raise ConnectionError("closed before its hello")
        hello = json.loads(said.partition(b"\n")[0])
    except (OSError, ValueError):
        for descriptor in descriptors:
            os.close(descriptor)
        leash.close()
        return None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    leash.setblocking(False)
    return hello, descriptors, leash


def _kill(pid: int, start: int) -> None:
    deadline = time.monotonic() + _DEATH_S
    while is_alive(pid, start) and time.monotonic() < deadline:
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _conflict(wish: Wish, pids: list[int]) -> ConflictError:
    return ConflictError(
        f"{describe(read_note(wish.runtime))} still runs without a supervisor, "
        f"and was started otherwise than this",
        code="CL-E501",
        where=str(wish.runtime),
        hint=f"start it as it was started to take it over, or stop it: kill {' '.join(map(str, pids))}",
    )
