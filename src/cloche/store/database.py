"""The store's databases: SQLite in a file, or PostgreSQL by URL, with the same statements."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import msgspec
from sqlalchemy import Connection, MetaData, Table, insert, inspect, make_url, select, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cloche.core.errors import BusyError, ConfigError, ConflictError
from cloche.core.platform import whoami
from cloche.store import postgres, sqlite, tables

_SQLITE_FILE = "sqlite:///"
_WRITES = {"cloche_writes": True}


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """A Schema is tables that are made together, and brought up to date together.

    `state` is the table whose one row says of which version they are, `steps` the module that takes tables of an
    older one there. What is written in `bulk` may be lost with the power, though never in part.
    """

    metadata: MetaData
    state: Table
    version: int
    steps: str | None = None
    bulk: bool = False


class Database:
    """A Database is one schema, on SQLite or PostgreSQL; many can share one PostgreSQL.

    `url` is `sqlite:////absolute/state.db`, `sqlite://` (in memory, for tests) or `postgresql://…`.
    With `create=False` a SQLite file that is not there is read as empty and nothing is written. Tables of an
    older Cloche are brought up to date all the same: they only grow.
    Raises ConfigError for a URL that can't be, MissingExtraError without the driver, BusyError when the
    database does not answer, ConflictError when a newer Cloche made its tables.
    """

    def __init__(
        self, url: str, schema: Schema, *, create: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        parsed = _parse(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        if not create and is_sqlite and not _file_exists(parsed):
            parsed = URL.create("sqlite")
        self.url = parsed.render_as_string(hide_password=True)
        #: Whether other machines may use it as well.
        self.is_shared = not is_sqlite
        self.now = clock
        self._schema = schema
        self._engine = (sqlite if is_sqlite else postgres).make_engine(parsed, bulk=schema.bulk)
        # On SQLite every transaction is one view; PostgreSQL wants to be asked.
        self._reads: dict[str, Any] = {} if is_sqlite else {"isolation_level": "REPEATABLE READ"}
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view; nothing that is written in it is kept."""
        with _explained(self), self._engine.connect() as connection:
            yield connection.execution_options(**self._reads)

    @contextmanager
    def note(self) -> Iterator[Connection]:
        """A change, all of it or nothing, that no process must see at once."""
        with _explained(self), self._engine.connect() as plain:
            connection = plain.execution_options(**_WRITES)
            with connection.begin():
                yield connection

    def _prepare(self) -> None:
        schema = self._schema
        with _explained(self):
            with self._engine.connect() as connection:
                sqlite.check_file(connection)
                version = _schema_version(connection, schema)
            if version is None:
                version = self._build()
        if version < schema.version:
            with _explained(self, "is of an older Cloche and can't be brought up to date"):
                version = self._build()
        if version != schema.version:
            raise ConflictError(
                f"{self.url} has tables of version {version}; this Cloche knows version {schema.version}",
                code="CL-E504",
                hint="update Cloche, or use another data folder",
            )

    def _build(self) -> int:
        """Make the tables, or migrate those that are there; whichever process is first does it for all."""
        schema = self._schema
        with self._engine.connect() as plain:
            connection = plain.execution_options(**_WRITES)
            with connection.begin():
                postgres.lock_schema(connection)
                version = _schema_version(connection, schema)
                if version is None:
                    schema.metadata.create_all(connection)
                    connection.execute(insert(schema.state).values(id=1, schema_version=schema.version))
                    version = schema.version
                elif version < schema.version and schema.steps is not None:
                    # A database needs alembic once, a process nearly never.
                    import_module(schema.steps).migrate(connection, version)
                    version = schema.version
        return version


_STATE = Schema(
    metadata=tables.metadata, state=tables.state, version=tables.SCHEMA, steps="cloche.store.migrations"
)


class Store(Database):
    """A Store is the durable state of one data folder, or of many machines on one PostgreSQL."""

    def __init__(self, url: str, *, create: bool = True, clock: Callable[[], float] = time.time) -> None:
        super().__init__(url, _STATE, create=create, clock=clock)

    @cached_property
    def who(self) -> str:
        """Whoever makes the changes, as the audit log names them: the person at this process."""
        return whoami()

    def acting_as(self, who: str) -> Store:
        """The same store, for changes that this process makes for somebody else."""
        other = copy.copy(self)
        other.__dict__["who"] = who
        return other

    @contextmanager
    def change(self) -> Iterator[Connection]:
        """One change, all of it or nothing; changes follow each other, and each makes the revision grow."""
        with self.note() as connection:
            # First, since on PostgreSQL it is this row's lock that puts changes in a row.
            connection.execute(update(tables.state).values(revision=tables.state.c.revision + 1))
            yield connection

    def revision(self) -> int:
        """A number that grows with each change of versions, aliases, keys or trust; cheap to poll."""
        with self.read() as connection:
            return int(connection.execute(select(tables.state.c.revision)).scalar_one())


def _parse(url: str) -> URL:
    if url.startswith(_SQLITE_FILE):
        # A path is a path: in it `?` and `%` have no meaning.
        return URL.create("sqlite", database=url.removeprefix(_SQLITE_FILE))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "the database is not given as a URL",
            code="CL-E201",
            hint="write sqlite:////absolute/state.db or postgresql://user@host/name",
        ) from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"{parsed.get_backend_name()!r} is not a database that Cloche speaks",
            code="CL-E201",
            hint="write sqlite:////absolute/state.db or postgresql://user@host/name",
        )
    return parsed


def _file_exists(url: URL) -> bool:
    return bool(url.database) and Path(url.database or "").exists()


def _schema_version(connection: Connection, schema: Schema) -> int | None:
    if not inspect(connection).has_table(schema.state.name):
        return None
    found = connection.execute(select(schema.state.c.schema_version)).scalar_one_or_none()
    return None if found is None else int(found)


@contextmanager
def _explained(store: Database, trouble: str = "can't be used") -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except PoolTimeoutError:
        raise BusyError(f"no connection to {store.url} was free in time", code="CL-E606") from None
    except DBAPIError as error:
        said = str(error.orig).strip().partition("\n")[0]
        raise BusyError(
            f"the store {store.url} {trouble}: {said}",
            code="CL-E606",
            hint="check that it is there, writable and not full, then try again",
        ) from error
