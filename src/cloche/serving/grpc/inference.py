"""One ModelInfer call: from its message to the model and back, as `exchange.Exchange` does it for HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cloche.core.errors import ClocheError
from cloche.engine.queue import Answer as Outcome
from cloche.serving.grpc.dialect import read
from cloche.serving.grpc.messages import ModelInferRequest
from cloche.serving.grpc.status import Reply, reply_of
from cloche.serving.http import LARGE
from cloche.serving.predictions import GONE, Asked, Predictions
from cloche.serving.protocols.base import Answer

if TYPE_CHECKING:
    from cloche.serving.grpc.calls import Calls

INFER = b"/inference.GRPCInferenceService/ModelInfer"


class Inference:
    """An Inference is the Batcher's Receiver: the reply is told in the turn of the loop in which the batch ends.

    What is large is read, and its answer written, on the side thread.
    """

    __slots__ = (
        "_asked",
        "_calls",
        "_deadline",
        "_headers",
        "_is_done",
        "_predictions",
        "_size",
        "_tell",
        "_then",
    )

    def __init__(
        self,
        calls: Calls,
        headers: Mapping[bytes, bytes],
        deadline: float | None,
        tell: Callable[[Reply], None],
    ) -> None:
        self._calls = calls
        self._headers = headers
        self._deadline = deadline
        self._tell = tell
        self._asked: Asked | None = None
        self._predictions: Predictions | None = None
        self._size = 0
        self._is_done = False
        self._then: Callable[..., object] | None = None

    def run(self, body: bytes) -> None:
        self._size = len(body)
        if self._size > LARGE:
            self._start(self._run_large(body))
            return
        try:
            asked, predictions, message = self._begin(read(ModelInferRequest, body))
            predictions.put(asked, predictions.decode(asked, message), self)
        except Exception as error:  # noqa: BLE001 - the edge of the process: a bug is one caller's failure
            self._refuse(error)

    async def _run_large(self, body: bytes) -> None:
        aside = self._calls.app.aside
        try:
            message = await aside(self._size, read, ModelInferRequest, body)
            if self._is_done:
                return
            asked, predictions, message = self._begin(message)
            columns = await aside(self._size, predictions.decode, asked, message)
            if not self._is_done:
                predictions.put(asked, columns, self)
        except Exception as error:  # noqa: BLE001 - the edge of the process, as above
            self._refuse(error)

    def _begin(self, message: Any) -> tuple[Asked, Predictions, Any]:
        way, dialect = self._calls.way(message.model_name, message.model_version, self._headers)
        predictions = self._predictions = way.predictions
        asked = self._asked = predictions.begin(dialect, self._headers, way.arm)
        predictions.admit(asked, b"")
        if self._deadline is not None:
            asked.deadline = self._deadline
        return asked, predictions, message

    def done(self) -> bool:
        return self._is_done

    def add_done_callback(self, callback: Callable[..., object], /) -> None:
        self._then = callback

    def set_result(self, result: Outcome, /) -> None:
        if self._size > LARGE:
            self._start(self._answer_large(result))
            return
        assert self._asked is not None and self._predictions is not None
        try:
            self._end(self._predictions.answer(self._asked, result))
        except Exception as error:  # noqa: BLE001 - the edge of the process, as above
            self._refuse(error)

    async def _answer_large(self, result: Outcome) -> None:
        assert self._asked is not None and self._predictions is not None
        try:
            answer = await self._calls.app.aside(self._size, self._predictions.answer, self._asked, result)
        except Exception as error:  # noqa: BLE001 - the edge of the process, as above
            self._refuse(error)
        else:
            self._end(answer)

    def set_exception(self, exception: ClocheError, /) -> None:
        self._refuse(exception)

    def abandon(self) -> None:
        """The caller went away: what it asked for need not run."""
        if not self._is_done:
            self._finish(GONE)

    def _refuse(self, error: Exception) -> None:
        if self._is_done:
            return
        if self._asked is None or self._predictions is None:
            self._is_done = True
            self._tell(self._calls.refuse(error, self._headers))
        else:
            self._end(self._predictions.refuse(self._asked, error))

    def _end(self, answer: Answer) -> None:
        if not self._is_done:
            self._finish(answer.status)
            self._tell(reply_of(answer))

    def _finish(self, status: int) -> None:
        self._is_done = True
        if self._asked is not None and self._predictions is not None:
            self._predictions.finish(self._asked, status)
        if self._then is not None:
            self._then(self)

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._calls.running.add(task)
        task.add_done_callback(self._calls.running.discard)
