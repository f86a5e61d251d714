"""Where predictions go: CSV, JSON lines or Parquet, written a chunk at a time, whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec
import numpy as np

from cloche.batch.sources import ABSENT
from cloche.batch.values import as_list, is_arrow
from cloche.core.errors import ConfigError, MissingExtraError, NotFoundError

#: Column -> values: a list, an array of any shape, an Arrow array, or (a number a class) class -> values.
Table = Mapping[str, Any]
_NUMBERS = frozenset({"halffloat", "float", "double", "int64", "int32", "uint64", "uint32"})
SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}


class Sink(Protocol):
    """A Sink takes chunks of one table, each with the same columns."""

    def write(self, table: Table) -> None: ...

    def close(self) -> None:
        """Write what is left to be written; the file itself stays open."""
        ...


def kind_of(path: Path) -> str:
    """The kind of sink that a file's name asks for; ConfigError otherwise."""
    kind = SUFFIXES.get(path.suffix)
    if kind is None:
        raise ConfigError(
            f"{path} is no table: its name ends in {path.suffix!r}",
            code="CL-E206",
            hint="name a .csv, .jsonl or .parquet file",
        )
    return kind


@contextmanager
def open_sink(path: Path) -> Iterator[Sink]:
    """A sink for a file that is there in whole or, after an error or Ctrl-C, as it was before.

    Where nothing was written there is no file.
    """
    kind = kind_of(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        file = part.open("wb")
    except OSError as error:
        raise NotFoundError(
            f"{path} can't be written: {error.strerror}", code="CL-E303", hint="check the folder"
        ) from None
    try:
        with file:
            sink = make_sink(kind, file)
            try:
                yield sink
            finally:
                sink.close()
        if part.stat().st_size:
            part.replace(path)
        else:
            path.unlink(missing_ok=True)
    finally:
        part.unlink(missing_ok=True)


def make_sink(kind: str, file: IO[bytes], *, header: bool = True) -> Sink:
    """A sink of this kind that writes to an open file; of CSV with a header or without."""
    if kind == "csv":
        return CsvSink(file, header=header)
    if kind == "jsonl":
        return JsonLinesSink(file)
    return ArrowSink(file) if kind == "arrow" else ParquetSink(file)


class CsvSink:
    """A CsvSink writes CSV: a header, then a line a row; a missing value is empty."""

    def __init__(self, file: IO[bytes], *, header: bool = True) -> None:
        self._says_header = header
        self._text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._header: list[str] = []

    def write(self, table: Table) -> None:
        columns = flat(table)
        if not self._header:
            self._header = list(columns)
            if self._says_header:
                self._writer.writerow(self._header)
        _check_same(self._header, columns)
        cells = [_cells(columns[name]) for name in self._header]
        self._writer.writerows(zip(*cells, strict=True))

    def close(self) -> None:
        self._text.flush()
        self._text.detach()


class JsonLinesSink:
    """A JsonLinesSink writes one JSON object a line, its members as they are over HTTP."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._encode = msgspec.json.Encoder().encode_lines

    def write(self, table: Table) -> None:
        names = list(table)
        rows = zip(*(_members(values) for values in table.values()), strict=True)
        lines = ({n: v for n, v in zip(names, row, strict=True) if v is not ABSENT} for row in rows)
        self._file.write(self._encode(list(lines)))

    def close(self) -> None:
        self._file.flush()


class ParquetSink:
    """A ParquetSink writes Parquet, its types those of the first chunk."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._writer: Any = None
        self._schema: Any = None
        try:
            self._arrow: Any = import_module("pyarrow")
            import_module("pyarrow.parquet")
        except ImportError:
            raise MissingExtraError(
                "writing Parquet needs pyarrow", code="CL-E701", hint='pip install "cloche[parquet]"'
            ) from None

    def write(self, table: Table) -> None:
        columns = flat(table)
        try:
            made = self._arrow.table({name: arrow_array(self._arrow, values) for name, values in columns.items()})
            if self._writer is None:
                self._writer, self._schema = self._open(made.schema), made.schema
            _check_same(self._schema.names, columns)
            self._writer.write_table(made.select(self._schema.names).cast(self._schema))
        except self._arrow.ArrowException as error:
            raise ConfigError(
                f"the rows don't fit one Parquet table: {error}", code="CL-E206", hint="write .jsonl instead"
            ) from None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _open(self, schema: Any) -> Any:
        return parquet_writer(self._file, schema)


class ArrowSink(ParquetSink):
    """An ArrowSink writes Arrow's own file, which costs next to nothing to write and to read again."""

    def _open(self, schema: Any) -> Any:
        return self._arrow.ipc.new_file(self._file, schema)


def parquet_writer(file: Any, schema: Any) -> Any:
    """A writer of Parquet; numbers are hardly ever the same twice, so that only the others get a dictionary."""
    repeated = [field.name for field in schema if str(field.type) not in _NUMBERS]
    return import_module("pyarrow.parquet").ParquetWriter(file, schema, use_dictionary=repeated)


def flat(table: Table) -> dict[str, Any]:
    """The table with a column a class (`probabilities.yes`) in place of one for all classes."""
    columns: dict[str, Any] = {}
    for name, values in table.items():
        if isinstance(values, Mapping):
            columns |= {f"{name}.{part}": each for part, each in values.items()}
        else:
            columns[name] = values
    return columns


def _check_same(known: Iterable[str], columns: Mapping[str, Any]) -> None:
    if set(known) != set(columns):
        odd = next(iter(set(columns) ^ set(known)))
        raise ConfigError(
            f"not all rows have the member `{odd}`, and a table's rows are alike",
            code="CL-E206",
            hint="write JSON lines, with -o and a name that ends in .jsonl",
        )


def arrow_array(arrow: Any, values: Any) -> Any:
    """The values as an array of pyarrow's, which is `arrow`."""
    if is_arrow(values):
        return values
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return arrow.array(values)
    return arrow.array(listed(values))


def listed(values: Any) -> list[Any]:
    """The values as Python has them, None where there is none."""
    if isinstance(values, np.ndarray) or is_arrow(values):
        return as_list(values)
    return [None if value is ABSENT else value for value in values]


def _cells(values: Any) -> list[Any]:
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iuf":
        numbers: list[Any] = values.tolist()
        return numbers
    return [_cell(value) for value in listed(values)]


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    return msgspec.json.encode(value).decode() if isinstance(value, (list, dict)) else value


def _members(values: Any) -> list[Any]:
    if isinstance(values, Mapping):
        names = list(values)
        return [dict(zip(names, row, strict=True)) for row in zip(*map(_members, values.values()), strict=True)]
    return as_list(values)
