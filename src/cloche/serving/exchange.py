"""The short way of a prediction: from the connection to the model and back without a task, in one write.

It carries a POST of rows whose body is small and whole; everything else goes over ASGI (`http.App`), which
costs a task, an event and two writes a request. Why there are two ways: docs/decisions, number 4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from cloche.core.errors import ClocheError
from cloche.engine.queue import Answer as Outcome
from cloche.serving.predictions import GONE, Asked
from cloche.serving.protocols.base import Answer
from cloche.serving.state import WorkerState
from cloche.serving.table import Way

#: Bodies up to so many bytes take the short way; above it uvicorn's flow control is wanted.
LARGEST = 64 * 1024


class Exchange:
    """An Exchange is one request and its answer on a connection that has no other under way.

    It is the Batcher's Receiver, so that the answer is written in the turn of the loop in which the batch ends.
    To uvicorn's protocol it looks like a cycle of its own (`body`, `more_body`, `response_complete`,
    `disconnected`, `keep_alive`, `message_event`), so that requests behind it wait, and drain and loss of the
    connection reach it.
    """

    __slots__ = (
        "_asked",
        "_on_response",
        "_predictions",
        "_state",
        "_then",
        "_transport",
        "_way",
        "body",
        "keep_alive",
        "more_body",
        "response_complete",
    )

    def __init__(
        self,
        way: Way,
        state: WorkerState,
        transport: asyncio.Transport,
        on_response: Callable[[], None],
        *,
        keep_alive: bool,
    ) -> None:
        self.body = bytearray()
        self.more_body = True
        self.response_complete = False
        self.keep_alive = keep_alive
        self._predictions = way.predictions
        self._way = way
        self._state = state
        self._transport = transport
        self._on_response = on_response
        self._asked: Asked | None = None
        self._then: Callable[..., object] | None = None

    @property
    def message_event(self) -> Exchange:
        return self

    def set(self) -> None:
        """Uvicorn's way to wake a reader; here nobody sleeps."""

    @property
    def disconnected(self) -> bool:
        return self._transport.is_closing()

    @disconnected.setter
    def disconnected(self, gone: bool) -> None:
        # the caller went away: what it asked for need not run
        if self._asked is not None and not self.response_complete:
            self._end(self._asked, GONE)

    def run(self, headers: Mapping[bytes, bytes], query: bytes) -> None:
        """The body is whole: ask, and write the answer when it is there."""
        self.more_body = False
        way = self._way
        asked = self._asked = way.predictions.begin(way.dialect, headers, way.arm)
        try:
            self._predictions.admit(asked, query)
            self._predictions.put(asked, self._predictions.decode(asked, bytes(self.body)), self)
        except Exception as error:  # noqa: BLE001 - the edge of the process: a bug is one caller's 500
            self._write(asked, self._predictions.refuse(asked, error))

    def done(self) -> bool:
        return self.response_complete

    def add_done_callback(self, callback: Callable[..., object], /) -> None:
        self._then = callback

    def set_result(self, result: Outcome, /) -> None:
        asked = self._asked
        assert asked is not None
        try:
            answer = self._predictions.answer(asked, result)
        except Exception as error:  # noqa: BLE001 - the edge of the process, as above
            answer = self._predictions.refuse(asked, error)
        self._write(asked, answer)

    def set_exception(self, exception: ClocheError, /) -> None:
        assert self._asked is not None
        self._write(self._asked, self._predictions.refuse(self._asked, exception))

    def _write(self, asked: Asked, answer: Answer) -> None:
        if self._transport.is_closing():
            self._end(asked, GONE)
            return
        parts = [STATUS_LINE[answer.status], self._state.date_line]
        for name, value in answer.headers:
            parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive or self._state.closes_next():
            self.keep_alive = False
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", answer.body)
        self._end(asked, answer.status)  # first, so that what a client has is counted, come what may
        self._transport.write(b"".join(parts))
        if not self.keep_alive:
            self._transport.close()
        self._on_response()

    def _end(self, asked: Asked, status: int) -> None:
        self.response_complete = True
        self._predictions.finish(asked, status)
        if self._then is not None:
            self._then(self)
