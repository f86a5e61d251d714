"""Where rows come from: CSV, JSON lines or Parquet, read a chunk at a time."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Protocol, cast

import msgspec

from cloche.core.errors import ConfigError, MissingExtraError, NotFoundError


class Absent:
    """Absent stands where a row has no such member at all."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()
_SUFFIXES = {".csv": "csv", ".csv.gz": "csv", ".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".parquet": "parquet"}
#: What a broken compressed file raises besides OSError.
_BROKEN = (EOFError, zlib.error)
#: How much of a column of a Parquet file is read at a time.
_BUFFER = 1 << 16
#: Rows of a Parquet file that are decoded at a time.
_STEP = 10_000
#: Lines that are passed over at a time.
_SKIPPED = 10_000


class Chunk(msgspec.Struct, frozen=True):
    """A Chunk is some rows of a source, column by column, as they stand there."""

    #: The number of the first row, from 1.
    first: int
    #: A list, or an Arrow array.
    columns: dict[str, Any]
    rows: int
    #: Rows that can't be read at all, by their place in the chunk: why.
    problems: dict[int, str] = {}


#: Where in a source one is; of JSON's types.
Position = dict[str, Any]


class Portion(msgspec.Struct, frozen=True):
    """A Portion is a chunk, where it came from, and the position behind it."""

    chunk: Chunk
    name: str
    position: Position
    #: csv, jsonl, parquet or table
    kind: str


class Source(Protocol):
    """A Source gives its rows in order, as many at a time as one asks for."""

    #: csv, jsonl or parquet
    kind: str
    name: str

    def read(self, rows: int) -> Chunk | None:
        """The next rows, at most so many; None at the end. Raises ConfigError CL-E206."""
        ...

    def skip(self, rows: int) -> None:
        """Pass over so many rows. Raises ConfigError CL-E206 where there are fewer."""
        ...

    def done(self) -> float | None:
        """How much of it was read, 0 to 1; None where that can't be known."""
        ...


def kind_of_source(path: Path) -> str:
    """csv, jsonl or parquet, by a file's name; ConfigError CL-E206 otherwise."""
    for suffix, kind in _SUFFIXES.items():
        if path.name.endswith(suffix):
            return kind
    raise ConfigError(
        f"{path} is no table: its name ends in {path.suffix!r}",
        code="CL-E206",
        hint="give a .csv, .jsonl (either may be .gz) or .parquet file, one JSON object, or - for what comes in "
        "by stdin",
    )


class Sources(AbstractContextManager["Source"]):
    """Sources opens the source at a path, or that comes in `stream`, and closes what it opened."""

    def __init__(self, path: Path | None, stream: IO[bytes] | None = None) -> None:
        self._path = path
        self._file = stream
        self._owns = path is not None

    def __enter__(self) -> Source:
        if self._path is None:
            assert self._file is not None
            return _sniffed(self._file)
        readers: dict[str, Callable[[IO[bytes], str, int | None], Source]] = {
            "csv": CsvSource,
            "jsonl": JsonLinesSource,
            "parquet": ParquetSource,
        }
        kind = readers[kind_of_source(self._path)]
        packed = self._path.suffix == ".gz"
        try:
            opened = cast("IO[bytes]", gzip.open(self._path)) if packed else self._path.open("rb")
            self._file = opened
            size = None if packed else self._path.stat().st_size
        except FileNotFoundError:
            raise NotFoundError(f"there is no file {self._path}", code="CL-E303", hint="check the path") from None
        except OSError as error:
            raise _unreadable(str(self._path), error.strerror) from None
        try:
            return kind(opened, str(self._path), size)
        except BaseException:
            opened.close()
            raise

    def __exit__(self, *_: object) -> None:
        if self._owns and self._file is not None:
            self._file.close()


def _sniffed(stream: IO[bytes]) -> Source:
    """Standard input tells by its first byte what it is: `{` begins JSON lines, anything else CSV."""
    first = stream.readline()
    if first.startswith(b"PAR1"):
        raise _unreadable("stdin", "Parquet can't be read from a pipe: give the file")
    kind = JsonLinesSource if first.lstrip()[:1] == b"{" else CsvSource
    return kind(chain([first] if first else [], stream), "stdin", None)


class _Lines:
    """Lines of bytes as text, counted as they go by."""

    def __init__(self, lines: Any, size: int | None) -> None:
        self.size = size
        self.seen = 0
        self._lines = iter(lines)

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            self.seen += len(line)
            yield line

    def done(self) -> float | None:
        return None if self.size is None else min(1.0, self.seen / max(self.size, 1))


class CsvSource:
    """A CsvSource reads CSV with a header; a line that has more or fewer values than it is a bad row."""

    kind = "csv"

    def __init__(self, lines: Any, name: str, size: int | None) -> None:
        self.name = name
        self._lines = _Lines(lines, size)
        self._reader = csv.reader(self._texts())
        self._rows = (row for row in self._reader if row)
        self._next = 1
        try:
            self._header = next(self._reader, [])
        except (csv.Error, UnicodeDecodeError, OSError, *_BROKEN) as error:
            raise _unreadable(name, error) from None
        twice = sorted({column for column in self._header if self._header.count(column) > 1})
        if twice or not self._header:
            raise _unreadable(name, f"its header names {', '.join(twice)} twice" if twice else "it is empty")

    def _texts(self) -> Iterator[str]:
        encoding = "utf-8-sig"  # of the first line only
        for line in self._lines:
            yield line.decode(encoding)
            encoding = "utf-8"

    def read(self, rows: int) -> Chunk | None:
        try:
            read = list(islice(self._rows, rows))
        except (csv.Error, UnicodeDecodeError, OSError, *_BROKEN) as error:
            raise _unreadable(f"{self.name}, line {self._reader.line_num}", error) from None
        if not read:
            return None
        width = len(self._header)
        problems = {}
        for at, row in enumerate(read):
            if len(row) != width:
                problems[at] = f"it has {len(row)} values, the header {width}"
                read[at] = [*row, *[""] * width][:width]
        columns = dict(zip(self._header, map(list, zip(*read, strict=True)), strict=True))
        chunk = Chunk(self._next, columns, len(read), problems)
        self._next += len(read)
        return chunk

    def skip(self, rows: int) -> None:
        passed = 0
        while passed < rows and (chunk := self.read(min(rows - passed, _SKIPPED))) is not None:
            passed += chunk.rows
        _check_passed(self.name, passed, rows)

    def done(self) -> float | None:
        return self._lines.done()


class JsonLinesSource:
    """A JsonLinesSource reads one JSON object a line; what is none is a bad row."""

    kind = "jsonl"

    def __init__(self, lines: Any, name: str, size: int | None) -> None:
        self.name = name
        self._lines = _Lines(lines, size)
        self._rows = (line for line in self._lines if line.strip())
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode
        self._next = 1

    def read(self, rows: int) -> Chunk | None:
        read: list[dict[str, Any]] = []
        problems = {}
        for at, line in enumerate(self._taken(rows)):
            try:
                read.append(self._decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                problems[at] = f"it is no JSON object: {error}"
                read.append({})
        if not read:
            return None
        names = dict.fromkeys(name for row in read for name in row)
        columns = {name: [row.get(name, ABSENT) for row in read] for name in names}
        chunk = Chunk(self._next, columns, len(read), problems)
        self._next += len(read)
        return chunk

    def skip(self, rows: int) -> None:
        passed = 0
        while passed < rows and (lines := self._taken(min(rows - passed, _SKIPPED))):
            passed += len(lines)
        self._next += passed
        _check_passed(self.name, passed, rows)

    def _taken(self, rows: int) -> list[bytes]:
        try:
            return list(islice(self._rows, rows))
        except (OSError, *_BROKEN) as error:
            raise _unreadable(self.name, error) from None

    def done(self) -> float | None:
        return self._lines.done()


class ParquetSource:
    """A ParquetSource reads the batches of a Parquet file; its columns are Arrow arrays."""

    kind = "parquet"

    def __init__(self, file: IO[bytes], name: str, size: int | None) -> None:
        self.name = name
        try:
            self._arrow: Any = import_module("pyarrow")
            parquet = import_module("pyarrow.parquet")
        except ImportError:
            raise MissingExtraError(
                "reading Parquet needs pyarrow", code="CL-E701", hint='pip install "cloche[parquet]"'
            ) from None
        try:
            # by its path: a file of Python's would be read with the interpreter's lock held
            self._file: Any = parquet.ParquetFile(self._arrow.OSFile(file.name), buffer_size=_BUFFER)
        except (OSError, ValueError) as error:
            raise _unreadable(name, error) from None
        self.total: int = self._file.metadata.num_rows
        self._batches: Any = None
        #: What was read and not yet given.
        self._left: Any = None
        self._group = 0
        self._next = 1

    def read(self, rows: int) -> Chunk | None:
        parts, count = [], 0
        while count < rows and (batch := self._batch(rows)) is not None:
            taken = batch.slice(0, rows - count)
            if taken.num_rows < batch.num_rows:
                self._left = batch.slice(taken.num_rows)
            parts.append(taken)
            count += taken.num_rows
        if not count:
            return None
        chunk = Chunk(self._next, self._columns(parts), count)
        self._next += count
        return chunk

    def skip(self, rows: int) -> None:
        left = rows
        metadata = self._file.metadata
        while self._group < metadata.num_row_groups and metadata.row_group(self._group).num_rows <= left:
            left -= metadata.row_group(self._group).num_rows
            self._group += 1
        self._next += rows - left
        while left and (chunk := self.read(min(left, _SKIPPED))) is not None:
            left -= chunk.rows
        _check_passed(self.name, rows - left, rows)

    def done(self) -> float | None:
        return (self._next - 1) / max(self.total, 1)

    def _batch(self, rows: int) -> Any:
        if self._left is not None:
            batch, self._left = self._left, None
            return batch
        metadata = self._file.metadata
        try:
            while True:
                if self._batches is not None and (batch := next(self._batches, None)) is not None:
                    return batch
                if self._group == metadata.num_row_groups:
                    return None
                # one group after the other, since what was read of those before would be kept; in steps, since a
                # group can be the whole file
                self._batches = self._file.iter_batches(min(rows, _STEP), [self._group], use_threads=False)
                self._group += 1
        except (OSError, ValueError) as error:
            raise _unreadable(self.name, error) from None

    def _columns(self, batches: Sequence[Any]) -> dict[str, Any]:
        if len(batches) == 1:
            return dict(zip(batches[0].schema.names, batches[0].columns, strict=True))
        joined = self._arrow.Table.from_batches(batches).combine_chunks()
        return {name: _one_array(joined.column(name)) for name in joined.column_names}


def _one_array(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _check_passed(name: str, passed: int, rows: int) -> None:
    if passed < rows:
        raise _unreadable(name, f"it had {rows} rows before, and has {passed} now")


def _unreadable(name: str, why: object) -> ConfigError:
    return ConfigError(f"{name} can't be read: {why}", code="CL-E206", hint="check its format; text is UTF-8")
