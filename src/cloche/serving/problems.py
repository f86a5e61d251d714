"""Errors on the wire: the one table from codes to HTTP, and RFC 9457 bodies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from cloche.core.codes import CODES
from cloche.core.errors import (
    BusyError,
    ClocheError,
    ConfigError,
    ConflictError,
    InputError,
    ModelError,
    NotFoundError,
    RefusedError,
)

_BY_FAMILY: tuple[tuple[type[ClocheError], int], ...] = (
    (InputError, 422),
    (ConfigError, 400),
    (NotFoundError, 404),
    (RefusedError, 403),
    (ConflictError, 409),
    (BusyError, 503),
    (ModelError, 500),
)
_BY_CODE = {
    "CL-E101": 400,
    "CL-E102": 400,
    "CL-E111": 400,
    "CL-E112": 400,
    "CL-E113": 413,
    "CL-E114": 413,
    "CL-E115": 415,
    "CL-E116": 400,
    "CL-E117": 400,
    "CL-E119": 408,
    "CL-E120": 400,
    "CL-E121": 406,
    "CL-E306": 405,
    "CL-E401": 401,
    "CL-E402": 401,
    "CL-E602": 504,
    "CL-E604": 429,
    "CL-E902": 503,
}
#: What was found in `_BY_FAMILY` before.
_BY_KIND: dict[type[ClocheError], int] = {}
_encode = msgspec.json.Encoder().encode


class NotAllowedError(NotFoundError):
    """The path is served, but not with this method."""

    default_code = "CL-E306"

    def __init__(self, message: str, allowed: Sequence[str]) -> None:
        super().__init__(message, hint=f"use {' or '.join(allowed)}")
        self.allowed = tuple(allowed)


def status_of(error: ClocheError) -> int:
    """The HTTP status of an error, by its code or else its family."""
    status = _BY_CODE.get(error.code)
    if status is not None:
        return status
    kind = type(error)
    status = _BY_KIND.get(kind)
    if status is None:  # an overloaded server asks this very often
        status = next((status for family, status in _BY_FAMILY if isinstance(error, family)), 500)
        _BY_KIND[kind] = status
    return status


def headers_of(error: ClocheError) -> list[tuple[bytes, bytes]]:
    """The headers that an error brings: when to come back, how to prove who you are, what may be done."""
    if isinstance(error, NotAllowedError):
        return [(b"allow", ", ".join(error.allowed).encode())]
    if isinstance(error, BusyError):
        return [(b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode())]
    if error.code in ("CL-E401", "CL-E402"):
        return [(b"www-authenticate", b'Bearer realm="cloche"')]
    if error.code == "CL-E902":
        return [(b"retry-after", b"1")]
    return []


def message_of(error: ClocheError) -> str:
    """What happened and, where to come back helps, when."""
    if isinstance(error, BusyError) and status_of(error) in (429, 503):
        return f"{error.message}; try again in {max(error.retry_after_s, 0.1):.1f} s"
    return error.message


def sentence_of(error: ClocheError) -> str:
    """The message and what to do, for protocols whose errors are one string."""
    return f"{message_of(error)} ({error.hint})" if error.hint else message_of(error)


def problem_body(error: ClocheError, request_id: str) -> bytes:
    """The RFC 9457 body; what a model raised stays in the log, the caller gets the code and the request id."""
    body: dict[str, Any] = {
        "type": f"urn:cloche:error:{error.code}",
        "title": CODES[error.code][0],
        "status": status_of(error),
        "detail": message_of(error),
        "code": error.code,
    }
    if error.where:
        body["where"] = error.where
    if error.hint:
        body["hint"] = error.hint
    if error.details:
        body["errors"] = list(error.details)
    body["request_id"] = request_id
    return _encode(body)


def refusal_body(status: int, code: str, words: str) -> bytes:
    """The body for what was refused before it was a request, and so has no id."""
    title, hint = CODES[code]
    return _encode(
        {"type": f"urn:cloche:error:{code}", "title": title, "status": status, "detail": words, "code": code,
         "hint": hint}
    )  # fmt: skip
