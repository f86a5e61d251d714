"""Data frames to and from a server: Arrow where both ends have pyarrow, JSON rows otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import narwhals as nw

from cloche.client.rows import CHUNK_BYTES, CHUNK_ROWS, unsendable

ARROW = "application/vnd.apache.arrow.stream"
#: Below so many rows JSON is as fast, and neither end need import pyarrow.
ARROW_FROM = 256


def find_arrow() -> Any:
    """The pyarrow package; None where it is not installed."""
    try:
        import_module("pyarrow.ipc")
    except ImportError:
        return None
    return import_module("pyarrow")


def as_frame(rows: Any) -> nw.DataFrame[Any] | None:
    """The frame that these rows are; None where they are none."""
    frame = nw.from_native(rows, eager_only=True, pass_through=True)
    return frame if isinstance(frame, nw.DataFrame) else None


def check_sendable(frame: nw.DataFrame[Any]) -> None:
    """Raises ConfigError for a column of dates or times."""
    for name, dtype in frame.schema.items():
        if dtype.is_temporal():
            raise unsendable(name, str(dtype))


def to_streams(frame: nw.DataFrame[Any], arrow: Any) -> list[tuple[int, bytes]] | None:
    """Each chunk's number of rows, and its body; None for a column that Arrow has no type for."""
    try:
        columns = {str(name): frame[name].to_arrow() for name in frame.columns}
    except (arrow.ArrowException, TypeError, ValueError):
        return None  # as JSON it comes to a server that can say which value is odd
    return list(_streams(arrow.table(columns), arrow))


def _streams(table: Any, arrow: Any) -> Iterator[tuple[int, bytes]]:
    rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES * len(table) // max(table.nbytes, 1)))
    for start in range(0, len(table), rows):
        part = table.slice(start, rows)
        sink = arrow.BufferOutputStream()
        with arrow.ipc.new_stream(sink, part.schema) as writer:
            writer.write_table(part)
        yield len(part), sink.getvalue().to_pybytes()


def from_streams(bodies: Sequence[bytes], like: nw.DataFrame[Any], arrow: Any) -> Any:
    """The frame of all answers, of the kind and with the index of `like`."""
    tables = [arrow.ipc.open_stream(body).read_all() for body in bodies]
    table = arrow.concat_tables(tables).flatten()  # a number a class: `probabilities.yes`
    return _finished(nw.from_arrow(table, backend=like.implementation), like)


def from_predictions(predictions: Sequence[Mapping[str, Any]], like: nw.DataFrame[Any]) -> Any:
    """The frame of these rows, of the kind and with the index of `like`."""
    columns: dict[str, list[Any]] = {}
    for name, value in predictions[0].items():
        if isinstance(value, Mapping):
            for part in value:
                columns[f"{name}.{part}"] = [one[name][part] for one in predictions]
        else:
            columns[name] = [one[name] for one in predictions]
    return _finished(nw.from_dict(columns, backend=like.implementation), like)


def _finished(answer: nw.DataFrame[Any], like: nw.DataFrame[Any]) -> Any:
    native = answer.to_native()
    index = nw.maybe_get_index(like)
    if index is not None:
        native.index = index
    return native
