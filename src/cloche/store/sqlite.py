"""SQLite under the store: which module, which journal, and transactions that take the lock at once."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.engine import URL

from cloche.core.errors import BusyError

try:
    import pysqlite3.dbapi2 as bundled_sqlite
except ImportError:  # there is no wheel for this machine
    bundled_sqlite = None

_BUSY_S = 15.0
_CONNECTIONS = 8


def has_wal_fix(version: tuple[int, ...]) -> bool:
    """Whether a SQLite is free of the WAL-reset bug, which loses commits when several processes write."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


def choose_module() -> tuple[ModuleType, str]:
    """The DB-API module and the journal mode: Python's own where it is sound, else pysqlite3, else no WAL."""
    if has_wal_fix(sqlite3.sqlite_version_info):
        return sqlite3, "WAL"
    if bundled_sqlite is not None and has_wal_fix(bundled_sqlite.sqlite_version_info):
        return bundled_sqlite, "WAL"
    return sqlite3, "TRUNCATE"


def make_engine(url: URL) -> Engine:
    """An engine on a file, whose folder is made (0700) when it is missing, or in memory without one."""
    module, journal = choose_module()
    in_memory = url.database in (None, "", ":memory:")
    if not in_memory:
        _make_folder(Path(str(url.database)).parent)
    engine = create_engine(
        url,
        module=module,
        poolclass=QueuePool,
        # In memory each connection would have a database of its own, so there is one.
        pool_size=1 if in_memory else _CONNECTIONS,
        max_overflow=0,
        pool_timeout=_BUSY_S,
        connect_args={"timeout": _BUSY_S, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        # Python's sqlite3 would open transactions by itself, late and without the lock.
        connection.isolation_level = None
        _set_journal(connection, journal, module)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").fetchall()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        # IMMEDIATE waits for the lock here, where waiting is safe; a reader that turns writer would fail.
        writes = connection.get_execution_options().get("cloche_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _set_journal(connection: Any, journal: str, module: ModuleType) -> None:
    """Of processes that open a new file at once SQLite refuses some, without the wait that they asked for."""
    ends = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode={journal}").fetchall()
        except module.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > ends:
                raise
            time.sleep(0.01)
        else:
            return


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BusyError(
            f"the folder {folder} can't be made: {error.strerror}",
            code="CL-E606",
            hint="choose another data folder: CLOCHE_DATA, or data under [project]",
        ) from None


def check_file(connection: Connection) -> None:
    """Raise BusyError when the file is damaged; other databases check themselves."""
    if connection.dialect.name != "sqlite":
        return
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if found != "ok":
        raise BusyError(
            f"the store's file is damaged: {found}",
            code="CL-E606",
            hint="stop Cloche, keep a copy of the file, and restore it from a backup",
        )
