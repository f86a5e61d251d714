"""What a child process does for its supervisor: heartbeat, leash, drain; standard library only.

The supervisor starts a child with the number of a descriptor as its last argument. `Member.from_fd` reads
one JSON task from it: {"slot", "role", "board", "control", "sockets", "leash", "digest", "orphan_s",
"lame_duck_s", "colour", "config"}. From then on one side thread keeps the child's heartbeat and its leash.

The *leash* is an open connection to a supervisor: an inherited socket pair at first; after the supervisor's
death whatever connects to the control socket (a unix socket of this user's only), which is greeted with one
JSON line and the listening sockets. A child without a leash for `orphan_s` seconds drains.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from cloche.core.board import Board, Head, Role, Slot, State
from cloche.core.errors import ClocheError
from cloche.core.platform import peer_uid, process_start

BEAT_S = 1.0
_LEASHES = 8
_ORPHAN = 143  # as if told to stop before the start


class Member:
    """A Member is this process as its supervisor sees it; made once, in the main thread.

    `config` is the task's, `sockets` are the listening sockets that the supervisor owns (shared: closing them
    here closes them here only), `lame_duck_s` is how long to go on accepting once `draining`, and `colour` is
    for words on a terminal.
    """

    def __init__(self, task: dict[str, Any]) -> None:
        self.config: dict[str, Any] = task["config"]
        self.lame_duck_s: float = task["lame_duck_s"]
        self.colour: bool = task.get("colour", False)
        self.role = Role[task["role"].upper()]
        self.sockets = [socket.socket(fileno=descriptor) for descriptor in task["sockets"]]
        leash = socket.socket(fileno=task["leash"])
        leash.setblocking(False)
        if _is_closed(leash):
            # our supervisor died before we stood on the board: its successor doesn't know of us
            sys.exit(_ORPHAN)
        start = process_start(os.getpid())
        self.board = Board(Path(task["board"]))
        self.slot: Slot = self.board.claim(task["slot"], self.role, os.getpid(), start)
        hello = {
            "pid": os.getpid(),
            "start": start,
            "slot": task["slot"],
            "role": task["role"],
            "digest": task["digest"],
            # whoever takes over a host must know which it is
            "config": self.config if self.role is Role.HOST else None,
        }
        self._hello = json.dumps(hello).encode() + b"\n"
        self._orphan_s: float = task["orphan_s"]
        self._orphan_since: float | None = None
        self._draining = False
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._wake, wakes = socket.socketpair()
        self._wakes = wakes
        self._selector = selectors.DefaultSelector()
        self._selector.register(wakes, selectors.EVENT_READ)
        self._leashes = {leash}
        for inherited in (*self.sockets, leash):
            inherited.set_inheritable(False)
        for end in (*self.sockets, self._wake, wakes):
            end.setblocking(False)
        self._selector.register(leash, selectors.EVENT_READ)
        self._control = _listen(Path(task["control"]))
        self._selector.register(self._control, selectors.EVENT_READ)

    @classmethod
    def from_fd(cls, descriptor: int) -> Member:
        """Read the task, claim the slot, take SIGTERM and start the side thread. Main thread only."""
        member = cls(read_json(descriptor))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, member._on_signal)
        threading.Thread(target=member._run, name="cloche-member", daemon=True).start()
        return member

    def ready(self) -> None:
        """Say that this process serves now."""
        with self._lock:
            if not self._draining:
                self.slot.set(Head.STATE, State.READY)
        self._tell({"event": "ready"})

    def draining(self) -> bool:
        """Whether this process was asked to stop: no longer ready, to exit once nothing is in flight."""
        return self._draining

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once when the drain begins, at once if it has; in a thread of its own.

        From an event loop give `lambda: loop.call_soon_threadsafe(...)`.
        """
        with self._lock:
            begun = self._draining
            if not begun:
                self._callbacks.append(callback)
        if begun:
            threading.Thread(target=callback, name="cloche-drain", daemon=True).start()

    def drain(self) -> None:
        """Begin the drain, as SIGTERM does."""
        with self._lock:
            if self._draining:
                return
            self._draining = True
            self.slot.set(Head.STATE, State.DRAINING)
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            threading.Thread(target=callback, name="cloche-drain", daemon=True).start()

    def fail(self, error: ClocheError) -> int:
        """Tell the supervisor why this process can't start; return the exit code to leave with.

        The supervisor prints the words once for all children that fail alike; without one they go to stderr.
        """
        if not self._tell({"event": "failed", "words": error.render()}):
            print(error.render(), file=sys.stderr, flush=True)
        return error.exit_code

    def ask_for(self, kind: str, count: int) -> bool:
        """Ask the supervisor for so many processes of a kind; only a controller is heard."""
        return self._tell({"event": "scale", "kind": kind, "count": count})

    def ask_for_hosts(self, configs: list[dict[str, Any]]) -> bool:
        """Ask the supervisor for a host with each of these configs and no other; only a controller is heard."""
        return self._tell({"event": "hosts", "configs": configs})

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # only a byte is written here: the handler interrupts the main thread, which may hold the lock
        with contextlib.suppress(BlockingIOError):
            self._wake.send(b"d")

    def _tell(self, message: dict[str, Any]) -> bool:
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            leashes = list(self._leashes)
        told = False
        for leash in leashes:
            with contextlib.suppress(OSError):
                told = leash.send(line) == len(line) or told
        return told

    def _run(self) -> None:
        beat = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= beat:
                self.slot.beat()
                beat = now + BEAT_S
            orphan_left = self._orphan_left(now)
            if orphan_left <= 0:
                self.drain()
                orphan_left = BEAT_S
            for key, _ in self._selector.select(min(beat - now, orphan_left)):
                if key.fileobj is self._control:
                    self._accept()
                elif key.fileobj is self._wakes:
                    self._wakes.recv(64)
                    self.drain()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._read_leash(key.fileobj)

    def _orphan_left(self, now: float) -> float:
        if self._leashes or self._draining:
            self._orphan_since = None
            return BEAT_S
        if self._orphan_since is None:
            self._orphan_since = now
        return self._orphan_since + self._orphan_s - now

    def _accept(self) -> None:
        try:
            connection, _ = self._control.accept()
        except OSError:
            return
        try:
            if peer_uid(connection) != os.getuid() or len(self._leashes) >= _LEASHES:
                raise ConnectionRefusedError
            connection.settimeout(BEAT_S)
            # a listener that the server has closed for its drain has no number any more
            open_still = [listener.fileno() for listener in self.sockets if listener.fileno() >= 0]
            socket.send_fds(connection, [self._hello], open_still)
            connection.setblocking(False)
        except OSError:
            connection.close()
            return
        with self._lock:
            self._leashes.add(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _read_leash(self, leash: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                if leash.recv(4096):
                    return
            except ConnectionError:
                pass
            self._selector.unregister(leash)
            with self._lock:
                self._leashes.discard(leash)
            leash.close()


def pass_json(value: object, folder: Path) -> int:
    """A descriptor from which `value` can be read as JSON, by this process or one that inherits it.

    A file in `folder` (a private one) without a name, and not a pipe: a pipe takes 64 KiB before its writer
    waits for a reader.
    """
    path = folder / f".hand-over-{os.getpid()}"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    path.unlink()
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(json.dumps(value, separators=(",", ":")).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def read_json(descriptor: int) -> Any:
    """What `pass_json` (or anybody, through a pipe) put there; the descriptor is closed."""
    with os.fdopen(descriptor, "rb") as file:
        return json.loads(file.read())


def _is_closed(leash: socket.socket) -> bool:
    try:
        return leash.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(4)
    listener.setblocking(False)
    return listener
