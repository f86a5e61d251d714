"""The asking end of a runtime host's unix socket: one connection, one request at a time."""

from __future__ import annotations

import os
import socket
import time

from cloche.core.errors import BusyError, ClocheError, InputError, ModelError
from cloche.core.platform import peer_uid
from cloche.core.signature import Columns
from cloche.runtimes.frames import (
    Begun,
    FrameError,
    FrameReader,
    Problem,
    Reply,
    Request,
    pack_frame,
    read_columns,
)


class HostGoneError(Exception):
    """A host died, or answered what can't be understood; the connection is not to be used again."""

    def __init__(self, message: str, *, sent: bool, answered: bool, begun: bool) -> None:
        super().__init__(message)
        #: The host had the whole request.
        self.sent = sent
        #: A byte of the answer was seen.
        self.answered = answered
        #: The host had said that its model works on this very request.
        self.begun = begun


class Connection:
    """A Connection is one open stream to a host; after any error it can only be closed."""

    def __init__(self, path: str, timeout_s: float) -> None:
        """Raises OSError when nobody of this user's listens there."""
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._reader = FrameReader()
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(path)
            if peer_uid(self._socket) != os.getuid():
                raise ConnectionRefusedError(f"{path} belongs to another user")
        except BaseException:
            self._socket.close()
            raise

    def is_fresh(self) -> bool:
        """Whether the other end is there and has sent nothing unasked."""
        try:
            self._socket.setblocking(False)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def ask(self, request: Request, body: bytes) -> Columns:
        """The answer's columns.

        Raises HostGoneError, TimeoutError at the request's deadline, and what the host says: ModelError,
        BusyError or InputError.
        """
        sent = begun = False
        try:
            self._wait(request.deadline_ns)
            self._socket.sendall(pack_frame(request, body))
            sent = True
            while True:
                while (frame := self._reader.next()) is None:
                    self._wait(request.deadline_ns)
                    self._reader.receive(self._socket)
                header, payload = frame
                if header.digest != request.digest:
                    raise HostGoneError("it runs another bundle", sent=sent, answered=False, begun=False)
                if header.id != request.id:
                    raise FrameError("an answer to something else")
                if isinstance(header, Reply):
                    columns = read_columns(header.tensors, payload)
                    break
                if begun or not isinstance(header, Begun):
                    raise FrameError("no answer")
                begun = True
        except TimeoutError:
            raise
        except (EOFError, OSError, FrameError) as error:
            answered = isinstance(error, FrameError) or not self._reader.is_between
            words = str(error) or "it closed the connection"
            raise HostGoneError(words, sent=sent, answered=answered, begun=begun) from error
        if header.problem is not None:
            raise _error(header.problem)
        return columns

    def close(self) -> None:
        self._socket.close()

    def _wait(self, deadline_ns: int) -> None:
        left = deadline_ns - time.monotonic_ns()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left / 1e9)


def _error(told: Problem) -> ClocheError:
    families: dict[str, type[ClocheError]] = {"CL-E1": InputError, "CL-E6": BusyError}
    family = families.get(told.code[:5], ModelError)
    try:
        return family(told.message, code=told.code, hint=told.hint, details=told.details)
    except ValueError:  # a code of another release's
        return ModelError(told.message)
