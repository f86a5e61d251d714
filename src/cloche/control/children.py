"""Processes as their supervisor holds them: started or adopted, watched, signalled, never waited for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from cloche.core.member import pass_json
from cloche.core.platform import is_alive, process_start

_DELAYS_S = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
_WORDS = 65536


class Child:
    """A Child is a running process: its id, the leash it holds, and what it said before it died.

    `status` is the exit code, negative for a signal; None while it lives, or when it was not ours to reap. `asked`
    is what it wants of its supervisor, which takes it from there: of each event the last. `config` is what a host
    that was adopted says that it was told.
    """

    def __init__(
        self, pid: int, start: int, leash: socket.socket, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.pid = pid
        self.start = start
        self.leash = leash
        self.since = time.monotonic()
        self.status: int | None = None
        self.words = ""
        self.asked: dict[str, dict[str, Any]] = {}
        self.config: dict[str, Any] | None = None
        self.killed_for = ""  # why its supervisor killed it
        self._said = b""
        self._process = process
        self.pidfd = _open_pidfd(pid, start)

    @classmethod
    def spawn(
        cls, argv: tuple[str, ...], task: dict[str, Any], listeners: list[socket.socket], folder: Path
    ) -> Child:
        """Start a process of a session of its own and hand it `task`; OSError when that can't be done."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        sockets = [listener.fileno() for listener in listeners]
        descriptor = pass_json({**task, "sockets": sockets, "leash": theirs.fileno()}, folder)
        try:
            process = subprocess.Popen(
                [*argv, str(descriptor)],
                stdin=subprocess.DEVNULL,
                stdout=2,  # our stdout is the banner's: what a model prints belongs to the log
                pass_fds=(descriptor, theirs.fileno(), *sockets),
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            os.close(descriptor)
            theirs.close()
        return cls(process.pid, process_start(process.pid), ours, process)

    def is_dead(self) -> bool:
        """Whether the process has ended; reaps it when it is ours."""
        if self._process is not None:
            self.status = self._process.poll()
            return self.status is not None
        return not is_alive(self.pid, self.start)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this very process, never to a later one with its id."""
        with contextlib.suppress(ProcessLookupError):
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, number)
            elif not self.is_dead():
                os.kill(self.pid, number)

    def listen(self) -> bool:
        """Take in what the child says; False once its end of the leash is closed."""
        try:
            said = self.leash.recv(_WORDS)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._said = (self._said + said)[-_WORDS:]
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict) and message.get("event") == "failed":
                    self.words = str(message.get("words"))
                elif isinstance(message, dict) and message.get("event") in ("scale", "hosts"):
                    self.asked[message["event"]] = message
        return bool(said)

    def close(self) -> None:
        """Let go of a dead child's descriptors, having read its last words."""
        # bounded: a process that the child left behind may hold the other end and go on talking
        for _ in range(16):
            if not self.listen():
                break
        self.leash.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


def backoff_s(failures: int) -> float:
    """How long to wait before the next try after so many failures in a row: 0, 0.1, 0.2 … 5 s."""
    return _DELAYS_S[min(max(failures, 1), len(_DELAYS_S)) - 1]


def describe_exit(status: int | None) -> str:
    """`killed by SIGKILL`, `exit code 3`, or what is known of a process that was not ours to reap."""
    if status is None:
        return "its exit code is not known"
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _open_pidfd(pid: int, start: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    if start and process_start(pid) != start:
        os.close(descriptor)
        return None
    return descriptor
