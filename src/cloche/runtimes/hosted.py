"""A bundle that answers from runtime hosts, never from this process: the asking side, with its retries."""

from __future__ import annotations

import hashlib
import itertools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable

from cloche.core.errors import BusyError, InputError, ModelError
from cloche.core.signature import Columns, Signature, count_rows, join_rows, take_rows
from cloche.runtimes.answers import fit
from cloche.runtimes.connection import Connection, HostGoneError
from cloche.runtimes.frames import FrameError, FrameTooLargeError, Request, Tensor, pack_columns
from cloche.runtimes.local_host import LocalHost
from cloche.runtimes.retry import RetryBudget, Suspects

#: Between two looks for a host while none is there.
_LOOK_S = 0.005
_TRIES = 4

logger = logging.getLogger("cloche.runtime")


class HostedRuntime:
    """A HostedRuntime asks the hosts of one bundle; it stays with the one that answered last.

    A host that fails is left for the next one. A request is tried once more, elsewhere, when no byte of its
    answer was seen and the retry budget allows it; one that killed two hosts is refused for ten minutes.
    """

    in_process = False

    def __init__(
        self,
        signature: Signature,
        digest: str,
        *,
        timeout_s: float,
        hosts: tuple[str, ...] = (),
        start: Callable[[], LocalHost] | None = None,
    ) -> None:
        """`hosts` are the unix socket paths of somebody else's; where there are none, `start` makes one.

        It is called again when that one dies. Raises what `start` does.
        """
        self._signature = signature
        self._digest = digest
        self._hosts = hosts
        self._timeout_s = timeout_s
        self._start = start
        self._starting = threading.Lock()
        self._host: LocalHost | None = None
        self._current = 0
        self._idle: defaultdict[str, list[Connection]] = defaultdict(list)
        self._lock = threading.Lock()
        self._closed = False
        self._ids = itertools.count(1)
        self._budget = RetryBudget(time.monotonic())
        self._suspects = Suspects()
        self._revive()

    @property
    def host_pid(self) -> int | None:
        """The process id of the host of its own; None where hosts are somebody else's."""
        return self._host.pid if self._host is not None else None

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        """All outputs of the signature.

        Raises ModelError (CL-E900 what the model raised, CL-E901 a wrong answer, CL-E902 its host died),
        BusyError when there is no answer within the time-out, InputError CL-E118 for a request that killed
        two hosts and CL-E113 for a row that fits into no frame.
        """
        if self._closed:
            raise ModelError("the model was closed")
        rows = count_rows(columns)
        try:
            tensors, body = pack_columns(columns)
        except FrameTooLargeError as error:
            if rows < 2:
                raise InputError(f"the row is too large: {error}", code="CL-E113") from error
            halves = (take_rows(columns, 0, rows // 2), take_rows(columns, rows // 2, rows))
            return join_rows([self.run(half, timeout_s) for half in halves])
        except FrameError as error:
            raise InputError(str(error), code="CL-E105") from error
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        return self._check(self._ask(tensors, body, rows, timeout_s), rows)

    def close(self) -> None:
        """Closes the connections and ends a host of its own."""
        self._closed = True
        with self._lock:
            idle = [connection for connections in self._idle.values() for connection in connections]
            self._idle.clear()
        for connection in idle:
            connection.close()
        with self._starting:
            if self._host is not None:
                self._host.close()

    def _revive(self) -> None:
        """Start a host of its own where that is how it runs and there is none."""
        if self._start is None:
            return
        with self._starting:
            if self._closed or (self._host is not None and self._host.is_alive()):
                return
            if self._host is not None:
                self._host.close()
            self._host = self._start()
            self._hosts = (self._host.socket,)

    def _ask(self, tensors: tuple[Tensor, ...], body: bytes, rows: int, timeout_s: float) -> Columns:
        deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        self._budget.call()
        suspect = rows == 1 and bool(self._suspects) and self._look(_fingerprint(tensors, body))
        retried, tries = False, 0
        while True:
            tries += 1
            request = Request(next(self._ids), self._digest, deadline_ns, tensors, suspect or retried)
            connection = self._connect(deadline_ns)
            try:
                answer = connection.ask(request, body)
            except HostGoneError as gone:
                self._leave(connection)
                deaths = self._blame(gone, _fingerprint(tensors, body), alone=request.alone) if rows == 1 else 0
                if deaths > 1:
                    raise _refused() from gone
                # a retry that no model began with was none: a dying host may still take connections
                is_spent = retried and (gone.begun or tries >= _TRIES)
                if gone.answered or is_spent or not (retried or self._budget.spend(time.monotonic())):
                    raise ModelError(f"the model's process died: {gone}", code="CL-E902") from gone
                retried = True
                if len(self._hosts) == 1:
                    time.sleep(tries * _LOOK_S)
            except TimeoutError as error:
                self._leave(connection)
                raise BusyError(f"the model gave no answer within {timeout_s:.3g} s", code="CL-E602") from error
            except (ModelError, BusyError, InputError):
                self._keep(connection)
                raise
            except BaseException:
                connection.close()
                raise
            else:
                self._keep(connection)
                if request.alone and rows == 1:
                    self._suspects.forgive(_fingerprint(tensors, body))
                return answer

    def _look(self, fingerprint: bytes) -> bool:
        """Whether the request is under suspicion. Raises InputError when it is known to kill hosts."""
        now = time.monotonic()
        if self._suspects.is_refused(fingerprint, now):
            raise _refused()
        return self._suspects.is_suspect(fingerprint, now)

    def _blame(self, gone: HostGoneError, fingerprint: bytes, *, alone: bool) -> int:
        """How many hosts the request has killed by now.

        One that was alone is to blame only if the model had begun with it: else another's killed the host.
        """
        if not gone.sent or (alone and not gone.begun):
            return 0
        deaths = self._suspects.blame(fingerprint, time.monotonic())
        logger.warning(
            "a host died with the request %s in flight",
            fingerprint.hex(),
            extra={"action": "host_died", "deaths": deaths},
        )
        return deaths

    def _connect(self, deadline_ns: int) -> Connection:
        """A connection to the host that answered last, else to the next that is there, waiting for one.

        Raises BusyError when there is none until the deadline.
        """
        while True:
            for _ in self._hosts:
                path = self._hosts[self._current % len(self._hosts)]
                if (connection := self._take_idle(path)) is not None:
                    return connection
                left_s = (deadline_ns - time.monotonic_ns()) / 1e9
                try:
                    return Connection(path, max(left_s, 0.001))
                except OSError:
                    self._next(path)
            self._revive()
            if self._closed or deadline_ns - time.monotonic_ns() < _LOOK_S * 1e9:
                raise BusyError("no process of the model's is up; it is being started", code="CL-E603")
            time.sleep(_LOOK_S)

    def _take_idle(self, path: str) -> Connection | None:
        while True:
            with self._lock:
                idle = self._idle[path]
                if not idle:
                    return None
                connection = idle.pop()
            if connection.is_fresh():
                return connection
            connection.close()

    def _keep(self, connection: Connection) -> None:
        with self._lock:
            if not self._closed:
                self._idle[connection.path].append(connection)
                return
        connection.close()

    def _leave(self, connection: Connection) -> None:
        connection.close()
        self._next(connection.path)

    def _next(self, path: str) -> None:
        """Turn to the next host, unless another thread has turned away from this one already."""
        with self._lock:
            if self._hosts[self._current % len(self._hosts)] == path:
                self._current += 1

    def _check(self, answer: Columns, rows: int) -> Columns:
        """The outputs as the signature says, since the other end is somebody's code. Raises ModelError."""
        outputs = self._signature.outputs
        if len(answer) != len(outputs):
            raise ModelError(f"the host gave {len(answer)} outputs, of {len(outputs)}", code="CL-E901")
        checked = {}
        for field in outputs:
            column = answer.get(field.name)
            if column is None or column.dtype != field.numpy_type or column.shape[0] != rows:
                raise ModelError(f"the host gave no {field.name!r} of {rows} rows", code="CL-E901")
            checked[field.name] = fit(column, field)
        return checked


def _fingerprint(tensors: tuple[Tensor, ...], body: bytes) -> bytes:
    digest = hashlib.blake2b(repr(tensors).encode(), digest_size=16)
    digest.update(body)
    return digest.digest()


def _refused() -> InputError:
    return InputError(
        "this input made the model's process crash twice; it is refused for ten minutes", code="CL-E118"
    )
