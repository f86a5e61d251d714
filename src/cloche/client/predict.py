"""A prediction from what the caller holds to the same kind back: a talk with the server, in chunks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec
import narwhals as nw
import numpy as np

from cloche.client.answers import Prediction, error_of, many_predictions, one_prediction
from cloche.client.arrays import HEADER_LENGTH, from_answers, spread, to_requests
from cloche.client.frames import (
    ARROW,
    ARROW_FROM,
    as_frame,
    check_sendable,
    find_arrow,
    from_predictions,
    from_streams,
    to_streams,
)
from cloche.client.rows import Row, encode_chunks, encode_row
from cloche.client.talk import Call, Talk, ask
from cloche.core.errors import ConfigError
from cloche.core.signature import Array, Signature

_JSON = {"Content-Type": "application/json"}
#: What a server answers that does not take Arrow, or has no pyarrow to read it with.
_NO_ARROW = ("CL-E115", "CL-E701")


class Link:
    """A Link is what a client learns of its server while they talk."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.takes_arrow = True
        self.signatures: dict[str, Signature] = {}


class Question:
    """A Question is whom to ask, of which version, and for how long to wait."""

    def __init__(self, link: Link, name: str, version: int | None, timeout_s: float, deadline_s: float) -> None:
        self._link = link
        self._version = version
        self._timeout_s = timeout_s
        self._deadline = {"Cloche-Deadline": f"{max(1, math.ceil(deadline_s * 1000))}ms"}
        self._path = f"/predict/{quote(name, safe='')}"
        versioned = "" if version is None else f"/versions/{version}"
        self._model_path = f"/v2/models/{quote(name, safe='')}{versioned}"

    def predict(self, rows: Any) -> Talk[Any]:
        """The talk about rows of any kind; its value is of the same kind."""
        if isinstance(rows, Mapping):
            response = yield from self._rows(encode_row(rows))
            return one_prediction(_read(response))
        if isinstance(rows, np.ndarray):
            return (yield from self._array(rows))
        frame = as_frame(rows)
        if frame is not None:
            return (yield from self._frame(frame))
        return (yield from self._many(_mappings(rows)))

    def signature(self) -> Talk[Signature]:
        """The talk about what the model takes and gives."""
        call = Call(method="GET", path=self._model_path, timeout_s=self._timeout_s)
        response = yield from self._checked(call)
        return msgspec.json.decode(response.content, type=Signature)

    def _many(self, rows: Iterable[Row]) -> Talk[list[Prediction]]:
        predictions: list[Prediction] = []
        for _, body in encode_chunks(rows):
            response = yield from self._rows(body, len(predictions))
            predictions += many_predictions(_read(response), len(predictions))
        return predictions

    def _frame(self, frame: nw.DataFrame[Any]) -> Talk[Any]:
        check_sendable(frame)
        arrow = find_arrow() if self._link.takes_arrow and len(frame) >= ARROW_FROM else None
        streams = None if arrow is None else to_streams(frame, arrow)
        if streams is not None:
            bodies: list[bytes] | None = yield from self._arrow(streams)
            if bodies is not None:
                return from_streams(bodies, frame, arrow)
        predictions = yield from self._many(frame.iter_rows(named=True))
        return from_predictions(predictions, frame)

    def _arrow(self, streams: list[tuple[int, bytes]]) -> Talk[list[bytes] | None]:
        """The answers' bodies; None where this server does not speak Arrow."""
        bodies: list[bytes] = []
        start = 0
        for rows, content in streams:
            call = self._call(self._path, content, {"Content-Type": ARROW, "Accept": ARROW}, query=True)
            response = yield from ask(call, self._link.origin)
            if response.status_code != 200:
                error = error_of(response, start)
                if start == 0 and error.code in _NO_ARROW:
                    self._link.takes_arrow = False
                    return None
                raise error
            bodies.append(response.content)
            start += rows
        return bodies

    def _array(self, array: Array) -> Talk[Array]:
        signature = self._link.signatures.get(self._model_path)
        if signature is None:
            signature = self._link.signatures[self._model_path] = yield from self.signature()
        answers = []
        start = 0
        for rows, length, body in to_requests(spread(array, signature.inputs)):
            headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(length)}
            response = yield from self._checked(self._call(f"{self._model_path}/infer", body, headers), start)
            answers.append((response.content, response.headers))
            start += rows
        return from_answers(answers)

    def _rows(self, body: bytes, start: int = 0) -> Talk[httpx2.Response]:
        return (yield from self._checked(self._call(self._path, body, _JSON, query=True), start))

    def _checked(self, call: Call, start: int = 0) -> Talk[httpx2.Response]:
        response = yield from ask(call, self._link.origin)
        if response.status_code != 200:
            raise error_of(response, start)
        return response

    def _call(self, path: str, content: bytes, headers: Mapping[str, str], *, query: bool = False) -> Call:
        return Call(
            path=path,
            query={"version": str(self._version)} if query and self._version is not None else {},
            headers={**headers, **self._deadline},
            content=content,
            timeout_s=self._timeout_s,
        )


def _read(response: httpx2.Response) -> dict[str, Any]:
    return msgspec.json.decode(response.content, type=dict[str, Any])


def _mappings(rows: Any) -> Iterator[Row]:
    """The rows of a list of mappings; ConfigError for anything else, before a byte is sent."""
    if not isinstance(rows, (list, tuple)):
        raise ConfigError(
            f"rows can't be sent from a {type(rows).__name__}",
            hint="give one mapping of field to value, a list of them, a data frame or a numpy array",
        )
    odd = next((row for row in rows if not isinstance(row, Mapping)), None)
    if odd is not None:
        raise ConfigError(
            f"a row is a {type(odd).__name__}, not a mapping of field to value", hint='send [{"age": 41}, …]'
        )
    return iter(rows)
