"""gRPC's status codes, from the one table of HTTP statuses, and what a reply is made of."""

from __future__ import annotations

from typing import NamedTuple

from cloche.core.errors import ClocheError
from cloche.serving.problems import headers_of, sentence_of, status_of
from cloche.serving.protocols.base import Answer, Headers

OK = 0
DEADLINE_EXCEEDED = 4
RESOURCE_EXHAUSTED = 8
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
_INVALID_ARGUMENT = 3
#: What is not here is INVALID_ARGUMENT below 500, else INTERNAL.
_BY_HTTP = {
    200: OK, 401: 16, 403: 7, 404: 5, 405: UNIMPLEMENTED, 408: DEADLINE_EXCEEDED, 409: 9,
    413: RESOURCE_EXHAUSTED, 415: UNIMPLEMENTED, 429: RESOURCE_EXHAUSTED, 503: UNAVAILABLE, 504: DEADLINE_EXCEEDED,
}  # fmt: skip


class Reply(NamedTuple):
    """A Reply is how a call ends: its status, the message where that is OK, else words, and trailing metadata."""

    code: int
    body: bytes
    words: str
    trailers: Headers


def code_of(status: int) -> int:
    return _BY_HTTP.get(status, _INVALID_ARGUMENT if status < 500 else INTERNAL)


def refusal(error: ClocheError) -> Reply:
    trailers = [(b"cloche-error", error.code.encode()), *headers_of(error)]
    return Reply(code_of(status_of(error)), b"", sentence_of(error), trailers)


def reply_of(answer: Answer) -> Reply:
    """A dialect's answer as it goes over gRPC: its headers are trailers here, but for the length."""
    trailers = [header for header in answer.headers if header[0] != b"content-length"]
    if answer.status == 200:
        return Reply(OK, answer.body, "", trailers)
    return Reply(code_of(answer.status), b"", answer.body.decode(), trailers)
