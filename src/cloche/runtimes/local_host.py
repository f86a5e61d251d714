"""A runtime host of this process's own: a child that ends when it is closed, and when this process does."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cloche.core.aside import in_front
from cloche.core.errors import ClocheError, ConfigError, MissingExtraError, ModelError, RefusedError
from cloche.core.signature import Signature

#: How long a class may take to load.
LOAD_TIMEOUT_S = 300.0
_END_S = 5.0
LENGTH = struct.Struct("!Q")
_MAX_WORDS = 1 << 16


class HostTask(msgspec.Struct, frozen=True, kw_only=True):
    """A HostTask is what a local host is to run; it comes by the leash, before the leash is one."""

    socket: str
    digest: str
    entry: str
    signature: Signature
    files: dict[str, bytes]


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """A HostReport says that the host serves, or why it can't."""

    ready: bool = False
    kind: str = ""
    code: str = ""
    message: str = ""
    hint: str | None = None


class LocalHost:
    """A LocalHost is a running host of this process's own; `socket` is where it listens."""

    def __init__(self, socket_path: str, process: subprocess.Popen[bytes], leash: socket.socket) -> None:
        self.socket = socket_path
        self.pid = process.pid
        self._process = process
        self._end = weakref.finalize(self, _end, os.getpid(), process, leash, Path(socket_path).parent)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the process; a second call does nothing. Called at the interpreter's end as well."""
        self._end()


_in_host = False


def forbid_hosts() -> None:
    """Make `start_host` refuse in this process, which is a host itself.

    A file that packs its own class when it is imported would start hosts without end.
    """
    global _in_host  # noqa: PLW0603 a fact of the process, set once at its start
    _in_host = True


def start_host(
    entry: str,
    signature: Signature,
    files: Mapping[str, bytes],
    digest: str,
    *,
    timeout_s: float = LOAD_TIMEOUT_S,
    output: int | None = None,
) -> LocalHost:
    """A host that has loaded `entry` (`code/sentiment.py:Sentiment`) from `files` and serves.

    Raises what the host says: ConfigError for a class that can't be called, ModelError for what its code
    raised, MissingExtraError for a module that is not there.
    """
    if _in_host:
        raise ConfigError(
            "the file that defines the class packs or loads it when it is imported",
            hint='put that under `if __name__ == "__main__":`, or the class into a file of its own',
        )
    folder = Path(tempfile.mkdtemp(prefix="cloche-host-"))
    path = str(folder / "host.sock")
    task = HostTask(socket=path, digest=digest, entry=entry, signature=signature, files=dict(files))
    leash, theirs = socket.socketpair()
    with theirs:
        # -P: the current folder is no place to import from
        argv = [sys.executable, "-P", "-m", "cloche.app.host", "--alone", str(theirs.fileno())]
        pass_fds = [theirs.fileno()]
        process = in_front(
            lambda: subprocess.Popen(
                argv, pass_fds=pass_fds, stdin=subprocess.DEVNULL, stderr=output, start_new_session=True
            )
        )
    host = LocalHost(path, process, leash)
    try:
        _hand_over(leash, task, time.monotonic() + timeout_s)
    except TimeoutError as error:
        host.close()
        raise ModelError(f"the class took more than {timeout_s:g} s to load", code="CL-E902") from error
    except (EOFError, OSError) as error:
        host.close()  # which waits for its end, or makes it
        raise ModelError(
            f"the host ended with code {process.returncode} while it loaded {entry}", code="CL-E902"
        ) from error
    except BaseException:
        host.close()
        raise
    return host


def _hand_over(leash: socket.socket, task: HostTask, deadline: float) -> None:
    data = msgspec.msgpack.encode(task)
    leash.settimeout(max(deadline - time.monotonic(), 0.001))
    leash.sendall(LENGTH.pack(len(data)))
    leash.sendall(data)
    report = msgspec.json.decode(_read_line(leash, deadline), type=HostReport)
    if not report.ready:
        families: tuple[type[ClocheError], ...] = (ConfigError, MissingExtraError, RefusedError)
        kinds = {kind.__name__: kind for kind in families}
        raise kinds.get(report.kind, ModelError)(report.message, code=report.code, hint=report.hint)


def _read_line(leash: socket.socket, deadline: float) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        leash.settimeout(max(deadline - time.monotonic(), 0.001))
        chunk = leash.recv(4096)
        if not chunk or len(line) > _MAX_WORDS:
            raise EOFError
        line += chunk
    return bytes(line)


def _end(owner: int, process: subprocess.Popen[bytes], leash: socket.socket, folder: Path) -> None:
    if os.getpid() != owner:  # a fork of the owner ends: the host is not its own
        return
    leash.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    shutil.rmtree(folder, ignore_errors=True)
