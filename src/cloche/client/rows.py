"""Rows as JSON bodies of bounded size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time, timedelta
from typing import Any

import msgspec
import numpy as np

from cloche.core.errors import ConfigError, InputError

#: Rows and bytes that one request holds at most; one row that is larger goes alone.
CHUNK_ROWS = 10_000
CHUNK_BYTES = 4_000_000

Row = Mapping[str, Any]


def encode_row(row: Row, number: int | None = None) -> bytes:
    """One row as a JSON object.

    Raises ConfigError for a value that can't be sent, by its column, and InputError for an infinite number, for
    which JSON has no word.
    """
    for name, value in row.items():
        if isinstance(value, (date, time, timedelta)):
            raise unsendable(name, type(value).__name__)
        if _is_infinite(value):
            raise _infinite(name, number)
    return _encode(row)


def _is_infinite(value: Any) -> bool:
    if isinstance(value, (float, np.floating)):
        return math.isinf(value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind == "f" and bool(np.isinf(value).any())
    return isinstance(value, (list, tuple)) and any(map(_is_infinite, value))


def _infinite(name: str, row: int | None) -> InputError:
    message = f"`{name}` is infinite" + ("" if row is None else f" in row {row}")
    detail = {"code": "CL-E107", "message": message, "field": name, "row": row}
    return InputError(message, code="CL-E107", hint="send a finite number", details=[detail])


def encode_chunks(rows: Iterable[Row]) -> Iterator[tuple[int, bytes]]:
    """Each chunk's number of rows, and its body; one empty chunk where there are no rows."""
    parts: list[bytes] = []
    size = 0
    sent = False
    for number, row in enumerate(rows):
        part = encode_row(row, number)
        if parts and (len(parts) == CHUNK_ROWS or size + len(part) > CHUNK_BYTES):
            yield len(parts), _wrapped(parts)
            sent, parts, size = True, [], 0
        parts.append(part)
        size += len(part) + 1
    if parts or not sent:
        yield len(parts), _wrapped(parts)


def unsendable(name: str, kind: str) -> ConfigError:
    return ConfigError(
        f"`{name}` holds a {kind}, which can't be sent",
        hint="send it as text or a number, as the model was packed with",
    )


def _wrapped(parts: list[bytes]) -> bytes:
    return b'{"rows":[%b]}' % b",".join(parts)


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy as Python's own, and the missing value of pandas as None."""
    if type(value).__name__ == "NAType":
        return None
    to_list = getattr(value, "tolist", None)
    if to_list is None:
        raise ConfigError(
            f"a value of type {type(value).__name__} can't be sent", hint="send numbers, strings, True or None"
        )
    return to_list()


_encode = msgspec.json.Encoder(enc_hook=_plain).encode
