"""A runtime host: one process that runs one bundle behind a unix socket, for the workers of a machine.

One thread does everything: it takes the frames that have come, joins what can be joined into one call of the
model, answers, and looks again. What comes while the model works waits in the sockets and is joined next.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import time
from collections import deque
from pathlib import Path
from typing import Protocol

from cloche.core.board import Head, Slot
from cloche.core.errors import ClocheError, ConfigError, InputError, ModelError
from cloche.core.platform import peer_uid
from cloche.core.signature import Columns, Signature, count_rows, join_rows, take_rows
from cloche.runtimes.frames import (
    Begun,
    FrameError,
    FrameReader,
    Header,
    Problem,
    Reply,
    Request,
    pack_columns,
    pack_frame,
    read_columns,
)

MAX_CONNECTIONS = 256
MAX_WAITING = 1_024
#: Rows that are joined into one call.
MAX_ROWS = 8_192
#: A call that goes on so long after the last of its deadlines will not come back.
STUCK_S = 30.0
_MAX_SOCKET_PATH = 100
_MOST_DETAILS = 20
#: How long a draining host goes on trying to hand over its last answers.
_GOODBYE_S = 5.0

logger = logging.getLogger("cloche.host")


class Caller:
    """A Caller is one connection: what it sent so far, and what it has not taken yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.reader = FrameReader()
        self.unsent = bytearray()


class Waiting:
    """A Waiting is one request that was read and not yet run."""

    def __init__(self, caller: Caller, request: Request, columns: Columns) -> None:
        self.caller = caller
        self.request = request
        self.columns = columns
        self.rows = count_rows(columns)
        self.kind = tuple((name, column.dtype, column.shape[1:]) for name, column in columns.items())


class Model(Protocol):
    """A Model is what a host runs: a loaded class, or a graph."""

    def run(self, columns: Columns, signature: Signature) -> Columns:
        """The outputs; may raise anything."""
        ...


class Host:
    """A Host serves one loaded model on a unix socket until it is drained."""

    def __init__(
        self,
        model: Model,
        signature: Signature,
        digest: str,
        path: Path,
        slot: Slot | None = None,
        executing: int = 0,
    ) -> None:
        """`executing` is what stands on the slot while the model works: the hash of whom to blame for an end."""
        self.path = path
        self._model = model
        self._signature = signature
        self._digest = digest
        self._slot = slot
        self._executing = executing
        self._waiting: deque[Waiting] = deque()
        self._callers: set[Caller] = set()
        self._draining = False
        self._call_until_ns: int | None = None
        self._selector = selectors.DefaultSelector()
        self._listener = listen(path)
        self._inode = path.stat().st_ino
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wakes, self._wake = socket.socketpair()
        self._wakes.setblocking(False)
        self._wake.setblocking(False)
        self._selector.register(self._wakes, selectors.EVENT_READ)

    def drain(self) -> None:
        """Ask `serve` to answer what has come and return; from any thread."""
        self._draining = True
        with contextlib.suppress(OSError):
            self._wake.send(b"d")

    def is_stuck(self) -> bool:
        """Whether the model works on a call that everybody has given up `STUCK_S` ago; from any thread."""
        until_ns = self._call_until_ns
        return until_ns is not None and time.monotonic_ns() > until_ns + STUCK_S * 1e9

    def serve(self) -> None:
        """Answer until drained. The model runs in the calling thread."""
        try:
            while not self._draining:
                self._turn(0 if self._waiting else None)
            self._stop_listening()
            self._turn(0)
            while self._waiting:
                self._turn(0)
            goodbye = time.monotonic() + _GOODBYE_S
            while any(caller.unsent for caller in self._callers) and time.monotonic() < goodbye:
                self._turn(0.05)
        finally:
            self._close()

    def _turn(self, timeout: float | None) -> None:
        """Read and write what is ready, then run one call of the model."""
        for key, events in self._selector.select(timeout):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._wakes:
                with contextlib.suppress(BlockingIOError):
                    self._wakes.recv(64)
            else:
                caller: Caller = key.data
                if events & selectors.EVENT_WRITE:
                    self._flush(caller)
                if events & selectors.EVENT_READ and caller in self._callers:
                    self._read(caller)
        if self._waiting:
            self._run(self._take())

    def _accept(self) -> None:
        """Take every caller who knocks, and what they have brought, so that it is joined in this turn."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if len(self._callers) >= MAX_CONNECTIONS or not _is_ours(connection):
                connection.close()
                continue
            connection.setblocking(False)
            caller = Caller(connection)
            self._callers.add(caller)
            self._selector.register(connection, selectors.EVENT_READ, caller)
            self._read(caller)

    def _read(self, caller: Caller) -> None:
        """Take every frame that has come; a caller that left takes its waiting requests along."""
        try:
            while True:
                caller.reader.receive(caller.connection)
                while (frame := caller.reader.next()) is not None:
                    self._receive(caller, *frame)
        except BlockingIOError:
            return
        except (EOFError, OSError):
            self._drop(caller)
        except FrameError as error:
            logger.warning("a connection was dropped: %s", error, extra={"action": "connection_dropped"})
            self._drop(caller)

    def _receive(self, caller: Caller, header: Header, body: bytearray) -> None:
        if not isinstance(header, Request):
            raise FrameError("no request")
        if header.digest != self._digest:
            self._refuse(caller, header, "CL-E902", "this host runs another bundle")
        elif len(self._waiting) >= MAX_WAITING:
            self._refuse(caller, header, "CL-E601", f"{MAX_WAITING} requests wait for the model")
        else:
            self._waiting.append(Waiting(caller, header, read_columns(header.tensors, body)))

    def _take(self) -> list[Waiting]:
        """The next call's requests: the first that waits, and those after it that can be joined with it."""
        now = time.monotonic_ns()
        batch: list[Waiting] = []
        rows = 0
        while self._waiting:
            first = self._waiting[0]
            if first.request.deadline_ns <= now:
                self._waiting.popleft()
                self._refuse(first.caller, first.request, "CL-E602", "the deadline passed in the queue")
                continue
            if batch and (first.request.alone or first.kind != batch[0].kind or rows + first.rows > MAX_ROWS):
                break
            batch.append(self._waiting.popleft())
            rows += first.rows
            if first.request.alone:
                break
        return batch

    def _run(self, batch: list[Waiting]) -> None:
        """One call for the whole batch; when that fails, one for each, so that a poisonous row fails alone."""
        if not batch:
            return
        if batch[0].request.alone:
            self._send(batch[0].caller, pack_frame(Begun(batch[0].request.id, self._digest)))
        if self._slot is not None:
            self._slot.set(Head.IN_FLIGHT, len(batch))
            self._slot.set(Head.EXECUTING, self._executing)
        self._call_until_ns = max(waiting.request.deadline_ns for waiting in batch)
        if len(batch) == 1 or not self._run_joined(batch):
            for waiting in batch:
                if len(batch) > 1 and waiting.request.deadline_ns <= time.monotonic_ns():
                    self._refuse(waiting.caller, waiting.request, "CL-E602", "the deadline passed before its turn")
                else:
                    self._run_one(waiting)
        self._call_until_ns = None
        if self._slot is not None:
            self._slot.set(Head.EXECUTING, 0)
            self._slot.set(Head.IN_FLIGHT, 0)

    def _run_joined(self, batch: list[Waiting]) -> bool:
        try:
            answer = self._model.run(join_rows([waiting.columns for waiting in batch]), self._signature)
        except (Exception, SystemExit):  # noqa: BLE001 the model's own code: it may raise anything
            return False
        start = 0
        for waiting in batch:
            self._answer(waiting, take_rows(answer, start, start + waiting.rows))
            start += waiting.rows
        return True

    def _run_one(self, waiting: Waiting) -> None:
        try:
            answer = self._model.run(waiting.columns, self._signature)
        except (InputError, ModelError) as error:
            self._explain(waiting, error)
        except (Exception, SystemExit) as error:  # the model's own code: it may raise anything
            words = describe(error)
            logger.exception("predict raised %s", words, extra={"action": "model_raised"})
            self._refuse(waiting.caller, waiting.request, "CL-E900", words)
        else:
            self._answer(waiting, answer)

    def _answer(self, waiting: Waiting, answer: Columns) -> None:
        try:
            tensors, body = pack_columns(answer)
            frame = pack_frame(Reply(waiting.request.id, self._digest, tensors), body)
        except FrameError as error:
            self._refuse(waiting.caller, waiting.request, "CL-E901", f"the answer can't be sent: {error}")
        else:
            self._send(waiting.caller, frame)

    def _refuse(self, caller: Caller, request: Request, code: str, message: str) -> None:
        problem = Problem(code, message[:2_000])
        self._send(caller, pack_frame(Reply(request.id, self._digest, (), problem)))

    def _explain(self, waiting: Waiting, error: ClocheError) -> None:
        """Refuse with all that the error says; with its words alone where a model's code put odd things there."""
        details = tuple(dict(one) for one in error.details[:_MOST_DETAILS])
        problem = Problem(error.code, error.message[:2_000], error.hint, details)
        try:
            frame = pack_frame(Reply(waiting.request.id, self._digest, (), problem))
        except (FrameError, TypeError):
            self._refuse(waiting.caller, waiting.request, error.code, error.message)
        else:
            self._send(waiting.caller, frame)

    def _send(self, caller: Caller, frame: bytes) -> None:
        if caller not in self._callers:
            return
        if caller.unsent:
            caller.unsent += frame
            return
        try:
            sent = caller.connection.send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(caller)
            return
        if sent < len(frame):
            caller.unsent += memoryview(frame)[sent:]
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(caller.connection, both, caller)

    def _flush(self, caller: Caller) -> None:
        try:
            sent = caller.connection.send(caller.unsent)
        except BlockingIOError:
            return
        except OSError:
            self._drop(caller)
            return
        del caller.unsent[:sent]
        if not caller.unsent:
            self._selector.modify(caller.connection, selectors.EVENT_READ, caller)

    def _drop(self, caller: Caller) -> None:
        if caller in self._callers:
            self._callers.discard(caller)
            self._selector.unregister(caller.connection)
            caller.connection.close()
            self._waiting = deque(waiting for waiting in self._waiting if waiting.caller is not caller)

    def _stop_listening(self) -> None:
        self._selector.unregister(self._listener)
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_ino == self._inode:  # else it is a successor's by now
                self.path.unlink()
        self._listener.close()

    def _close(self) -> None:
        for caller in list(self._callers):
            self._drop(caller)
        self._selector.close()
        for end in (self._listener, self._wakes, self._wake):
            end.close()


def _is_ours(connection: socket.socket) -> bool:
    """Whether a process of this user's is at the other end; one that has left already is nobody's (macOS)."""
    try:
        return peer_uid(connection) == os.getuid()
    except OSError:
        return False


def listen(path: Path) -> socket.socket:
    """A listening unix socket at `path`, put there whole: whoever finds it can connect.

    Raises ConfigError for a path longer than unix sockets may have.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    if len(os.fsencode(beside)) > _MAX_SOCKET_PATH:
        raise ConfigError(
            f"{path} is too long for a unix socket", hint="set XDG_RUNTIME_DIR to a folder with a short path"
        )
    beside.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(beside))
        beside.chmod(0o600)
        listener.listen(MAX_CONNECTIONS)
        listener.setblocking(False)
        beside.rename(path)
    except BaseException:
        listener.close()
        raise
    return listener


def describe(error: BaseException) -> str:
    """`ValueError: no such word`, for people and for the other end."""
    if isinstance(error, ClocheError):
        return error.message
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
