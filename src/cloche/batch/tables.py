"""Rows of a table or a query, read in the order of a key that names each of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from cloche.batch.places import TablePlace
from cloche.batch.postgresql import PostgresqlRows
from cloche.batch.sources import Chunk, Portion, Position
from cloche.batch.sqlite import SqliteRows
from cloche.core.errors import ConfigError

_NAMES_EACH = "choose a column that names each row: rows are read in its order"


class Rows(Protocol):
    """Rows are what a database is asked for; keys are of JSON's types. Raises ConfigError CL-E209, BusyError."""

    def greatest(self) -> Any:
        """The greatest key; None where there is no row."""
        ...

    def count(self, until: Any) -> tuple[int, int, int]:
        """How many rows have a key up to this one, how many one that is not below it, and how many none."""
        ...

    def fetch(self, after: Any, until: Any, limit: int) -> tuple[dict[str, Any], list[Any]]:
        """The next rows behind a key as columns, and their keys."""
        ...

    def close(self) -> None: ...


def open_rows(place: TablePlace, key: str | None) -> Rows:
    """The rows of a place by their key, which the place may name itself. Raises ConfigError CL-E209."""
    key = key or place.key
    if key is None:
        raise ConfigError(
            f"{place.shown} is read by a key, and none is named",
            code="CL-E209",
            hint=f"name the column that names each row, with --key; {_NAMES_EACH}",
        )
    return SqliteRows(place, key) if place.kind == "sqlite" else PostgresqlRows(place, key)


class TableReading:
    """A TableReading reads by key up to the greatest one that there was at the start."""

    def __init__(self, place: TablePlace, key: str | None, until: str | None) -> None:
        self._name = place.shown
        self._rows = open_rows(place, key)
        try:
            self._until = self._rows.greatest() if until is None else msgspec.json.decode(until)
            found = self._rows.count(self._until)
            self.total: int | None = found[0]
            #: Whether the greatest key, or one beyond it, is still there.
            self.reaches = self._until is None or found[1] > 0
            if found[2]:
                raise ConfigError(
                    f"{found[2]:,} rows of {self._name} have no key", code="CL-E209", hint=_NAMES_EACH
                )
        except BaseException:
            self._rows.close()
            raise

    def portions(self, position: Position | None, rows: int) -> Iterator[Portion]:
        after, count = (position["key"], position["rows"]) if position else (None, 0)
        more = self._until is not None
        while more:
            columns, keys = self._rows.fetch(after, self._until, rows + 1)
            more = len(keys) > rows
            if more:  # others with the key of the last may follow: all of them come with the next portion
                whole = keys.index(keys[-1])
                if not whole:
                    raise ConfigError(
                        f"more than {rows:,} rows of {self._name} have the key {keys[-1]!r}",
                        code="CL-E209",
                        hint=_NAMES_EACH,
                    )
                columns, keys = {name: values[:whole] for name, values in columns.items()}, keys[:whole]
            if keys:
                chunk = Chunk(count + 1, columns, len(keys))
                after, count = keys[-1], count + len(keys)
                yield Portion(chunk, self._name, {"key": after, "rows": count}, "table")

    def close(self) -> None:
        self._rows.close()
