"""Where rows come from: CSV, JSON lines or Parquet, read a chunk at a time."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

from cloche.core.errors import ConfigError, MissingExtraError, NotFoundError


class Absent:
    """Absent stands where a row has no such member at all."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


class Chunk(msgspec.Struct, frozen=True):
    """A Chunk is some rows of a source, column by column, as they stand there."""

    #: The number of the first row, from 1.
    first: int
    columns: dict[str, list[Any]]
    rows: int
    #: Rows that can't be read at all, by their place in the chunk: why.
    problems: dict[int, str] = {}


class Source(Protocol):
    """A Source gives its rows in order, as many at a time as one asks for."""

    #: csv, jsonl or parquet
    kind: str
    name: str

    def read(self, rows: int) -> Chunk | None:
        """The next rows, at most so many; None at the end. Raises ConfigError CL-E206."""
        ...

    def done(self) -> float | None:
        """How much of it was read, 0 to 1; None where that can't be known."""
        ...


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
        readers: dict[str, Callable[[IO[bytes], str, int], Source]] = {
            ".csv": CsvSource,
            ".jsonl": JsonLinesSource,
            ".parquet": ParquetSource,
        }
        kind = readers.get(self._path.suffix)
        if kind is None:
            raise ConfigError(
                f"{self._path} is no table: its name ends in {self._path.suffix!r}",
                code="CL-E206",
                hint="give a .csv, .jsonl or .parquet file, one JSON object, or - for what comes in by stdin",
            )
        try:
            self._file = self._path.open("rb")
            size = self._path.stat().st_size
        except FileNotFoundError:
            raise NotFoundError(f"there is no file {self._path}", code="CL-E303", hint="check the path") from None
        except OSError as error:
            raise _unreadable(str(self._path), error.strerror) from None
        try:
            return kind(self._file, str(self._path), size)
        except BaseException:
            self._file.close()
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
        except (csv.Error, UnicodeDecodeError) as error:
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
        except (csv.Error, UnicodeDecodeError) as error:
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
        for at, line in enumerate(islice(self._rows, rows)):
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

    def done(self) -> float | None:
        return self._lines.done()


class ParquetSource:
    """A ParquetSource reads the batches of a Parquet file."""

    kind = "parquet"

    def __init__(self, file: IO[bytes], name: str, size: int | None) -> None:
        self.name = name
        try:
            parquet = import_module("pyarrow.parquet")
        except ImportError:
            raise MissingExtraError(
                "reading Parquet needs pyarrow", code="CL-E701", hint='pip install "cloche[parquet]"'
            ) from None
        try:
            opened: Any = parquet.ParquetFile(file)
        except (OSError, ValueError) as error:
            raise _unreadable(name, error) from None
        self._total: int = opened.metadata.num_rows
        # small steps: a row group can be the whole file
        self._batches = opened.iter_batches(batch_size=1024)
        self._left: Any = None
        self._next = 1

    def read(self, rows: int) -> Chunk | None:
        columns: dict[str, list[Any]] = {}
        count = 0
        try:
            while count < rows and (batch := next(self._batches, None)) is not None:
                for name, values in batch.to_pydict().items():
                    columns.setdefault(name, []).extend(values)
                count += batch.num_rows
        except (OSError, ValueError) as error:
            raise _unreadable(self.name, error) from None
        if not count:
            return None
        chunk = Chunk(self._next, columns, count)
        self._next += count
        return chunk

    def done(self) -> float | None:
        return (self._next - 1) / max(self._total, 1)


def _unreadable(name: str, why: object) -> ConfigError:
    return ConfigError(f"{name} can't be read: {why}", code="CL-E206", hint="check its format; text is UTF-8")
