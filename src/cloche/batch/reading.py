"""What a run reads: portions of a source, each with the position that the next one begins at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from cloche.batch.places import as_table, files_of
from cloche.batch.sources import ParquetSource, Portion, Position, Sources
from cloche.batch.tables import TableReading


class Reading(Protocol):
    """A Reading gives the portions of one source in an order that is the same each time."""

    #: The rows in all, where that is known.
    total: int | None

    def portions(self, position: Position | None, rows: int) -> Iterator[Portion]:
        """From a position (None: the start) to the end, so many rows at a time at most."""
        ...

    def close(self) -> None: ...


def open_reading(source: str, key: str | None, until: str | None) -> Reading:
    """The reading of a place; of a table up to the key `until`, which is JSON."""
    place = as_table(source)
    return FilesReading(files_of(source)) if place is None else TableReading(place, key, until)


class FilesReading:
    """A FilesReading reads files one after the other; a portion is of one file."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self.total: int | None = None
        if files[0].suffix == ".parquet":
            self.total = sum(_rows_of(file) for file in files)

    def portions(self, position: Position | None, rows: int) -> Iterator[Portion]:
        first, passed = (position["file"], position["rows"]) if position else (0, 0)
        for number in range(first, len(self._files)):
            with Sources(self._files[number]) as source:
                if number == first and passed:
                    source.skip(passed)
                while (chunk := source.read(rows)) is not None:
                    behind = {"file": number, "rows": chunk.first - 1 + chunk.rows}
                    yield Portion(chunk, source.name, behind, source.kind)

    def close(self) -> None: ...


def _rows_of(file: Path) -> int:
    with Sources(file) as source:
        assert isinstance(source, ParquetSource)
        return source.total
