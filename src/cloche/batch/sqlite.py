"""SQLite as a place of rows: its file opened, its errors in words, its rows by key."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloche.batch.places import TablePlace
from cloche.core.errors import BusyError, ConfigError, NotFoundError
from cloche.store.sqlite import choose_module

_BUSY_S = 15.0
MODULE, _ = choose_module()


def connect(file: str, *, to_read: bool = False) -> Any:
    """A connection whose transactions are begun by hand; a file that is only read must be there."""
    if to_read and not Path(file).is_file():
        raise NotFoundError(f"there is no file {file}", code="CL-E303", hint="check the path")
    uri = f"file:{urllib.parse.quote(file)}?mode={'ro' if to_read else 'rwc'}"
    with explained(file):
        return MODULE.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """What SQLite says against a statement as an error of ours, by whether it may pass by itself."""
    try:
        yield
    except MODULE.OperationalError as error:
        if any(word in str(error) for word in ("locked", "full", "I/O", "unable to open", "readonly")):
            raise BusyError(
                f"{name} can't be used: {error}",
                code="CL-E608",
                hint="see that it is there, may be written and the disk is not full; then resume the run",
            ) from error
        raise ConfigError(f"{name}: {error}", code="CL-E209", hint="check table, query and columns") from error
    except MODULE.DatabaseError as error:
        raise ConfigError(f"{name}: {error}", code="CL-E210", hint="check the table's columns") from error


def quoted(name: str) -> str:
    """A name of a table or column as SQL takes it; a schema stands before a dot."""
    return '"' + name.replace('"', '""') + '"'


class SqliteRows:
    """SqliteRows are the rows of a table or query of SQLite's; a column that is BOOLEAN holds booleans."""

    def __init__(self, place: TablePlace, key: str) -> None:
        self._name = place.shown
        self._key = quoted(key)
        self._from = f"({place.query}) AS asked" if place.query else quoted(str(place.table))
        self._connection = connect(place.database, to_read=True)
        with explained(self._name):
            asked = self._connection.execute(f"SELECT * FROM {self._from} LIMIT 0")
            self._columns = [column[0] for column in asked.description]
            described = self._connection.execute("SELECT name, type FROM pragma_table_info(?)", (place.table,))
            self._booleans = {name for name, kind in described if kind.upper().startswith("BOOL")}
        if key not in self._columns:
            self._connection.close()
            raise ConfigError(
                f"{self._name} has no column {key!r}",
                code="CL-E209",
                hint=f"it has {', '.join(self._columns[:12])}",
            )
        self._at = self._columns.index(key)

    def greatest(self) -> Any:
        [[greatest]] = self._ask(f"SELECT max({self._key}) FROM {self._from}", ())
        if isinstance(greatest, bytes):
            raise ConfigError(f"the key of {self._name} is no number and no text", code="CL-E209")
        return greatest

    def count(self, until: Any) -> tuple[int, int, int]:
        counts = f"count(*) FILTER (WHERE {self._key} <= ?1), count(*) FILTER (WHERE {self._key} >= ?1)"
        [[below, beyond, unnamed]] = self._ask(
            f"SELECT {counts}, count(*) FILTER (WHERE {self._key} IS NULL) FROM {self._from}", (until,)
        )
        return below, beyond, unnamed

    def fetch(self, after: Any, until: Any, limit: int) -> tuple[dict[str, Any], list[Any]]:
        behind = "" if after is None else f"{self._key} > ?3 AND "
        read = self._ask(
            f"SELECT * FROM {self._from} WHERE {behind}{self._key} <= ?1 ORDER BY {self._key} LIMIT ?2",
            (until, limit) if after is None else (until, limit, after),
        )
        if not read:
            return {}, []
        values = dict(zip(self._columns, map(list, zip(*read, strict=True)), strict=True))
        keys = values[self._columns[self._at]]
        for name in self._booleans & values.keys():
            values[name] = [{0: False, 1: True}.get(value, value) for value in values[name]]
        return values, keys

    def close(self) -> None:
        self._connection.close()

    def _ask(self, statement: str, words: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with explained(self._name):
            found: list[tuple[Any, ...]] = self._connection.execute(statement, words).fetchall()
            return found
