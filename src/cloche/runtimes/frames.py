"""Frames between a process that asks and a runtime host: a msgpack header and raw tensor bytes, never pickle.

    8 bytes    length of the header, length of the body (two big-endian unsigned 32-bit numbers)
    header     msgpack: a Request, a Begun or a Reply, with a Tensor for each column
    body       the columns' bytes one after the other, each begun at a multiple of 8

Numbers are the machine's own bytes (both ends are on one machine); BYTES are a msgpack list of strings and
nulls. What a frame claims is checked before anything of that size is made.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np

from cloche.core.signature import NUMPY_TYPES, Array, Columns

PREFIX = struct.Struct("!II")
MAX_HEADER = 1 << 20
MAX_BODY = 1 << 28
MAX_TENSORS = 1_024
MAX_DIMENSIONS = 8
_ALIGN = 8
_CHUNK = 1 << 18


class FrameError(Exception):
    """A frame is malformed or too large: the connection that it came by is not to be used again."""


class FrameTooLargeError(FrameError):
    """Columns don't fit into one frame; fewer rows might."""


class Tensor(msgspec.Struct, array_like=True, frozen=True):
    """A Tensor describes one column of a frame; `size` counts its bytes in the body."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int


class Request(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A Request asks for a prediction by the bundle of that digest."""

    id: int
    digest: str
    #: On `time.monotonic_ns()`, which the processes of a machine share.
    deadline_ns: int
    tensors: tuple[Tensor, ...]
    #: Don't join it with others and say `Begun` first: it was in flight when a host died.
    alone: bool = False


class Begun(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """A Begun says that the model now works on an `alone` request."""

    id: int
    digest: str


class Problem(msgspec.Struct, array_like=True, frozen=True):
    """A Problem is why there is no answer: a code of `core.codes`, words, and what a ClocheError has besides."""

    code: str
    message: str
    hint: str | None = None
    details: tuple[dict[str, Any], ...] = ()


class Reply(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """A Reply carries a request's answer or its problem."""

    id: int
    digest: str
    tensors: tuple[Tensor, ...] = ()
    problem: Problem | None = None


Header: TypeAlias = Request | Begun | Reply

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Header] = msgspec.msgpack.Decoder(Header)
_strings = msgspec.msgpack.Decoder(list[str | None])
_NAMES = {dtype: name for name, dtype in NUMPY_TYPES.items()}


def pack_columns(columns: Columns) -> tuple[tuple[Tensor, ...], bytes]:
    """The tensors and the body of a frame. Raises FrameTooLargeError, and FrameError for other types."""
    if len(columns) > MAX_TENSORS:
        raise FrameTooLargeError(f"{len(columns)} columns, of at most {MAX_TENSORS}")
    tensors, parts, total = [], [], 0
    for name, array in columns.items():
        datatype = _NAMES.get(array.dtype)
        if datatype is None:
            raise FrameError(f"column {name!r} has the type {array.dtype}")
        if datatype == "BYTES":
            part = _pack_strings(name, array)
        else:
            if total + array.nbytes > MAX_BODY:
                raise FrameTooLargeError(f"more than {MAX_BODY} bytes in {array.shape[0]} rows")
            part = array.tobytes()
        tensors.append(Tensor(name, datatype, array.shape, len(part)))
        parts.append(part)
        if padding := -len(part) % _ALIGN:
            parts.append(bytes(padding))
        total += len(part) + padding
        if total > MAX_BODY:
            raise FrameTooLargeError(f"more than {MAX_BODY} bytes in {array.shape[0]} rows")
    return tuple(tensors), b"".join(parts)


def _pack_strings(name: str, array: Array) -> bytes:
    try:
        return _encoder.encode(array.ravel().tolist())
    except (UnicodeEncodeError, TypeError) as error:
        raise FrameError(f"column {name!r} holds something that is no text: {error}") from error


def pack_frame(header: Header, body: bytes = b"") -> bytes:
    """The bytes of a frame."""
    head = _encoder.encode(header)
    if len(head) > MAX_HEADER:
        raise FrameTooLargeError(f"a header of {len(head)} bytes")
    return b"".join((PREFIX.pack(len(head), len(body)), head, body))


def frame_size(prefix: bytes | bytearray) -> tuple[int, int]:
    """The lengths of header and body from a frame's first 8 bytes. Raises FrameError above the caps."""
    header, body = PREFIX.unpack_from(prefix)
    if header > MAX_HEADER or body > MAX_BODY:
        raise FrameError(f"a frame of {header} + {body} bytes")
    return header, body


def read_header(data: bytes | bytearray | memoryview) -> Header:
    """The header. Raises FrameError."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FrameError(f"a malformed header: {error}") from error


def read_columns(tensors: Sequence[Tensor], body: bytes | bytearray | memoryview) -> Columns:
    """The columns of a frame; numbers are views of `body`. Raises FrameError."""
    if len(tensors) > MAX_TENSORS:
        raise FrameError(f"{len(tensors)} tensors, of at most {MAX_TENSORS}")
    end, columns = 0, {}
    for tensor in tensors:
        count = _check(tensor)
        start, end = end, end + tensor.size
        if end > len(body):
            raise FrameError(f"tensor {tensor.name!r} is longer than the body")
        if tensor.name in columns:
            raise FrameError(f"tensor {tensor.name!r} comes twice")
        columns[tensor.name] = _read(tensor, count, memoryview(body)[start:end])
        end += -end % _ALIGN
    if end != len(body):
        raise FrameError(f"a body of {len(body)} bytes for tensors of {end}")
    return columns


def _check(tensor: Tensor) -> int:
    """How many elements the tensor has, its claim being possible."""
    dtype = NUMPY_TYPES.get(tensor.datatype)
    if dtype is None:
        raise FrameError(f"tensor {tensor.name!r} has the datatype {tensor.datatype!r}")
    shape = tensor.shape
    # the product without zeros: numpy refuses an empty array whose other dimensions overflow
    if (
        not 1 <= len(shape) <= MAX_DIMENSIONS
        or min(shape) < 0
        or math.prod(max(length, 1) for length in shape) > MAX_BODY
        or tensor.size < 0
    ):
        raise FrameError(f"tensor {tensor.name!r} has the shape {list(shape)}")
    count = math.prod(shape)
    if tensor.datatype == "BYTES":
        if count > tensor.size:  # each string takes a byte or more
            raise FrameError(f"tensor {tensor.name!r}: {count} strings in {tensor.size} bytes")
    elif count * dtype.itemsize != tensor.size:
        raise FrameError(f"tensor {tensor.name!r}: shape {list(shape)} in {tensor.size} bytes")
    return count


def _read(tensor: Tensor, count: int, data: memoryview) -> Array:
    if tensor.datatype == "BYTES":
        try:
            strings = _strings.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FrameError(f"tensor {tensor.name!r}: {error}") from error
        if len(strings) != count:
            raise FrameError(f"tensor {tensor.name!r}: {len(strings)} strings for {list(tensor.shape)}")
        column = np.empty(count, dtype=object)
        column[:] = strings
        return column.reshape(tensor.shape)
    if tensor.datatype == "BOOL":
        # a byte other than 0 and 1 is no bool of numpy's, and the other end may be anybody's code
        return np.not_equal(np.frombuffer(data, dtype=np.uint8), 0).reshape(tensor.shape)
    return np.frombuffer(data, dtype=NUMPY_TYPES[tensor.datatype]).reshape(tensor.shape)


class FrameReader:
    """A FrameReader collects the bytes of one connection into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def is_between(self) -> bool:
        """Whether no byte of a next frame has come."""
        return not self._data

    def receive(self, connection: socket.socket) -> None:
        """Take what the connection has, waiting as the socket is set to.

        Raises EOFError at its end and OSError as `recv` does.
        """
        chunk = connection.recv(_CHUNK)
        if not chunk:
            raise EOFError
        self._data += chunk

    def next(self) -> tuple[Header, bytearray] | None:
        """The next whole frame, None while there is none. Raises FrameError."""
        data = self._data
        if len(data) < PREFIX.size:
            return None
        head, body = frame_size(data)
        start = PREFIX.size + head
        if len(data) < start + body:
            return None
        header = read_header(data[PREFIX.size : start])
        payload = data[start : start + body]
        del data[: start + body]
        return header, payload
