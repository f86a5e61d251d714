"""Chunks into a table of PostgreSQL's: rows by binary COPY, and the checkpoint, in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import msgspec

from cloche.batch.checkpoint import STAMPS, Checkpoint, Safe, Stamp, held
from cloche.batch.places import TablePlace
from cloche.batch.postgresql import connect, explained, literal, quoted, table_name
from cloche.batch.sinks import Table, arrow_array
from cloche.batch.sql import LEDGER, cells, check_columns, kind_of_column, no_unique_key
from cloche.core.errors import ConfigError, RefusedError

_TYPES = {
    "whole": "bigint", "float": "double precision", "real": "real", "bool": "boolean", "text": "text",
    "time": "timestamptz", "day": "date", "other": "text",
}  # fmt: skip
_MAKE_LEDGER = """CREATE TABLE IF NOT EXISTS {} (
    run text NOT NULL, chunk bigint NOT NULL, rows bigint NOT NULL, rejected bigint NOT NULL,
    position text NOT NULL, time timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (run, chunk))"""
_UNIQUE = """SELECT count(*) FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid
    AND a.attnum = i.indkey[0] WHERE i.indrelid = to_regclass({}) AND i.indisunique AND i.indnkeyatts = 1
    AND i.indpred IS NULL AND a.attname = {}"""
_COLUMNS = """SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = to_regclass({}) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
_STAGE = "cloche_stage"


class PostgresqlSink:
    """A PostgresqlSink writes a table, which it makes where it is not there.

    With a key it has one row for each: rows are copied straight in while none of them is there, and through a
    table of the session's own once one is. Without the right to make a ledger it raises RefusedError CL-E416, or
    with `at_least_once` writes without one.
    """

    def __init__(self, place: TablePlace, key: str | None, run: str, *, at_least_once: bool) -> None:
        self._arrow: Any = import_module("pyarrow")
        self._name, self._key, self._run = place.shown, key, run
        self._place = str(place.table)
        self._table = table_name(self._place)
        schema, dot, _ = self._place.rpartition(".")
        self._ledger: str | None = table_name(f"{schema}{dot}{LEDGER}")
        self._at_least_once = at_least_once
        self._types: dict[str, str] = {}
        self._schema: Any = None
        self._merges = False
        self._connection = connect(place.database)

    def safe(self) -> Safe:
        with self._transaction():
            self._make_ledger()
        if self._ledger is None:
            return Safe()
        mine = f"FROM {self._ledger} WHERE run = {literal(self._run)}"
        with self._transaction():
            [counts] = self._ask(
                f"SELECT count(*)::bigint, sum(rows)::bigint, sum(rejected)::bigint, "
                f"(SELECT position {mine} ORDER BY chunk DESC LIMIT 1) {mine}"
            )
        chunks, rows, rejected, position = counts
        if not chunks:
            return Safe()
        return Safe(chunks=chunks, rows=rows, rejected=rejected, position=msgspec.json.decode(position))

    def write(self, table: Table, stamp: Stamp, done: Checkpoint) -> None:
        columns = {name: self._column(values) for name, values in table.items()}
        count = done.rows - done.rejected
        with self._transaction():
            if table and not self._types:
                self._make_table(columns)
        if table:
            check_columns(self._table, self._types, columns)
            columns |= {name: self._arrow.repeat(getattr(stamp, name), count) for name in STAMPS}
        if table and not self._merges:
            if self._write(columns, done, merges=False):
                return
            self._merges = True  # keys that are there: copied rows can't replace them
        self._write(columns, done, merges=True)

    def finish(self, safe: Safe) -> None: ...

    def close(self) -> None:
        self._connection.close()

    def _write(self, columns: dict[str, Any], done: Checkpoint, *, merges: bool) -> bool:
        """Whether it was written: not, where a key that is copied is there."""
        with self._transaction():
            if columns and merges:
                self._merge(columns)
            elif columns:
                try:
                    self._copy(self._table_of(columns))
                except Exception as error:
                    if getattr(error, "sqlstate", None) != "23505" or self._key is None:
                        raise
                    self._connection.rollback()
                    return False
            self._note(done)
        return True

    def _copy(self, rows: Any) -> None:
        schema, _, name = self._place.rpartition(".")
        with self._connection.cursor() as cursor:
            cursor.adbc_ingest(name, rows, mode="append", db_schema_name=schema or None)

    def _merge(self, columns: dict[str, Any]) -> None:
        """Through a table of the session's own; of several rows with one key the last one stays."""
        kinds = {name: _TYPES[kind_of_column(column)] for name, column in columns.items()}
        made = ", ".join(f"{quoted(name)} {kind}" for name, kind in kinds.items())
        self._do(f"CREATE TEMPORARY TABLE {_STAGE} ({made}) ON COMMIT DROP")
        with self._connection.cursor() as cursor:
            cursor.adbc_ingest(_STAGE, self._arrow.table(columns), mode="append", temporary=True)
        names = ", ".join(map(quoted, columns))
        values = ", ".join(f"{quoted(name)}::{self._types[name]}" for name in columns)
        if self._key is None:
            self._do(f"INSERT INTO {self._table} ({names}) SELECT {values} FROM {_STAGE}")
            return
        key = quoted(self._key)
        news = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in columns if name != self._key)
        self._do(
            f"INSERT INTO {self._table} ({names}) SELECT DISTINCT ON ({key}) {values} FROM {_STAGE} "
            f"ORDER BY {key}, ctid DESC ON CONFLICT ({key}) DO UPDATE SET {news}"
        )

    def _note(self, done: Checkpoint) -> None:
        if self._ledger is None:
            return
        position = literal(msgspec.json.encode(done.position).decode())
        values = f"{literal(self._run)}, {done.chunk}, {done.rows}, {done.rejected}, {position}"
        try:
            self._do(f"INSERT INTO {self._ledger} (run, chunk, rows, rejected, position) VALUES ({values})")
        except Exception as error:
            if getattr(error, "sqlstate", None) == "23505":
                raise held(self._run) from None
            raise

    def _make_ledger(self) -> None:
        assert self._ledger is not None
        [[there]] = self._ask(f"SELECT to_regclass({literal(self._ledger)})::text")
        try:
            if there is None:
                self._do(_MAKE_LEDGER.format(self._ledger))
            else:
                self._ask(f"SELECT 1 FROM {self._ledger} LIMIT 0")
        except Exception as error:
            if getattr(error, "sqlstate", None) != "42501":
                raise
            self._connection.rollback()
            if not self._at_least_once:
                raise RefusedError(
                    f"{self._name}: the role may not make or use the table {LEDGER}, which says what is safe",
                    code="CL-E416",
                    hint=f"{_MAKE_LEDGER.format(LEDGER).partition('(')[0].strip()} … as its owner and grant it, "
                    "or say --at-least-once: after a crash some rows may then be there twice",
                ) from None
            self._ledger = None

    def _make_table(self, columns: Mapping[str, Any]) -> None:
        """Learn the table's columns; it is made where it is not there."""
        self._types = dict(self._ask(_COLUMNS.format(literal(self._table))))
        if not self._types:
            kinds = {name: _TYPES[kind_of_column(column)] for name, column in columns.items()}
            kinds |= {name: "timestamptz" if name == "predicted_at" else "text" for name in STAMPS}
            made = [f"{quoted(n)} {kind}{' PRIMARY KEY' if n == self._key else ''}" for n, kind in kinds.items()]
            self._do(f"CREATE TABLE {self._table} ({', '.join(made)})")
            self._types = kinds
        check_columns(self._table, self._types, [*columns, *STAMPS])
        if self._key is not None:
            [[unique]] = self._ask(_UNIQUE.format(literal(self._table), literal(self._key)))
            if not unique:
                raise no_unique_key(self._table, self._key, quoted)
        names = ", ".join(quoted(name) for name in self._types)
        with self._connection.cursor() as cursor:
            cursor.execute(f"SELECT {names} FROM {self._table} LIMIT 0")
            self._schema = cursor.fetch_arrow_table().schema
        # what Arrow has no type for is turned by the database itself
        self._merges = any(hasattr(self._schema.field(name).type, "extension_name") for name in columns)

    def _table_of(self, columns: Mapping[str, Any]) -> Any:
        try:
            cast = {name: column.cast(self._schema.field(name).type) for name, column in columns.items()}
            return self._arrow.table(cast)
        except self._arrow.ArrowException as error:
            raise self._unfit(error) from None

    def _column(self, values: Any) -> Any:
        kind = kind_of_column(values)
        try:
            return self._arrow.array(cells(values, kind)) if kind == "other" else arrow_array(self._arrow, values)
        except self._arrow.ArrowException as error:
            raise self._unfit(error) from None

    def _unfit(self, error: object) -> ConfigError:
        return ConfigError(
            f"the rows don't fit the table {self._table}: {error}",
            code="CL-E210",
            hint="change the column's type, name another table, or leave the column out with --keep",
        )

    def _ask(self, statement: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found

    def _do(self, statement: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with explained(self._name):
            try:
                yield
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()
