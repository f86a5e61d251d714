"""The admin API as an ASGI app: requests to acts of the project, in a bounded pool of threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as Path
from starlette.types import ASGIApp

from cloche.app.acts import Acts
from cloche.app.admin.guard import DEPLOY, READ, Guard, problem, require
from cloche.app.admin.openapi import openapi_document
from cloche.app.admin.routes import FILE_PATH, PREFIX, ROUTES, Asked, Route
from cloche.app.project import Project
from cloche.app.uploads import Uploads
from cloche.core.errors import BusyError, ClocheError, InputError, NotFoundError
from cloche.core.keys import KeyRecord, KeyRing
from cloche.serving.problems import NotAllowedError
from cloche.store.keys import Keys

THREADS = 4
#: How long the next piece of a body may take.
_PIECE_S = 30.0
_FLUSHED_BYTES = 1 << 20
T = TypeVar("T")


class Api:
    """An Api answers for one project; `app` is what a server runs."""

    def __init__(self, project: Project, names: Collection[str] = ()) -> None:
        self._project = project
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="admin")
        self._keys: tuple[int, KeyRing] = (-1, KeyRing())
        paths = [Path(f"{PREFIX}{route.path}", self._endpoint(route), methods=[route.method]) for route in ROUTES]
        paths += [
            Path("/livez", _live),
            Path(f"{PREFIX}{FILE_PATH}", self._take_file, methods=["PATCH"]),
            Path(f"{PREFIX}/openapi.json", self._describe, methods=["GET"]),
        ]
        handlers: dict[Any, Any] = {ClocheError: _on_error, HTTPException: _on_http, Exception: _on_bug}
        self.app: ASGIApp = Guard(Starlette(routes=paths, exception_handlers=handlers), self._verify, names)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _work(self, act: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, act, *given)

    async def _verify(self, key: str) -> KeyRecord:
        return (await self._work(self._ring)).verify(key, time.time())

    def _ring(self) -> KeyRing:
        """The keys as they are now: one that was made or revoked a moment ago is known."""
        revision = self._project.store.revision()
        if revision != self._keys[0]:
            self._keys = (revision, KeyRing(Keys(self._project.store).load()))
        return self._keys[1]

    def _endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            caller: KeyRecord = request.state.caller
            require(caller, route.scope)
            asked = Asked(request.path_params, await _form(request, route))
            acts = Acts(self._project.acting_as(caller.name))
            return _json(await self._work(route.act, acts, asked), request)

        return answer

    async def _take_file(self, request: Request) -> Response:
        """Add the body to a file from `Upload-Offset` on; what came before a break stays."""
        caller: KeyRecord = request.state.caller
        require(caller, DEPLOY)
        uploads = Uploads(self._project.acting_as(caller.name))
        digest, sha256 = request.path_params["digest"], request.path_params["sha256"]
        part = await self._work(uploads.open, digest, sha256, _offset(request))
        waiting = bytearray()
        try:
            pieces = request.stream()
            while (piece := await _next(pieces)) is not None:
                waiting += piece
                if len(waiting) >= _FLUSHED_BYTES:
                    await self._work(part.write, bytes(waiting))
                    waiting.clear()
        finally:
            told = await self._work(_end, part, bytes(waiting))
        return _json(told, request)

    async def _describe(self, request: Request) -> Response:
        require(request.state.caller, READ)
        return Response(openapi_document(), media_type="application/json")


def _end(part: Any, rest: bytes) -> dict[str, Any]:
    try:
        part.write(rest)
    except BaseException:
        part.abandon()
        raise
    told: dict[str, Any] = part.close()
    return told


async def _next(pieces: Any) -> bytes | None:
    try:
        async with asyncio.timeout(_PIECE_S):
            return await anext(pieces, None)
    except TimeoutError:
        raise InputError("the body came too slowly", code="CL-E119") from None
    except ClientDisconnect:
        raise BusyError("the connection broke off", code="CL-E605") from None


async def _form(request: Request, route: Route) -> Any:
    """What the query or the body says; InputError where that can't be."""
    if route.method == "GET":
        query = dict(request.query_params)
        try:
            return msgspec.convert(query, route.form or _Nothing, strict=False)
        except msgspec.ValidationError as error:
            raise InputError(f"the query is wrong: {error}", code="CL-E117") from None
    said = bytearray()
    pieces = request.stream()
    while (piece := await _next(pieces)) is not None:
        said += piece
        if len(said) > route.most_bytes:
            raise InputError(f"a body of more than {route.most_bytes:,} bytes is not taken here", code="CL-E114")
    try:
        return msgspec.json.decode(bytes(said) or b"{}", type=route.form or _Nothing)
    except msgspec.ValidationError as error:
        raise InputError(f"the body is wrong: {error}", code="CL-E102") from None
    except msgspec.DecodeError as error:
        raise InputError(f"the body is not JSON: {error}", code="CL-E101") from None


class _Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


def _offset(request: Request) -> int:
    given = request.headers.get("upload-offset", "")
    if not (given.isascii() and given.isdigit() and len(given) < 16):
        raise InputError("Upload-Offset must be the number of bytes that are there", code="CL-E117")
    return int(given)


def _json(value: dict[str, Any], request: Request) -> Response:
    headers = {"x-request-id": request.state.id, "cache-control": "no-store"}
    return Response(msgspec.json.encode(value), headers=headers, media_type="application/json")


async def _live(_request: Request) -> Response:
    return Response(b'{"live":true}', media_type="application/json")


async def _on_error(request: Request, error: ClocheError) -> Response:
    return problem(error, request.state.id)


async def _on_http(request: Request, error: HTTPException) -> Response:
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "").split(", ")
        return problem(NotAllowedError(f"{request.method} is not taken here", allowed), request.state.id)
    missing = NotFoundError(
        f"nothing is at {request.url.path[:200]}", code="CL-E304", hint=f"see {PREFIX}/openapi.json"
    )
    return problem(missing, request.state.id)


async def _on_bug(request: Request, _error: Exception) -> Response:
    # the server logs it with its traceback
    return problem(ClocheError("this is a bug in Cloche", code="CL-E999"), request.state.id)
