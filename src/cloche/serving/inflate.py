"""Compressed bodies: inflated piece by piece, and never to more than may be taken."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from cloche.core.errors import InputError, MissingExtraError
from cloche.core.extras import load_extra

#: What an inflater is given, and gives, at a time. A zstd block of four bytes may stand for 128 KiB.
_PIECE = 64 * 1024
_ZSTD_PIECE = 1024
#: The largest window that HTTP allows (RFC 9659); a larger one would be allocated at the word of the body.
_ZSTD_WINDOW = 8 * 1024 * 1024
#: The members of a gzip body: each costs, however little it holds.
_MOST_MEMBERS = 10_000


class TooLargeError(Exception):
    """There is more in it than may be taken."""


def inflate(body: bytes, coding: bytes, most: int) -> bytes:
    """What a body of this Content-Encoding holds.

    Raises InputError (CL-E115 for a coding that is not known, CL-E101 for a broken body), TooLargeError beyond
    `most` bytes.
    """
    name = coding.decode("latin-1").strip().lower()
    if name in ("", "identity"):
        return body
    inflater = _INFLATERS.get(name)
    if inflater is None:
        raise InputError(
            f"the body came encoded as {name[:80]!r}", code="CL-E115", hint="send gzip, deflate, zstd, or plain"
        )
    parts, size = [], 0
    for part in inflater(memoryview(body), most):
        size += len(part)
        if size > most:
            raise TooLargeError
        parts.append(part)
    return b"".join(parts)


def _gzip(body: memoryview, most: int) -> Iterator[bytes]:
    at = members = 0
    while at < len(body) or members == 0:
        members += 1
        if members > _MOST_MEMBERS:
            raise InputError(f"the body has over {_MOST_MEMBERS:,} gzip members", code="CL-E113")
        at = yield from _member("gzip", zlib.decompressobj(wbits=31), body, at, most)


def _deflate(body: memoryview, most: int) -> Iterator[bytes]:
    # RFC 9110 means zlib's format; many senders leave its two bytes and the checksum away
    is_zlib = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    end = yield from _member("deflate", zlib.decompressobj(wbits=15 if is_zlib else -15), body, 0, most)
    if end < len(body):
        raise _broken("deflate", f"{len(body) - end} bytes are left over")


def _member(name: str, stream: Any, body: memoryview, at: int, most: int) -> Generator[bytes, None, int]:
    """The pieces of the one stream that begins at `at`; returns where it ends."""
    while not stream.eof:
        piece = body[at : at + _PIECE]
        try:
            part = stream.decompress(piece, min(most + 1, _PIECE))
        except zlib.error as error:
            raise _broken(name, str(error)) from None
        if not piece and not part and not stream.eof:
            raise _broken(name, "it is cut off")
        at += len(piece) - len(stream.unconsumed_tail) - len(stream.unused_data)
        yield part
    return at


def _zstd(body: memoryview, most: int) -> Iterator[bytes]:
    try:
        zstandard = load_extra("zstandard", "a body in zstd", "zstd")
    except MissingExtraError as error:
        raise InputError(
            f"zstd is not understood here: {error.message}",
            code="CL-E115",
            hint=f"ask whoever runs the server for {error.hint}, or send gzip",
        ) from None
    stream = None
    for at in range(0, len(body), _ZSTD_PIECE):
        piece = body[at : at + _ZSTD_PIECE]
        while piece:
            if stream is None:
                stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
            try:
                yield stream.decompress(piece)
            except zstandard.ZstdError as error:
                raise _broken("zstd", str(error)) from None
            piece = memoryview(b"")
            if stream.eof:
                piece, stream = memoryview(stream.unused_data), None
    if stream is not None or not body:
        raise _broken("zstd", "it is cut off")


def _broken(name: str, said: str) -> InputError:
    return InputError(f"the body is not {name}: {said}", code="CL-E101", where="request body")


_INFLATERS: Mapping[str, Callable[[memoryview, int], Iterator[bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
