"""One call on a connection: what has come of its message, and what of its answer has not gone yet."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from cloche.core.errors import InputError
from cloche.serving.grpc.inference import Inference
from cloche.serving.grpc.status import OK, Reply
from cloche.serving.server import BODY_BYTES_PER_S, HEADER_S

PREFIX = struct.Struct("!BI")
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_LONGEST_S = 3600.0


class Stream:
    """A Stream is a call from its headers to the last byte of its answer."""

    __slots__ = (
        "answer", "deadline", "has_head", "headers", "id", "inference", "parts", "path", "reply", "since", "size",
        "status", "unread_since",
    )  # fmt: skip

    def __init__(self, stream_id: int, path: bytes, headers: Mapping[bytes, bytes], now: float) -> None:
        self.id = stream_id
        self.path = path
        self.headers = headers
        self.since = now
        self.deadline = _deadline(headers, now)
        self.parts: list[bytes] = []
        self.size = 0  # bytes that it holds: what has come, then what goes
        self.inference: Inference | None = None
        self.reply: Reply | None = None  # what it ends with
        self.answer = memoryview(b"")  # what has not gone
        self.has_head = False
        self.unread_since = 0.0  # when it began to wait for room at the caller's
        self.status = -1  # of one who watches: what was told last

    def is_too_slow(self, now: float) -> bool:
        """Whether its message has been coming for too long."""
        is_coming = self.inference is None and self.reply is None and self.status < 0
        age = now - self.since
        return is_coming and age > HEADER_S and self.size < age * BODY_BYTES_PER_S

    def message(self) -> tuple[bytes, bytes | None]:
        """The one message that came, and what it is compressed with. InputError where there is not just one."""
        data = b"".join(self.parts)
        self.parts.clear()
        if len(data) < PREFIX.size:
            raise InputError("the call has no message", code="CL-E101", where="request message")
        flag, length = PREFIX.unpack_from(data)
        if length != len(data) - PREFIX.size or flag > 1:
            raise InputError("the call has not just one message", code="CL-E101", where="request message")
        return data[PREFIX.size :], self.headers.get(b"grpc-encoding", b"identity") if flag else None

    def answer_with(self, body: bytes) -> None:
        """One message that is to go."""
        self.answer = memoryview(PREFIX.pack(0, len(body)) + body)

    def end_with(self, reply: Reply) -> None:
        """The last that is to go: a message where the status is OK, and the status."""
        self.parts.clear()
        self.reply = reply
        self.answer = memoryview(b"")
        if reply.code == OK:
            self.answer_with(reply.body)


def _deadline(headers: Mapping[bytes, bytes], now: float) -> float | None:
    """When the caller stops waiting, where it said so in a way that can be understood."""
    found = _TIMEOUT.fullmatch(headers.get(b"grpc-timeout", b""))
    if found is None:
        return None
    return now + min(int(found[1]) * _UNITS_S[found[2]], _LONGEST_S)
