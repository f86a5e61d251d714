"""Before every route of the admin API: a plain path, a name of this host, a key; it denies by default."""

from __future__ import annotations

import ipaddress
import logging
import uuid
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from cryptography import x509
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cloche.core.errors import ClocheError, RefusedError
from cloche.core.keys import KeyRecord
from cloche.serving.guard import check_path
from cloche.serving.problems import headers_of, problem_body, status_of

#: What anybody may ask.
PUBLIC = frozenset({("GET", b"/livez"), ("HEAD", b"/livez")})
READ, DEPLOY, ADMIN = "read", "deploy", "admin"
#: Scope that a route asks for -> those of a key that allow it.
_ALLOWING = {READ: {READ, DEPLOY, ADMIN}, DEPLOY: {DEPLOY, ADMIN}, ADMIN: {ADMIN}}
_log = logging.getLogger("cloche.admin")


class Guard:
    """A Guard lets a request through to `app` with the record of its key, or answers why not.

    `verify` says whose a key is (RefusedError CL-E402); `names` are the host's, besides every address.
    """

    def __init__(
        self, app: ASGIApp, verify: Callable[[str], Awaitable[KeyRecord]], names: Collection[str]
    ) -> None:
        self._app = app
        self._verify = verify
        self._names = frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"id": uuid.uuid4().hex}
        try:
            path = check_path(scope["raw_path"])
            headers = Headers(scope=scope)
            self._check_host(headers.getlist("host"))
            if (scope["method"], path) not in PUBLIC:
                scope["state"]["caller"] = await self._verify(_bearer(headers))
        except ClocheError as error:
            await problem(error, scope["state"]["id"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_host(self, given: list[str]) -> None:
        """A web page may give this host a name of its own: such a name is refused."""
        name = _host_name(given[0]) if len(given) == 1 else ""
        wild = f"*.{name.partition('.')[2]}"
        if not (_is_address(name) or name == "localhost" or {name, wild} & self._names):
            raise RefusedError(f"{name[:80]!r} is not a name of this host", code="CL-E415", hint="use its address")


def require(caller: KeyRecord, scope: str) -> None:
    """RefusedError CL-E403 where the key does not allow what the route does."""
    if not _ALLOWING[scope] & set(caller.scopes):
        raise RefusedError(
            f"the key {caller.id} lacks the scope {scope!r}",
            code="CL-E403",
            hint=f"make one there: cloche keys create NAME --scope {scope}",
        )


def problem(error: ClocheError, request_id: str) -> Response:
    """The answer to a request that went wrong."""
    status = status_of(error)
    if status >= 500:
        _log.warning("%s", error.message, extra={"action": "admin_failed", "code": error.code, "id": request_id})
    headers = {name.decode(): value.decode() for name, value in headers_of(error)}
    return Response(
        problem_body(error, request_id),
        status,
        {**headers, "x-request-id": request_id, "connection": "close"},
        "application/problem+json",
    )


def certificate_names(cert: Path) -> frozenset[str]:
    """The names that a certificate is for."""
    first = x509.load_pem_x509_certificates(cert.read_bytes())[0]
    try:
        names: Any = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(name.lower() for name in names.get_values_for_type(x509.DNSName))


def _bearer(headers: Headers) -> str:
    kind, _, key = headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not key.strip():
        raise RefusedError(
            "a key is needed here",
            code="CL-E401",
            hint="send  Authorization: Bearer clk_…  of a key made by  cloche keys create NAME --scope read",
        )
    return key.strip()


def _host_name(host: str) -> str:
    """The name or address of a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
