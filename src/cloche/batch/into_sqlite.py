"""Chunks into a table of SQLite's: rows and checkpoint in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec

from cloche.batch.checkpoint import STAMPS, Checkpoint, Safe, Stamp, held
from cloche.batch.places import TablePlace
from cloche.batch.sinks import Table
from cloche.batch.sql import LEDGER, SqlKind, cells, check_columns, kind_of_column, no_unique_key
from cloche.batch.sqlite import MODULE, connect, explained, quoted

_TYPES: dict[SqlKind, str] = {
    "whole": "INTEGER", "float": "REAL", "real": "REAL", "bool": "BOOLEAN", "text": "TEXT", "time": "TIMESTAMP",
    "day": "DATE", "other": "TEXT",
}  # fmt: skip
_MAKE_LEDGER = f"""CREATE TABLE IF NOT EXISTS {LEDGER} (
    run TEXT NOT NULL, chunk INTEGER NOT NULL, rows INTEGER NOT NULL, rejected INTEGER NOT NULL,
    position TEXT NOT NULL, time TEXT NOT NULL, PRIMARY KEY (run, chunk)) WITHOUT ROWID"""


class SqliteSink:
    """A SqliteSink writes a table, which it makes where it is not there, with one row a key where there is one."""

    def __init__(self, place: TablePlace, key: str | None, run: str) -> None:
        self._table, self._name, self._key, self._run = str(place.table), place.shown, key, run
        self._connection = connect(place.database)
        self._columns: list[str] = []

    def safe(self) -> Safe:
        with self._transaction():
            self._connection.execute(_MAKE_LEDGER)
            asked = f"SELECT count(*), sum(rows), sum(rejected) FROM {LEDGER} WHERE run = ?"
            chunks, rows, rejected = self._connection.execute(asked, (self._run,)).fetchone()
            asked = f"SELECT position FROM {LEDGER} WHERE run = ? ORDER BY chunk DESC LIMIT 1"
            last = self._connection.execute(asked, (self._run,)).fetchone()
        if last is None:
            return Safe()
        return Safe(chunks=chunks, rows=rows, rejected=rejected, position=msgspec.json.decode(last[0]))

    def write(self, table: Table, stamp: Stamp, done: Checkpoint) -> None:
        with self._transaction():
            if table:
                self._write_rows(table, stamp)
            self._note(done)

    def finish(self, safe: Safe) -> None: ...

    def close(self) -> None:
        self._connection.close()

    def _write_rows(self, table: Table, stamp: Stamp) -> None:
        kinds = {name: kind_of_column(values) for name, values in table.items()}
        if not self._columns:
            self._columns = self._make_table(kinds)
        check_columns(self._table, self._columns, table)
        stamps = [stamp.model_version, stamp.run_id, stamp.predicted_at.isoformat()]
        names = [*table, *STAMPS]
        # what is the same in all rows stands in the statement: it is bound once
        marks = ", ".join([*("?" * len(table)), *map(_literal, stamps)])
        statement = f"INSERT INTO {quoted(self._table)} ({_listed(names)}) VALUES ({marks})"
        if self._key is not None:
            news = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in names if name != self._key)
            statement += f" ON CONFLICT ({quoted(self._key)}) DO UPDATE SET {news}"
        rows = zip(*(cells(values, kinds[name]) for name, values in table.items()), strict=True)
        self._connection.executemany(statement, rows)

    def _make_table(self, kinds: dict[str, SqlKind]) -> list[str]:
        """The columns of the table, which is there or made."""
        described = "SELECT name, pk FROM pragma_table_info(?)"
        there = dict(self._connection.execute(described, (self._table,)).fetchall())
        if not there:
            columns = [f"{quoted(name)} {_TYPES[kind]}{self._is_key(name)}" for name, kind in kinds.items()]
            stamps = [f"{quoted(name)} {'TIMESTAMP' if name == 'predicted_at' else 'TEXT'}" for name in STAMPS]
            self._connection.execute(f"CREATE TABLE {quoted(self._table)} ({', '.join(columns + stamps)})")
            return [*kinds, *STAMPS]
        check_columns(self._table, there, [*kinds, *STAMPS])
        if self._key is not None and not self._is_unique(self._key, there):
            raise no_unique_key(self._table, self._key, quoted)
        return list(there)

    def _is_key(self, name: str) -> str:
        return " NOT NULL PRIMARY KEY" if name == self._key else ""

    def _is_unique(self, key: str, there: dict[str, int]) -> bool:
        if [name for name, place in there.items() if place] == [key]:
            return True
        indices = self._connection.execute(
            'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial', (self._table,)
        )
        wanted = [(key,)]
        return any(
            self._connection.execute("SELECT name FROM pragma_index_info(?)", name).fetchall() == wanted
            for name in indices.fetchall()
        )

    def _note(self, done: Checkpoint) -> None:
        position = msgspec.json.encode(done.position).decode()
        now = datetime.now(UTC).isoformat()
        row = (self._run, done.chunk, done.rows, done.rejected, position, now)
        try:
            self._connection.execute(f"INSERT INTO {LEDGER} VALUES (?, ?, ?, ?, ?, ?)", row)
        except MODULE.IntegrityError:
            raise held(self._run) from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with explained(self._name):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.execute("COMMIT")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
