"""A table of the user's that rows are completed from: one key's columns, read in bulk, never written."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from sqlalchemy import Engine, MetaData, QueuePool, Table, create_engine, make_url, select
from sqlalchemy.exc import DBAPIError, NoSuchTableError, SQLAlchemyError

from cloche.core.errors import BusyError, ConfigError, MissingExtraError
from cloche.store.sqlite import choose_module

#: Keys that one statement asks for at most.
_MOST_KEYS = 1_000
#: A statement that a database was asked for runs no longer than this on its side.
_STATEMENT_S = 10
_CONNECT_S = 2
#: The datatype of a key by the Python type of its column.
_DATATYPES: Mapping[type, str] = {int: "INT64", str: "BYTES"}


class LookupTable:
    """A LookupTable reads `columns` of the rows whose `key` is asked for, from SQLite or PostgreSQL.

    `table` may hold a schema ("shop.customers"). Connections are pooled and opened at first use. Any thread may
    read. Raises MissingExtraError without the driver.
    """

    def __init__(self, url: str, table: str, key: str, columns: Sequence[str]) -> None:
        self.name = table
        self._key = key
        self._columns = list(columns)
        self._engine = _make_engine(url)
        self._table: Table | None = None

    def key_datatype(self) -> str:
        """INT64 or BYTES; ConfigError CL-E208 where table, key or columns are not there."""
        table = self._described()
        missing = [name for name in (self._key, *self._columns) if name not in table.c]
        if missing:
            raise ConfigError(
                f"the table {self.name} has no column {missing[0]!r}",
                code="CL-E208",
                hint=f"it has {', '.join(column.name for column in table.c)}",
            )
        kind = _DATATYPES.get(table.c[self._key].type.python_type)
        if kind is None:
            raise ConfigError(
                f"the key {self._key!r} of {self.name} is neither a whole number nor a text", code="CL-E208"
            )
        return kind

    def some_keys(self, count: int) -> list[Any]:
        """A few keys that are there, for examples."""
        column = self._described().c[self._key]
        with _explained(self.name), self._engine.connect() as connection:
            return list(connection.execute(select(column).limit(count)).scalars())

    def read(self, keys: Sequence[Any]) -> dict[Any, tuple[Any, ...]]:
        """The columns by key; a key that is not there is left out.

        BusyError CL-E607 when the database does not answer; the pool finds it again when it is back. ConfigError
        CL-E208 when the table is gone.
        """
        found: dict[Any, tuple[Any, ...]] = {}
        keys = [key for key in keys if not (isinstance(key, str) and "\0" in key)]  # no text of PostgreSQL's
        table = self._described()
        wanted = [table.c[name] for name in (self._key, *self._columns)]
        with _explained(self.name), self._engine.connect() as connection:
            for at in range(0, len(keys), _MOST_KEYS):
                asked = select(*wanted).where(wanted[0].in_(keys[at : at + _MOST_KEYS]))
                for key, *values in connection.execute(asked):
                    found[key] = tuple(values)
        return found

    def close(self) -> None:
        self._engine.dispose()

    def _described(self) -> Table:
        if self._table is None:
            schema, _, name = self.name.rpartition(".")
            with _explained(self.name):
                self._table = Table(name, MetaData(), schema=schema or None, autoload_with=self._engine)
        return self._table


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except NoSuchTableError:
        raise ConfigError(f"there is no table {name}", code="CL-E208", hint="check its name") from None
    except DBAPIError as error:
        said = str(error.orig).strip().partition("\n")[0]
        raise BusyError(f"the table {name} can't be read: {said}", code="CL-E607") from error
    except SQLAlchemyError as error:  # none of the pool's connections was free in time
        raise BusyError(f"the table {name} can't be read: {error}", code="CL-E607") from error


def _make_engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        module, _ = choose_module()
        file = f"file:{urllib.parse.quote(str(parsed.database))}?mode=ro"
        return create_engine(
            "sqlite://",
            module=module,
            creator=lambda: module.connect(file, uri=True, check_same_thread=False, timeout=_CONNECT_S),
            poolclass=QueuePool,
            isolation_level="AUTOCOMMIT",
        )
    if find_spec("psycopg") is None:
        raise MissingExtraError("PostgreSQL needs psycopg", code="CL-E701", hint='pip install "cloche[postgres]"')
    limits = f"-c statement_timeout={_STATEMENT_S}s -c default_transaction_read_only=on"
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",  # a transaction would be two more round trips
        pool_timeout=_CONNECT_S,
        connect_args={"connect_timeout": _CONNECT_S, "options": limits, "application_name": "cloche"},
    )
