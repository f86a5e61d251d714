"""What is not a prediction: health, metrics, the OpenAPI document and the page that shows it, metadata."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from importlib.resources import files
from typing import Any, NoReturn, TypeAlias

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router

from cloche.core.board import Board
from cloche.core.errors import NotFoundError
from cloche.monitoring import exposition
from cloche.serving.docs import docs_page, index_page
from cloche.serving.openapi import openapi_document
from cloche.serving.playground import Playground
from cloche.serving.problems import NotAllowedError
from cloche.serving.state import WorkerState
from cloche.serving.table import Table

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_STATIC = {
    "docs.css": "text/css",
    "docs.js": "text/javascript",
    "playground.css": "text/css",
    "playground.js": "text/javascript",
}
#: Everything that a page may load comes from this server.
_SECURE = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def not_allowed(allowed: Sequence[str]) -> NotAllowedError:
    return NotAllowedError("this method is not allowed here", allowed)


def _is_browser(scope: Scope) -> bool:
    accept = dict(scope["headers"]).get(b"accept", b"")
    return scope["method"] in ("GET", "HEAD") and b"text/html" in accept


def _page(path: str, render: Callable[[], bytes]) -> Route:
    """A page that is rendered when it is first looked at."""
    page = functools.cache(render)

    async def show(request: Request) -> Response:
        return Response(page(), media_type="text/html", headers=_SECURE)

    return Route(path, show, methods=["GET"])


class Pages:
    """Pages answers everything that takes no rows; raises NotFoundError for what it does not know."""

    def __init__(
        self,
        table: Table,
        board: Board,
        state: WorkerState,
    ) -> None:
        self._lives = [one.deployment.live for one in table.predictions]
        self._board = board
        self._state = state
        self._openapi = openapi_document(table)
        routes: list[BaseRoute] = [
            Route("/livez", self._alive, methods=["GET"]),
            Route("/readyz", self._ready, methods=["GET"]),
            Route("/v2/health/live", self._oip_alive, methods=["GET"]),
            Route("/v2/health/ready", self._oip_ready, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/openapi.json", self._document, methods=["GET"]),
            Route("/playground", self._lead, methods=["GET"]),
            *(Route(f"/docs/{name}", self._static, methods=["GET"]) for name in _STATIC),
        ]
        if len(self._lives) > 1:
            routes.append(_page("/docs", functools.partial(index_page, self._lives)))
        for one in table.predictions:
            live, prepare = one.deployment.live, one.deployment.engine.prepare
            at = f"/docs/{live.deployment}" if live.neighbours else "/docs"
            routes.append(_page(at, functools.partial(docs_page, live)))
            own = next((dialect for dialect in one.dialects if dialect.name == "cloche"), None)
            if own is not None:
                routes.extend(Playground(live, own, prepare, _SECURE).routes)
        for one in table.everyone:
            for dialect in one.dialects:
                routes.extend(dialect.routes())
        self.routes = routes
        self._router = Router(routes, redirect_slashes=False)
        self._static_files = {
            name: files("cloche.serving").joinpath("static", name).read_bytes() for name in _STATIC
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/" and _is_browser(scope):
            await Response(status_code=307, headers={"location": "docs", "vary": "accept"})(scope, receive, send)
            return
        try:
            # with "app" in its scope Starlette raises what it would else answer in words of its own
            await self._router({**scope, "app": self}, receive, send)
        except HTTPException as error:
            self._explain(error, scope)

    def _explain(self, error: HTTPException, scope: Scope) -> NoReturn:
        if error.status_code == 405:
            allow = (error.headers or {}).get("Allow", "GET")
            raise not_allowed(sorted(allow.split(", "))) from None
        path: str = scope["path"]
        if path.startswith(("/predict/", "/v1/models/", "/v2/models/")):
            raise NotFoundError(
                f"nothing live answers at {path[:120]}",
                code="CL-E305",
                hint="; ".join(f"{live.deployment} is live, with {live.ref}" for live in self._lives),
            ) from None
        raise NotFoundError(f"there is nothing at {path[:120]}", code="CL-E304", hint="see /docs") from None

    async def _alive(self, request: Request) -> Response:
        return Response(status_code=200)

    async def _ready(self, request: Request) -> Response:
        return Response(status_code=200 if self._state.answers() else 503)

    async def _oip_alive(self, request: Request) -> Response:
        # the protocol asks for the status only; KServe's client reads the body
        return Response(b'{"live":true}', media_type="application/json")

    async def _oip_ready(self, request: Request) -> Response:
        ready = self._state.answers()
        body = msgspec.json.encode({"ready": ready})
        return Response(body, status_code=200 if ready else 503, media_type="application/json")

    async def _metrics(self, request: Request) -> Response:
        body, media_type = exposition.render(self._board, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": media_type})

    async def _document(self, request: Request) -> Response:
        mount = request.scope.get("app_root_path")
        document = self._openapi | ({"servers": [{"url": mount}]} if mount else {})
        return Response(msgspec.json.encode(document), media_type="application/json")

    async def _lead(self, request: Request) -> Response:
        # relative, as it may stand behind a mount
        to = "docs" if len(self._lives) > 1 else f"playground/{self._lives[0].deployment}"
        return Response(status_code=307, headers={"location": to})

    async def _static(self, request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        headers = {**_SECURE, "cache-control": "max-age=3600"}
        return Response(self._static_files[name], media_type=_STATIC[name], headers=headers)
