"""numpy arrays to and from a server: tensors of the Open Inference Protocol, with binary data."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from cloche.client.rows import CHUNK_BYTES, CHUNK_ROWS
from cloche.core.errors import ConfigError
from cloche.core.signature import FLOATS, INTEGERS, NUMPY_TYPES, Array, Columns, Field

HEADER_LENGTH = "Inference-Header-Content-Length"
_NAMES = {dtype: name for name, dtype in NUMPY_TYPES.items()}


def spread(array: Array, inputs: Sequence[Field]) -> Columns:
    """The array as a column an input: the one input of more axes, or (rows, k) as k inputs of one value each.

    Types become the model's where nothing is lost, or only a float's width; what else is wrong the server tells.
    """
    if len(inputs) == 1 and array.ndim == len(inputs[0].shape):
        return {inputs[0].name: _fitted(array, inputs[0].datatype)}
    if array.ndim == 2 and array.shape[1] == len(inputs) and all(len(each.shape) == 1 for each in inputs):
        return {each.name: _fitted(array[:, at], each.datatype) for at, each in enumerate(inputs)}
    takes = ", ".join(f"{each.name} {list(each.shape)}" for each in inputs[:12])
    raise ConfigError(
        f"an array of shape {list(array.shape)} does not fit the {len(inputs)} inputs of this model",
        hint=f"it takes {takes}{', …' if len(inputs) > 12 else ''}; a data frame gives columns by name",
    )


def _fitted(column: Array, datatype: str) -> Array:
    wanted = NUMPY_TYPES.get(datatype, column.dtype)
    if datatype == "BYTES" or column.dtype == wanted:
        return column
    if column.dtype == object:
        try:  # numbers beside strings, in an array of rows
            column = np.array(column.tolist(), wanted if datatype in FLOATS else None)
        except (TypeError, ValueError):
            return column
    if datatype in FLOATS and column.dtype.kind in "iufb":
        return column.astype(wanted)
    if datatype in INTEGERS and column.dtype.kind in "iuf":
        with np.errstate(invalid="ignore"):
            cast = column.astype(wanted)
        return cast if np.array_equal(cast, column) else column
    return column


def to_requests(columns: Columns) -> Iterator[tuple[int, int, bytes]]:
    """Each chunk's number of rows, the length of its header, and its body."""
    rows = len(next(iter(columns.values())))
    a_row = sum(_row_bytes(column) for column in columns.values())
    step = max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(a_row, 1)))
    for start in range(0, max(rows, 1), step):
        tensors, parts = [], []
        for name, whole in columns.items():
            column = whole[start : start + step]
            datatype = _NAMES.get(column.dtype, "BYTES")
            data = _strings(name, column) if datatype == "BYTES" else column.astype(column.dtype, "C").tobytes()
            tensors.append(
                {"name": name, "shape": column.shape, "datatype": datatype,
                 "parameters": {"binary_data_size": len(data)}}
            )  # fmt: skip
            parts.append(data)
        header = msgspec.json.encode({"inputs": tensors, "parameters": {"binary_data_output": True}})
        yield min(step, rows - start), len(header), b"".join([header, *parts])


def _row_bytes(column: Array) -> int:
    if column.dtype == object:
        return 64 * math.prod(column.shape[1:])
    return column.itemsize * math.prod(column.shape[1:])


def _strings(name: str, column: Array) -> bytes:
    parts: list[bytes] = []
    for item in column.ravel().tolist():
        if not isinstance(item, str):
            raise ConfigError(
                f"`{name}` holds a {type(item).__name__} where text is wanted",
                hint="an array has no missing text: give a data frame or a list of mappings",
            )
        text = item.encode()
        parts += (struct.pack("<I", len(text)), text)
    return b"".join(parts)


def from_answers(answers: Sequence[tuple[bytes, Mapping[str, str]]]) -> Array:
    """What a model answered to an array: the labels, the values, else its only output."""
    parts = [_outputs(body, headers) for body, headers in answers]
    for name in ("label", "value"):
        if name in parts[0]:
            break
    else:
        if len(parts[0]) > 1:
            raise ConfigError(
                f"the model has the outputs {', '.join(parts[0])}, and an array holds one",
                hint="give a data frame or a list of mappings",
            )
        name = next(iter(parts[0]))
    return np.concatenate([part[name] for part in parts])


def _outputs(body: bytes, headers: Mapping[str, str]) -> Columns:
    length = int(headers.get(HEADER_LENGTH, len(body)))
    outputs: Columns = {}
    at = length
    for tensor in msgspec.json.decode(body[:length])["outputs"]:
        datatype, shape = tensor["datatype"], tensor["shape"]
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            values: Any = np.array(tensor["data"], None if datatype == "BYTES" else NUMPY_TYPES[datatype])
        elif datatype == "BYTES":
            values = np.array(_texts(body[at : at + size]))
        else:
            values = np.frombuffer(body[at : at + size], NUMPY_TYPES[datatype].newbyteorder("<"))
        at += size or 0
        outputs[tensor["name"]] = values.reshape(shape)
    return outputs


def _texts(data: bytes) -> list[str]:
    texts, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        texts.append(data[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return texts
