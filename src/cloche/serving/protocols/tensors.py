"""Tensors on the wire of the Open Inference Protocol: JSON data and the binary extension, checked before use.

Sources: KServe's required_api.md (v2) and Triton's extension_binary_data.md.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from cloche.core.errors import InputError
from cloche.core.signature import FLOATS, INTEGERS, NUMPY_TYPES, Array, Field
from cloche.serving.protocols.arrays import RaggedError, from_flat, from_nested
from cloche.serving.protocols.base import MOST_ELEMENTS

_SCALARS: Mapping[str, Any] = {
    **dict.fromkeys(FLOATS, float), **dict.fromkeys(INTEGERS, int), "BOOL": bool, "BYTES": str,
}  # fmt: skip
_anything = msgspec.json.Decoder().decode
_KINDS: dict[type, str] = {
    bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object",
}  # fmt: skip
_MOST_AXES = 8
#: Every integer up to here has a double of its own (numpy calls all of INT64 safe).
_EXACT = 2**53


def wrong(name: str, message: str, expected: str | None = None, code: str = "CL-E111") -> InputError:
    return InputError(
        f"input `{name}`: {message}",
        code=code,
        where=f"request body, inputs[{name}]",
        hint=f"expected {expected}" if expected else None,
        details=[{"code": code, "field": name, "message": message}],
    )


def check_shape(name: str, datatype: str, shape: Sequence[int]) -> int:
    """The number of elements that a tensor claims; nothing is allocated on its word.

    Raises InputError for an unknown datatype, a negative dimension, too many axes or elements.
    """
    if datatype not in NUMPY_TYPES:
        raise wrong(name, f"datatype {datatype[:20]!r} is not known", ", ".join(NUMPY_TYPES))
    if len(shape) > _MOST_AXES:
        raise wrong(name, f"{len(shape)} axes", f"at most {_MOST_AXES}")
    if any(size < 0 for size in shape):
        raise wrong(name, f"shape {_shown(shape)} has a negative dimension")
    count = math.prod(shape)
    if count > MOST_ELEMENTS:
        # Python writes no number of more than 4,300 digits, and a caller may name longer ones
        claimed = f"{count:,}" if count < 10**30 else "10^30 or more"
        raise wrong(name, f"{claimed} elements", f"at most {MOST_ELEMENTS:,} in a request", "CL-E113")
    return count


def _shown(shape: Sequence[int]) -> str:
    text = str(list(shape))
    return text if len(text) <= 200 else f"{text[:199]}…"


def to_field(array: Array, field: Field, datatype: str, shape: Sequence[int]) -> Array:
    """A flat tensor as a column of the signature: widened where nothing is lost, [n,1] as [n]."""
    wanted = field.numpy_type
    if array.dtype != wanted:
        if datatype == "BYTES" or field.datatype == "BYTES" or not np.can_cast(array.dtype, wanted, "safe"):
            raise wrong(field.name, f"datatype {datatype}", field.datatype, "CL-E105")
        if array.dtype.itemsize == 8 and array.size and max(-int(array.min()), int(array.max())) > _EXACT:
            raise wrong(field.name, f"a value does not fit {field.datatype}", code="CL-E105")
        array = array.astype(wanted)
    shape = tuple(shape)
    if len(shape) == len(field.shape) + 1 and shape[-1] == 1:
        shape = shape[:-1]
    matches = len(shape) == len(field.shape) and all(
        want in (-1, size) for size, want in zip(shape, field.shape, strict=True)
    )
    if not matches:
        raise wrong(field.name, f"shape {_shown(shape)}", str(list(field.shape)), "CL-E110")
    return array.reshape(shape)


def from_json(name: str, datatype: str, shape: Sequence[int], data: msgspec.Raw, *, nulls: bool) -> Array:
    """A flat array of JSON `data`, nested or flat, row-major; `nulls`: null stands for a missing value."""
    count = check_shape(name, datatype, shape)
    try:
        values = _FLAT[datatype](data)
    except (msgspec.DecodeError, RecursionError, ValueError):
        nested = _nested(name, datatype, shape, data)
        if nested is not None:
            return nested
        values = _flatten(name, _parsed(name, data), len(shape))
        _check_types(name, datatype, values, nulls)
    if len(values) != count:
        raise wrong(name, f"{len(values)} values for shape {_shown(shape)}", f"{count} values")
    try:
        return from_flat(values, NUMPY_TYPES[datatype])
    except (OverflowError, ValueError, TypeError):
        raise _unfit(name, datatype) from None


def _nested(name: str, datatype: str, shape: Sequence[int], data: msgspec.Raw) -> Array | None:
    """The flat array of lists nested as the shape says; None where it is not so plain."""
    if len(shape) < 2:
        return None
    dtype = NUMPY_TYPES[datatype]
    try:
        array = from_nested(_decoder(datatype, len(shape))(data), len(shape) - 1, dtype, most=MOST_ELEMENTS)
    except msgspec.DecodeError:
        return None
    except RaggedError:
        raise wrong(name, "the lists of `data` differ in length", f"shape {_shown(shape)}", "CL-E110") from None
    except (OverflowError, ValueError, TypeError):
        raise _unfit(name, datatype) from None
    if array.shape != tuple(shape):
        raise wrong(name, f"`data` is nested as {list(array.shape)}", f"shape {_shown(shape)}", "CL-E110")
    return array.ravel()


def _unfit(name: str, datatype: str) -> InputError:
    return wrong(name, f"a value does not fit {datatype}", code="CL-E105")


@lru_cache(maxsize=256)
def _decoder(datatype: str, axes: int) -> Callable[[msgspec.Raw], list[Any]]:
    """A decoder of lists nested `axes` deep."""
    kind: Any = _SCALARS[datatype]
    for _ in range(axes):
        kind = list[kind]
    decode: Callable[[msgspec.Raw], list[Any]] = msgspec.json.Decoder(kind).decode
    return decode


_FLAT = {datatype: _decoder(datatype, 1) for datatype in _SCALARS}


def _parsed(name: str, data: msgspec.Raw) -> Any:
    """Any JSON; the request's first reading passes over `data` without a look at its strings and numbers."""
    try:
        return _anything(data)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise wrong(name, f"`data` can't be read: {error}", code="CL-E101") from None


def _flatten(name: str, value: Any, axes: int) -> list[Any]:
    if not isinstance(value, list):
        raise wrong(name, "`data` is not a list")
    values = value
    for _ in range(max(axes, 1) - 1):
        if not any(isinstance(item, list) for item in values):
            break
        if not all(isinstance(item, list) for item in values):
            raise wrong(name, "`data` is nested unevenly")
        values = [inner for item in values for inner in item]
        if len(values) > MOST_ELEMENTS:
            raise wrong(name, f"over {MOST_ELEMENTS:,} elements", code="CL-E113")
    return values


def _check_types(name: str, datatype: str, values: list[Any], nulls: bool) -> None:
    wanted: tuple[type, ...] = (str,)
    if datatype in FLOATS:
        wanted = (float, int)
    elif datatype in INTEGERS:
        wanted = (int,)
    elif datatype == "BOOL":
        wanted = (bool,)
    for at, value in enumerate(values):
        is_good = isinstance(value, wanted) and (datatype == "BOOL" or not isinstance(value, bool))
        if is_good or (value is None and nulls and datatype in (*FLOATS, "BYTES")):
            continue
        code = "CL-E106" if value is None else "CL-E105"
        if value is None:
            raise wrong(
                name, f"value {at} is null", f"{datatype}; pack with rows that have gaps to allow it", code
            )
        said = f"value {at} is {_KINDS.get(type(value), 'of an unknown kind')}"
        if isinstance(value, float) and datatype in INTEGERS:
            said = f"value {at} is {value!r}, a whole number is expected"
        raise wrong(name, said, datatype, code)


def from_binary(name: str, datatype: str, shape: Sequence[int], body: memoryview) -> Array:
    """A flat array over little-endian, row-major bytes; nothing is copied but BYTES and what is not aligned."""
    count = check_shape(name, datatype, shape)
    if datatype == "BYTES":
        return _strings(name, body, count)
    dtype = NUMPY_TYPES[datatype].newbyteorder("<")
    if len(body) != count * dtype.itemsize:
        raise wrong(
            name, f"{len(body)} bytes for shape {list(shape)}", f"{count * dtype.itemsize} bytes", "CL-E112"
        )
    if datatype == "BOOL":
        raw = np.frombuffer(body, np.uint8)
        if raw.size and raw.max() > 1:
            raise wrong(name, "a BOOL byte is neither 0 nor 1", code="CL-E105")
        return raw.astype(np.bool_)
    flat = np.frombuffer(body, dtype)
    # a JSON header of any length stands before it, and runtimes may read whole vectors
    return flat if flat.flags.aligned else flat.copy()


def _strings(name: str, body: memoryview, count: int) -> Array:
    if len(body) < 4 * count:
        raise wrong(name, f"{len(body)} bytes for {count} strings", f"at least {4 * count}", "CL-E112")
    column = np.empty(count, object)
    at = 0
    for number in range(count):
        end = at + 4
        if end > len(body):
            raise wrong(name, f"string {number} lies beyond the end", code="CL-E112")
        (length,) = struct.unpack_from("<I", body, at)
        if end + length > len(body):
            raise wrong(name, f"string {number} claims {length} bytes beyond the end", code="CL-E112")
        try:
            column[number] = str(body[end : end + length], "utf-8")
        except UnicodeDecodeError:
            raise wrong(name, f"string {number} is not UTF-8", code="CL-E105") from None
        at = end + length
    if at != len(body):
        raise wrong(name, f"{len(body) - at} bytes are left over", code="CL-E112")
    return column


def to_binary(array: Array, datatype: str) -> bytes:
    """A tensor's little-endian, row-major bytes; BYTES elements with their 4-byte length."""
    if datatype != "BYTES":
        return array.astype(NUMPY_TYPES[datatype].newbyteorder("<"), copy=False).tobytes()
    parts = []
    for item in array.ravel():
        text = str(item).encode()
        parts.append(struct.pack("<I", len(text)) + text)
    return b"".join(parts)
