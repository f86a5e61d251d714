"""The short way of a prediction: from the connection to the model and back without a task, in one write.

It carries a POST of rows whose body is small and whole; everything else goes over ASGI (`http.App`), which
costs a task, an event and two writes a request. Why there are two ways: docs/decisions, number 4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from cloche.engine.batcher import Answer as Outcome
from cloche.serving.predictions import GONE, Asked, Predictions
from cloche.serving.protocols.base import Answer, Dialect
from cloche.serving.state import WorkerState

#: Bodies up to so many bytes take the short way; above it uvicorn's flow control is wanted.
LARGEST = 64 * 1024


class Exchange:
    """An Exchange is one request and its answer on a connection that has no other under way.

    To uvicorn's protocol it looks like a cycle of its own (`body`, `more_body`, `response_complete`,
    `disconnected`, `keep_alive`, `message_event`), so that requests behind it wait, and drain and loss of the
    connection reach it.
    """

    __slots__ = (
        "_asked",
        "_future",
        "_on_response",
        "_predictions",
        "_state",
        "_transport",
        "body",
        "keep_alive",
        "more_body",
        "response_complete",
    )

    def __init__(
        self,
        predictions: Predictions,
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
        self._predictions = predictions
        self._state = state
        self._transport = transport
        self._on_response = on_response
        self._future: asyncio.Future[Outcome] | None = None

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
        if self._future is not None:
            self._future.cancel()

    def run(self, dialect: Dialect, headers: Mapping[bytes, bytes], query: bytes) -> None:
        """The body is whole: ask, and write the answer when it is there."""
        self.more_body = False
        asked = self._predictions.begin(dialect, headers)
        try:
            self._predictions.admit(asked, query)
            future = self._predictions.submit(asked, bytes(self.body))
        except Exception as error:  # noqa: BLE001 - the edge of the process: a bug is one caller's 500
            self._write(asked, self._predictions.refuse(asked, error))
            return
        self._asked = asked
        self._future = future
        future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Outcome]) -> None:
        asked = self._asked
        if future.cancelled() or self._transport.is_closing():
            if not future.cancelled():
                future.exception()  # seen, so that asyncio does not log it as forgotten
            self.response_complete = True
            self._predictions.finish(asked, GONE)
            return
        try:
            answer = self._predictions.answer(asked, future.result())
        except Exception as error:  # noqa: BLE001 - the edge of the process, as above
            answer = self._predictions.refuse(asked, error)
        self._write(asked, answer)

    def _write(self, asked: Asked, answer: Answer) -> None:
        parts = [STATUS_LINE[answer.status], self._state.date_line]
        for name, value in answer.headers:
            parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive or self._state.closes_next():
            self.keep_alive = False
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", answer.body)
        self._transport.write(b"".join(parts))
        self.response_complete = True
        if not self.keep_alive:
            self._transport.close()
        self._predictions.finish(asked, answer.status)
        self._on_response()
