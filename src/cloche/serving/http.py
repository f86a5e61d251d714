"""The ASGI data plane: one callable; predictions straight from a table of paths, the rest through Starlette.

The path of a request: guard → dialect.decode → engine.prepare → batcher → dialect.encode.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from cloche.core.errors import BusyError, ClocheError, InputError, ModelError, NotFoundError
from cloche.core.ids import PredictionIds
from cloche.core.units import parse_duration
from cloche.engine.batcher import Batcher
from cloche.engine.engine import Engine
from cloche.monitoring.counters import DeploymentCounters
from cloche.serving.guard import Guard, check_path
from cloche.serving.pages import Pages, not_allowed
from cloche.serving.problems import headers_of, problem_body, status_of
from cloche.serving.protocols.base import Answer, Dialect, Headers, Live
from cloche.serving.state import WorkerState

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: A request id that is echoed: printable, without spaces.
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
#: Bodies that are being read may together take as much as so many of the largest.
_MOST_BODIES = 4
#: The status that stands in the metrics where the caller went away.
_GONE = 499
_log = logging.getLogger("cloche.serving")


class Deployment:
    """A Deployment is what answers under a name in this worker: engine, batcher, counters, deadline."""

    def __init__(
        self, live: Live, engine: Engine, batcher: Batcher, counters: DeploymentCounters, *, deadline_s: float
    ) -> None:
        self.live = live
        self.engine = engine
        self.batcher = batcher
        self.counters = counters
        self.deadline_s = deadline_s
        self.model_header = (b"cloche-model", live.ref.encode())
        self.version = str(live.version).encode()


class Gone(Exception):  # noqa: N818 - not an error: nobody is there to hear of one
    """The caller went away before the answer was there."""


class App:
    """An App answers HTTP for one worker; every request passes its guard first."""

    def __init__(
        self,
        deployment: Deployment,
        dialects: list[Dialect],
        guard: Guard,
        state: WorkerState,
        pages: Pages,
        *,
        max_body: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deployment = deployment
        self._guard = guard
        self._state = state
        self._pages = pages
        self._max_body = max_body
        self._clock = clock
        self._ids = PredictionIds()
        self._reading = 0
        self._routes = {path.encode(): dialect for dialect in dialects for path in dialect.paths()}
        # an error below /predict or /v2 is told in the dialect that speaks there
        self._speakers = {path.split(b"/")[1]: dialect for path, dialect in self._routes.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        dialect = self._routes.get(scope["raw_path"])
        if dialect is not None and scope["method"] == "POST":
            await self._predict(dialect, scope, receive, send)
        else:
            await self._other(scope, receive, send)

    async def _predict(self, dialect: Dialect, scope: Scope, receive: Receive, send: Send) -> None:
        start = self._clock()
        deployment = self._deployment
        counters = deployment.counters
        headers = dict(scope["headers"])
        prediction_id = self._ids.next()
        extra: Headers = [deployment.model_header, (b"cloche-prediction-id", prediction_id.encode())]
        status = 500
        counters.began()
        try:
            try:
                self._guard.admit_prediction(headers)
                if scope["query_string"]:
                    _check_query(scope["query_string"], deployment)
                answer, timing = await self._answer(dialect, headers, receive, start, prediction_id)
                extra.append(timing)
            except ClocheError as error:
                answer = dialect.problem(error, self._failed(error, headers, prediction_id))
            except Gone:
                raise
            except Exception as error:  # noqa: BLE001 - the edge of the process: a bug is one caller's 500
                answer = dialect.problem(self._bug(error, headers, prediction_id), prediction_id)
            status = answer.status
            await self._send(send, answer, extra, headers.get(b"x-request-id"))
        except (Gone, asyncio.CancelledError) as gone:
            status = _GONE
            if isinstance(gone, asyncio.CancelledError):
                raise
        finally:
            counters.answered(dialect.name, status, self._clock() - start)

    async def _answer(
        self,
        dialect: Dialect,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        start: float,
        prediction_id: str,
    ) -> tuple[Answer, tuple[bytes, bytes]]:
        deployment = self._deployment
        batcher = deployment.batcher
        given = headers.get(b"cloche-deadline")
        deadline = start + (deployment.deadline_s if given is None else _deadline(given))
        body = await self._body(headers, receive)
        columns, wants = dialect.decode(body, headers)
        prepared = deployment.engine.prepare(columns)
        if prepared.flags:
            deployment.counters.flagged(len(prepared.flags))
        if prepared.key is not None:
            deployment.counters.cache(prepared.cached is not None)
        if prepared.cached is not None:
            answer = dialect.encode(prepared.cached, prepared.flags, wants, prediction_id)
            return answer, (b"server-timing", b"cache;desc=hit")
        future = batcher.submit(prepared, deadline, self._clock())
        if batcher.is_inline(prepared.rows):
            outputs, queued, model = await future
        else:
            outputs, queued, model = await _unless_gone(future, receive)
        answer = dialect.encode(outputs, prepared.flags, wants, prediction_id)
        timing = b"queue;dur=%.3f, model;dur=%.3f" % (queued * 1e3, model * 1e3)
        return answer, (b"server-timing", timing)

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._max_body:
            raise self._too_large(int(length))
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            if len(body) > self._max_body:  # it came in chunks, so nothing was claimed
                raise self._too_large(len(body))
            return body
        parts: list[bytes] = []
        size = 0
        try:
            while message["type"] == "http.request":
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self._reading += len(part)
                if size > self._max_body:
                    raise self._too_large(size)
                if self._reading > _MOST_BODIES * self._max_body:
                    raise BusyError("too many large bodies at once", code="CL-E601", hint="send fewer at a time")
                if not message.get("more_body", False):
                    return b"".join(parts)
                message = await receive()
        finally:
            self._reading -= size
        raise Gone

    def _too_large(self, size: int) -> InputError:
        return InputError(
            f"the body has {size:,} bytes; at most {self._max_body:,} are taken",
            code="CL-E114",
            hint="send fewer rows a request, or raise max_body under [serve]",
        )

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        prediction_id = self._ids.next()
        raw_path: bytes = scope["raw_path"]
        try:
            self._guard.admit(check_path(raw_path), headers)
            if raw_path in self._routes:
                raise not_allowed(["POST"])
            wrapped = self._closing_send(send, headers.get(b"x-request-id"))
            await self._pages(scope, receive, wrapped)
            return
        except ClocheError as error:
            if self._state.refused is not None:
                self._state.refused(error.code)
            known = error
        except Exception as error:  # noqa: BLE001 - the edge of the process, as above
            known = self._bug(error, headers, prediction_id)
        speaker = self._speakers.get(raw_path.split(b"/")[1] if b"/" in raw_path else b"")
        request_id = _echo(headers.get(b"x-request-id")) or prediction_id
        if speaker is not None:
            answer = speaker.problem(known, request_id)
        else:
            problem = [(b"content-type", b"application/problem+json"), *headers_of(known)]
            answer = Answer(status_of(known), problem, problem_body(known, request_id))
        await self._send(send, answer, [], headers.get(b"x-request-id"))

    async def _send(self, send: Send, answer: Answer, extra: Headers, request_id: bytes | None) -> None:
        headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode()), *extra]
        if request_id is not None and _REQUEST_ID.fullmatch(request_id):
            headers.append((b"x-request-id", request_id))
        if self._state.closes_next() or answer.status in (408, 413):
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _closing_send(self, send: Send, request_id: bytes | None) -> Send:
        async def closing(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                if request_id is not None and _REQUEST_ID.fullmatch(request_id):
                    headers.append((b"x-request-id", request_id))
                if self._state.closes_next():
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        return closing

    def _failed(self, error: ClocheError, headers: Mapping[bytes, bytes], prediction_id: str) -> str:
        """Count and log an error; the id under which the caller and the log find each other."""
        request_id = _echo(headers.get(b"x-request-id")) or prediction_id
        self._deployment.counters.failed(error.code)
        status = status_of(error)
        if status >= 500 and isinstance(error, ModelError):
            _log.error(
                error.message,
                extra={"action": "prediction_failed", "code": error.code, "request_id": request_id,
                       "model": self._deployment.live.ref},
            )  # fmt: skip
        return request_id

    def _bug(self, error: Exception, headers: Mapping[bytes, bytes], prediction_id: str) -> ClocheError:
        request_id = _echo(headers.get(b"x-request-id")) or prediction_id
        _log.error(
            "a bug in Cloche", exc_info=error, extra={"action": "bug", "code": "CL-E999", "request_id": request_id}
        )
        return ClocheError("an error inside Cloche; it is in the log under the request id", code="CL-E999")


async def _unless_gone(future: asyncio.Future[Any], receive: Receive) -> Any:
    """The future's result; it is cancelled, and need not run, when the caller goes away."""
    gone = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({future, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if future.done():
        return future.result()
    future.cancel()
    raise Gone


def _echo(request_id: bytes | None) -> str | None:
    if request_id is not None and _REQUEST_ID.fullmatch(request_id):
        return request_id.decode("ascii")
    return None


def _deadline(given: bytes) -> float:
    """Seconds of a Cloche-Deadline header; InputError when it is not one."""
    text = given.decode("latin-1")
    try:
        seconds = parse_duration(text)
    except ClocheError:
        seconds = 0.0
    if not 0.0 < seconds <= 3600.0:
        raise InputError(f"Cloche-Deadline is {text[:40]!r}", code="CL-E117", hint="write 80ms or 2s, at most 1h")
    return seconds


def _check_query(query: bytes, deployment: Deployment) -> None:
    """`?version=4` must name the version that answers; nothing else is taken."""
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if name != b"version":
            shown = name.decode("latin-1")[:40]
            raise InputError(f"the query parameter {shown!r} is not known", code="CL-E117", hint="?version=4")
        if value != deployment.version:
            raise NotFoundError(
                f"version {value.decode('latin-1')[:20]!r} of {deployment.live.deployment} is not live",
                code="CL-E305",
                hint=f"{deployment.live.ref} is",
            )
