"""The ASGI callable: predictions straight from a table of paths, the rest through Starlette's pages."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

from cloche.core.errors import BusyError, ClocheError, InputError
from cloche.core.ids import PredictionIds
from cloche.serving.guard import check_path
from cloche.serving.inflate import TooLargeError, inflate
from cloche.serving.pages import Pages, not_allowed
from cloche.serving.predictions import GONE, bug, request_id_of
from cloche.serving.problems import headers_of, problem_body, status_of
from cloche.serving.protocols.base import Answer
from cloche.serving.state import WorkerState
from cloche.serving.table import Table, Way

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Bodies that are being read or answered may together take as much as so many of the largest.
MOST_BODIES = 4
#: Bodies of more bytes are decoded, and their answers encoded, on a side thread.
LARGE = 256 * 1024
T = TypeVar("T")


class Gone(Exception):  # noqa: N818 - not an error: nobody is there to hear of one
    """The caller went away before the answer was there."""


class App:
    """An App answers HTTP for one worker; every request passes its guard first."""

    def __init__(self, table: Table, pages: Pages, state: WorkerState, *, max_body: int) -> None:
        self.table = table
        #: Where rows go by their path: this very dict, whatever the table becomes.
        self.ways: dict[bytes, Way] = dict(table.ways)
        self._ids = PredictionIds()
        self._pages = pages
        self._state = state
        self.max_body = max_body
        self.held = 0  # bytes of bodies that are being read or answered, by whatever carries them
        # one: more would only take turns with the loop more often
        self._side = ThreadPoolExecutor(1, thread_name_prefix="bodies")
        self._aside_now = 0  # what runs or waits there

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        way = self.ways.get(scope["raw_path"])
        if way is not None and scope["method"] == "POST":
            await self._predict(way, scope, receive, send)
        else:
            await self._other(scope, receive, send)

    def turn_to(self, table: Table, pages: Pages) -> None:
        """Answer by another table from now on; who is being answered is not touched. In the event loop only."""
        self.table = table
        self._pages = pages
        self.ways.clear()
        self.ways.update(table.ways)

    def close(self) -> None:
        """End its threads; nothing may be asked any more."""
        for one in self.table.everyone:
            one.deployment.batcher.close()
        self._side.shutdown(wait=False, cancel_futures=True)

    async def _predict(self, way: Way, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if way.fork is not None:
            way = way.fork.choose(way, headers, scope["query_string"])
        predictions = way.predictions
        asked = predictions.begin(way.dialect, headers, way.arm)
        status = GONE
        held = 0
        try:
            try:
                predictions.admit(asked, scope["query_string"])
                body = await self._body(asked.headers, receive)
                coding = asked.headers.get(b"content-encoding")
                if coding is not None:
                    body = await self.aside(self.max_body, self.inflated, body, coding)
                held = len(body)
                self.held += held
                columns = await self.aside(held, predictions.decode, asked, body)
                outcome = await _unless_gone(predictions.submit(asked, columns), receive)
                answer = await self.aside(held, predictions.answer, asked, outcome)
            except Gone:
                return
            except Exception as error:  # noqa: BLE001 - the edge of the process: a bug is one caller's 500
                answer = predictions.refuse(asked, error)
            status = answer.status
            await self._send(send, answer)
        finally:
            self.held -= held
            predictions.finish(asked, status)

    async def aside(self, size: int, work: Callable[..., T], *arguments: Any) -> T:
        """What `work` gives; where it is for a body of so many bytes, so that others need not wait for it."""
        if size <= LARGE:
            return work(*arguments)
        self._aside_now += 1
        self._quiet_from(math.inf)  # the thread and the models take turns: a batch seems slower than it is
        try:
            return await asyncio.get_running_loop().run_in_executor(self._side, work, *arguments)
        finally:
            self._aside_now -= 1
            if self._aside_now == 0:
                self._quiet_from(time.monotonic())

    def _quiet_from(self, time_s: float) -> None:
        for one in self.table.everyone:
            one.deployment.batcher.quiet_from = time_s

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        length = headers.get(b"content-length")
        if length is not None and int(length) > self.max_body:
            raise self.too_large(int(length))
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            if len(body) > self.max_body:  # it came in chunks, so nothing was claimed
                raise self.too_large(len(body))
            return body
        parts: list[bytes] = []
        size = 0
        try:
            while message["type"] == "http.request":
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self.held += len(part)
                if size > self.max_body:
                    raise self.too_large(size)
                if self.held > MOST_BODIES * self.max_body:
                    raise BusyError("too many large bodies at once", code="CL-E601", hint="send fewer at a time")
                if not message.get("more_body", False):
                    return b"".join(parts)
                message = await receive()
        finally:
            self.held -= size
        raise Gone

    def inflated(self, body: bytes, coding: bytes) -> bytes:
        try:
            inflated = inflate(body, coding, self.max_body)
        except TooLargeError:
            raise InputError(
                f"the body inflates to more than the {self.max_body:,} bytes that are taken",
                code="CL-E114",
                hint="send fewer rows a request, or raise max_body under [serve]",
            ) from None
        if self.held + len(inflated) > MOST_BODIES * self.max_body:
            raise BusyError("too many large bodies at once", code="CL-E601", hint="send fewer at a time")
        return inflated

    def too_large(self, size: int) -> InputError:
        return InputError(
            f"the body has {size:,} bytes; at most {self.max_body:,} are taken",
            code="CL-E114",
            hint="send fewer rows a request, or raise max_body under [serve]",
        )

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        raw_path: bytes = scope["raw_path"]
        request_id = request_id_of(headers)
        try:
            path = check_path(raw_path)
            self.table.guard(path).admit(path, headers)
            if raw_path in self.table.ways:
                raise not_allowed(["POST"])
            self.table.check_claims(raw_path)
            await self._pages(scope, receive, self._finishing(send, request_id))
            return
        except ClocheError as error:
            if self._state.refused is not None:
                self._state.refused(error.code)
            known = error
        except Exception as error:  # noqa: BLE001 - the edge of the process, as above
            known = bug(error, request_id or self._ids.next())
        speaker = self.table.speaker(raw_path)
        shown_id = request_id or self._ids.next()
        if speaker is not None:
            answer = speaker.problem(known, shown_id)
        else:
            problem = [(b"content-type", b"application/problem+json"), *headers_of(known)]
            answer = Answer(status_of(known), problem, problem_body(known, shown_id))
        length = (b"content-length", str(len(answer.body)).encode())
        headers_out = [*answer.headers, length]
        if request_id is not None:
            headers_out.append((b"x-request-id", request_id.encode()))
        await self._send(send, Answer(answer.status, headers_out, answer.body))

    async def _send(self, send: Send, answer: Answer) -> None:
        headers = answer.headers
        if self._state.closes_next() or answer.status in (408, 413):
            headers = [*headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _finishing(self, send: Send, request_id: str | None) -> Send:
        """A `send` that echoes the request's id and closes the connection where the worker wants it."""

        async def finishing(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                if request_id is not None:
                    headers.append((b"x-request-id", request_id.encode()))
                if self._state.closes_next():
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        return finishing


async def _unless_gone(future: asyncio.Future[Any], receive: Receive) -> Any:
    """The future's result; it is cancelled, and need not run, when the caller goes away."""
    if future.done():
        return future.result()
    gone = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({future, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if future.done():
        return future.result()
    future.cancel()
    raise Gone
