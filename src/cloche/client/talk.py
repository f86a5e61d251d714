"""One request and its answer as a talk: what is said, without the sockets, so that one text serves both clients.

A talk is a generator that yields a `Call` (and is sent the response, or thrown the transport's error) or a
`Pause`; `Client` and `AsyncClient` carry it out.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from typing import TypeAlias, TypeVar

import httpx2
import msgspec

from cloche.client.answers import retry_after
from cloche.core.errors import BusyError

#: Before a server that refused or dropped the connection is asked again.
PAUSE_S = 0.1
#: The connection was refused or broke before a byte of the answer came.
_BROKEN = (httpx2.NetworkError, httpx2.RemoteProtocolError)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A Call is one HTTP request."""

    method: str = "POST"
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    content: bytes = b""
    timeout_s: float


class Pause(msgspec.Struct, frozen=True):
    """A Pause is a wish to wait."""

    seconds: float


class BrokeOffError(Exception):
    """The connection broke after the answer had begun."""


T = TypeVar("T")
Talk: TypeAlias = Generator[Call | Pause, httpx2.Response, T]


def ask(call: Call, origin: str) -> Talk[httpx2.Response]:
    """The answer to a call, whatever its status.

    It is asked for once more where no byte of an answer came, or where a 503 says when to come back and that is
    within the timeout: predictions change nothing, so a second one does no harm. Raises BusyError CL-E605 where
    nothing answers and CL-E602 where nothing does in time.
    """
    ends = time.monotonic() + call.timeout_s
    try:
        try:
            response = yield call
        except _BROKEN:
            wait = PAUSE_S
        else:
            asked = retry_after(response) if response.status_code == 503 else None
            if asked is None or time.monotonic() + asked >= ends:
                return response
            wait = asked
        yield Pause(wait)
        left = max(ends - time.monotonic(), 0.001)
        return (yield msgspec.structs.replace(call, timeout_s=left))
    except httpx2.TimeoutException as error:
        raise BusyError(
            f"no answer within {call.timeout_s:g} s",
            code="CL-E602",
            where=origin,
            hint="give Client(..., timeout=) more, or ask the server's log what holds it",
        ) from error
    except BrokeOffError as error:
        raise BusyError(
            "the connection broke off in the middle of the answer",
            code="CL-E605",
            where=origin,
            hint="ask again; if it comes back, ask the server's log, or that of a proxy in between",
        ) from error
    except httpx2.TransportError as error:
        raise BusyError(
            f"nothing answers at {origin}: {error}",
            code="CL-E605",
            where=origin,
            hint="is `cloche up` running, and is this its address?",
        ) from error
