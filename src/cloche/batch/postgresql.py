"""PostgreSQL as a place of rows: a connection that carries Arrow, its errors in words, its rows by key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from sqlalchemy import make_url

from cloche.batch.places import TablePlace
from cloche.core.errors import BusyError, ClocheError, ConfigError, MissingExtraError, RefusedError

_CONNECT_S = 10
_OPTIONS = "-c statement_timeout=600s -c lock_timeout=30s"
#: The first two letters of what PostgreSQL says: connections, resources, an operator, the system, rolled back.
_PASSING = ("08", "53", "57", "58", "40", "55")
_FORBIDDEN = "42501"


def connect(address: str, *, to_read: bool = False) -> Any:
    """A connection by ADBC; MissingExtraError without it, BusyError CL-E608 where nothing answers."""
    try:
        driver = import_module("adbc_driver_postgresql.dbapi")
    except ImportError:
        raise MissingExtraError(
            "PostgreSQL as a source or sink needs its driver", code="CL-E701", hint='pip install "cloche[batch]"'
        ) from None
    url = make_url(address)
    options = _OPTIONS + (" -c default_transaction_read_only=on" if to_read else "")
    words = {"connect_timeout": str(_CONNECT_S), "application_name": "cloche", "options": options, **url.query}
    with explained(url.set(query={}).render_as_string()):
        # libpq takes a plus in an address for a plus
        return driver.connect(url.set(query=words).render_as_string(hide_password=False).replace("+", "%20"))


@contextmanager
def explained(name: str) -> Iterator[None]:
    """What PostgreSQL says against a statement as an error of ours, by whether it may pass by itself."""
    try:
        yield
    except ClocheError:
        raise
    except Exception as error:
        if not hasattr(error, "sqlstate"):
            raise
        state, said = error.sqlstate or "08", _said(error)
        if state == _FORBIDDEN:
            raise RefusedError(
                f"{name}: {said}", code="CL-E416", hint="grant what is missing to the role of the address"
            ) from error
        if state.startswith(_PASSING):
            raise BusyError(f"{name}: {said}", code="CL-E608", hint="resume the run once it answers") from error
        raise ConfigError(f"{name}: {said}", code="CL-E209", hint="check table, query and columns") from error


def _said(error: Exception) -> str:
    """What the server said, without what the driver put around it."""
    for key, value in getattr(error, "details", None) or []:
        if key == b"PG_DIAG_MESSAGE_PRIMARY":
            return bytes(value).decode(errors="replace").rstrip("\0")
    return str(error).strip().partition("\n")[0]


def quoted(name: str) -> str:
    """A name of a table or column as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL takes it; of no type, so that it becomes what it is compared with."""
    return "'" + text.replace("'", "''") + "'"


def table_name(table: str) -> str:
    """`shop.orders` as SQL takes it: a schema stands before the dot."""
    return ".".join(quoted(part) for part in table.split("."))


class PostgresqlRows:
    """PostgresqlRows are the rows of a table or query as Arrow arrays; keys are texts.

    What Arrow has no type for comes as text, and `numeric` as a float.
    """

    def __init__(self, place: TablePlace, key: str) -> None:
        self._name = place.shown
        # with where it is from: the bare name in ORDER BY is what is selected under it, which may be its text
        self._key = f"asked.{quoted(key)}"
        self._from = f"({place.query}) AS asked" if place.query else f"{table_name(str(place.table))} AS asked"
        self._connection = connect(place.database, to_read=True)
        try:
            schema = self._ask(f"SELECT * FROM {self._from} LIMIT 0").schema
            if key not in schema.names:
                raise ConfigError(
                    f"{self._name} has no column {key!r}",
                    code="CL-E209",
                    hint=f"it has {', '.join(schema.names[:12])}",
                )
        except BaseException:
            self._connection.close()
            raise
        self._wanted = ", ".join(_selected(field, key) for field in schema)
        self._key_name = key

    def greatest(self) -> Any:
        found = self._ask(f"SELECT {self._key}::text FROM {self._from} WHERE {self._key} IS NOT NULL "
                          f"ORDER BY {self._key} DESC LIMIT 1")  # fmt: skip
        return found.column(0)[0].as_py() if found.num_rows else None

    def count(self, until: Any) -> tuple[int, int, int]:
        end = "NULL" if until is None else literal(until)
        counts = f"count(*) FILTER (WHERE {self._key} <= {end}), count(*) FILTER (WHERE {self._key} >= {end})"
        found = self._ask(
            f"SELECT {counts}, count(*) FILTER (WHERE {self._key} IS NULL) FROM {self._from}",
        )
        below, beyond, unnamed = (column[0].as_py() for column in found.columns)
        return below, beyond, unnamed

    def fetch(self, after: Any, until: Any, limit: int) -> tuple[dict[str, Any], list[Any]]:
        behind = "" if after is None else f"{self._key} > {literal(after)} AND "
        found = self._ask(
            f"SELECT {self._wanted} FROM {self._from} WHERE {behind}{self._key} <= {literal(until)} "
            f"ORDER BY {self._key} LIMIT {limit}"
        ).combine_chunks()
        if not found.num_rows:
            return {}, []
        columns = {name: found.column(name).chunk(0) for name in found.column_names}
        return columns, [str(key) for key in columns[self._key_name].to_pylist()]

    def close(self) -> None:
        self._connection.close()

    def _ask(self, statement: str) -> Any:
        with explained(self._name), self._connection.cursor() as cursor:
            cursor.execute(statement)
            found = cursor.fetch_arrow_table()
            self._connection.rollback()  # a snapshot that is kept would keep what others delete
            return found


def _selected(field: Any, key: str) -> str:
    kind, name = (field.metadata or {}).get(b"POSTGRESQL:type", b""), quoted(field.name)
    if kind == b"numeric" and field.name != key:
        return f"{name}::float8 AS {name}"
    return f"{name}::text AS {name}" if hasattr(field.type, "extension_name") else name
