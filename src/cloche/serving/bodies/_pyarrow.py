"""The half of the Arrow and Parquet bodies that needs pyarrow; nothing in a body is taken at its word."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cloche.core.errors import InputError
from cloche.core.signature import INTEGERS, Array, Columns, Field, Signature
from cloche.serving.bodies.layout import Layout, spread
from cloche.serving.protocols.base import MOST_ELEMENTS
from cloche.serving.protocols.values import read_values
from cloche.serving.protocols.wire_types import MOST_ROWS, too_many

#: Bytes that the columns of a Parquet file may hold once they are inflated.
_MOST_BYTES = 512 * 1024 * 1024
_BATCH_ROWS = 65_536
#: Batches of a stream, or row groups of a file: each costs, however few its rows are.
_MOST_PIECES = 10_000


def read_stream(body: bytes, signature: Signature) -> Columns:
    """The columns of an Arrow stream. Raises InputError."""
    if body.startswith(b"ARROW1"):
        raise InputError(
            "the body is an Arrow file, not a stream", code="CL-E101", where="request body",
            hint="write a stream: pyarrow's ipc.new_stream, polars' write_ipc_stream",
        )  # fmt: skip
    with _told("an Arrow stream"):
        _check_plain(body)
        reader = pa.ipc.open_stream(body)
        layout = Layout(signature, reader.schema.names)
        return _columns(layout, _gathered(reader, reader.schema))


def read_file(body: bytes, signature: Signature) -> Columns:
    """The columns of a Parquet file. Raises InputError."""
    with _told("a Parquet file"):
        file = pq.ParquetFile(pa.BufferReader(body))
        layout = Layout(signature, file.schema_arrow.names)
        said = file.metadata
        if said.num_row_groups > _MOST_PIECES:
            raise too_many(said.num_row_groups, "row groups", _MOST_PIECES)
        if said.num_rows > MOST_ROWS:
            raise too_many(said.num_rows, "rows", MOST_ROWS)
        size = sum(said.row_group(at).total_byte_size for at in range(said.num_row_groups))
        if size > _MOST_BYTES:
            raise too_many(size, "bytes", _MOST_BYTES)
        return _columns(layout, _gathered(file.iter_batches(_BATCH_ROWS, use_threads=False), file.schema_arrow))


def write_stream(outputs: Columns, signature: Signature) -> bytes:
    """An Arrow stream of outputs, a column a class."""
    table = _to_table(spread(outputs, signature.outputs, matrices=False))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def write_file(outputs: Columns, signature: Signature) -> bytes:
    """A Parquet file of outputs, a column a class."""
    sink = pa.BufferOutputStream()
    pq.write_table(_to_table(spread(outputs, signature.outputs, matrices=False)), sink)
    written: bytes = sink.getvalue().to_pybytes()
    return written


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, MemoryError, ValueError, OverflowError, RecursionError) as error:
        said = str(error).partition("\n")[0][:200]
        raise InputError(
            f"the body is not {what} that can be read: {said}", code="CL-E101", where="request body",
            hint="write it anew, with pyarrow, polars or DuckDB",
        ) from None  # fmt: skip


def _gathered(batches: Any, schema: Any) -> Any:
    """The batches as one table, each validated to the last offset before the next is read."""
    kept, rows, size = [], 0, 0
    for batch in batches:
        batch.validate(full=True)
        rows += batch.num_rows
        size += batch.nbytes
        if rows > MOST_ROWS:
            raise too_many(rows, "rows", MOST_ROWS)
        if rows * batch.num_columns > MOST_ELEMENTS:
            raise too_many(rows * batch.num_columns, "elements", MOST_ELEMENTS)
        if size > _MOST_BYTES:
            raise too_many(size, "bytes", _MOST_BYTES)
        kept.append(batch)
        if len(kept) > _MOST_PIECES:
            raise too_many(len(kept), "batches", _MOST_PIECES)
    return pa.Table.from_batches(kept, schema)


def _columns(layout: Layout, table: Any) -> Columns:
    if table.num_rows == 0:
        raise InputError("there are no rows", code="CL-E102", where="request body", hint="send at least one")
    columns: Columns = {}
    odd: dict[str, Any] = {}
    for at, field in enumerate(layout.fields):
        column = _plain(table.column(at))
        array = _to_array(field, column)
        if array is None:
            odd[field.name] = column
        else:
            columns[field.name] = array
    if odd:  # value by value: slower, but it finds what is wrong, or that nothing is
        fields = [field for field in layout.fields if field.name in odd]
        columns |= read_values(fields, {name: column.to_pylist() for name, column in odd.items()})
    return layout.join(columns)


def _plain(column: Any) -> Any:
    """One array without chunks, dictionary or extension."""
    column = pa.concat_arrays(column.chunks)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    while isinstance(column, pa.ExtensionArray):
        column = column.storage
    return column


def _to_array(field: Field, column: Any) -> Array | None:
    """The column as the field has it; None where that is not plain to see."""
    shape = [len(column)]
    for wanted in field.shape[1:]:
        if not _is_list(column.type) or column.null_count:
            return None
        inner = column.flatten()
        size = len(inner) // len(column) if len(column) else 0
        if wanted not in (-1, size) or not _is_even(column, size):
            return None
        shape.append(size)
        column = inner
    if column.null_count and not field.takes_null:
        return None
    if field.datatype == "BYTES":
        return np.array(column.to_pylist(), dtype=object).reshape(shape) if _is_text(column.type) else None
    if field.datatype == "BOOL":
        return _bits(column).reshape(shape) if pa.types.is_boolean(column.type) else None
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return None
    array = _fitted(_numbers(column), field)
    return None if array is None else array.reshape(shape)


# `to_numpy` and `pa.array` would load pandas where it is installed: a second of work, in the middle of a request.


def _numbers(column: Any) -> Array:
    """The numbers of a column; where one is missing, all as floats."""
    if not column.null_count:
        return np.from_dlpack(column)
    floats: Any = column if pa.types.is_floating(column.type) else column.cast(pa.float64())
    _, data = floats.buffers()
    dtype = np.dtype(floats.type.to_pandas_dtype())
    array: Array = np.frombuffer(data, dtype)[floats.offset : floats.offset + len(floats)].copy()
    array[~_bits(column.is_valid())] = np.nan
    return array


def _bits(column: Any) -> Array:
    bits: Array = np.from_dlpack(column.cast(pa.uint8())).astype(bool)
    return bits


def _fitted(array: Array, field: Field) -> Array | None:
    """Numbers in the field's type, where each stays what it is, or a float loses width only."""
    if array.dtype == field.numpy_type:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        cast: Array = array.astype(field.numpy_type)
    if field.datatype in INTEGERS:
        return cast if np.array_equal(cast, array) and _within(array, field) else None
    return cast if np.array_equal(np.isinf(cast), np.isinf(array)) else None


def _within(array: Array, field: Field) -> bool:
    """Whether no number wrapped around: a cast of 2^63 gives a number that compares as equal."""
    limits = np.iinfo(field.numpy_type)
    return array.size == 0 or (int(array.min()) >= limits.min and int(array.max()) <= limits.max)


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_even(column: Any, size: int) -> bool:
    if pa.types.is_fixed_size_list(column.type):
        return True
    lengths = np.diff(column.offsets.to_numpy())
    return bool((lengths == size).all())


def _to_table(columns: Columns) -> Any:
    return pa.table({name: _to_arrow(column) for name, column in columns.items()})


def _to_arrow(column: Array) -> Any:
    flat = np.ascontiguousarray(column).ravel()
    if column.dtype == object:
        texts = [text.encode() for text in flat.tolist()]
        ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
        array = pa.Array.from_buffers(pa.large_string(), len(flat), buffers).cast(pa.string())
    else:
        bits = np.packbits(flat, bitorder="little") if column.dtype == bool else flat
        kind = pa.from_numpy_dtype(column.dtype)
        array = pa.Array.from_buffers(kind, len(flat), [None, pa.py_buffer(bits)])
    for size in reversed(column.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def _check_plain(body: bytes) -> None:
    """Refuse batches that are compressed inside the stream: what they inflate to is not known before it is done.

    A whole stream may be compressed (Content-Encoding), which is inflated under a cap.
    """
    for message in pa.ipc.MessageReader.open_stream(body):
        if message.type in ("record batch", "dictionary") and _is_compressed(message.metadata.to_pybytes()):
            raise InputError(
                "the batches of the stream are compressed", code="CL-E115", where="request body",
                hint="write them uncompressed, and send the whole with Content-Encoding where it should be small",
            )  # fmt: skip


def _is_compressed(metadata: bytes) -> bool:
    """Whether the flatbuffer of a message names a codec (Message.header, DictionaryBatch.data, RecordBatch[3])."""
    number: Callable[[str, int], int] = lambda form, at: struct.unpack_from(form, metadata, at)[0]  # noqa: E731

    def member(table: int, index: int) -> int:
        vtable = table - number("<i", table)
        slot = 4 + 2 * index
        offset = number("<H", vtable + slot) if slot < number("<H", vtable) else 0
        return table + offset if offset else 0

    def follow(at: int) -> int:
        return at + number("<I", at)

    try:
        message = follow(0)
        batch = follow(member(message, 2))
        if metadata[member(message, 1)] == 2:  # DictionaryBatch
            batch = follow(member(batch, 1))
        return member(batch, 3) != 0
    except (struct.error, IndexError):
        return True
