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
_SPARE_PAGES = 256
_FREED_PAGES = 128


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


def make_engine(url: URL, *, bulk: bool = False) -> Engine:
    """An engine on a file, whose folder is made (0700) when it is missing, or in memory without one.

    For what is written in `bulk` no disk is waited for, and the file shrinks again (see `shrink`).
    """
    module, journal = choose_module()
    pragmas = [f"journal_mode={journal}", f"synchronous={'NORMAL' if bulk else 'FULL'}", "foreign_keys=ON"]
    if bulk:
        pragmas.insert(0, "auto_vacuum=INCREMENTAL")  # first: it holds for a file that has no page yet
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
        for pragma in pragmas:
            _set(connection, pragma, module)

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        # IMMEDIATE waits for the lock here, where waiting is safe; a reader that turns writer would fail.
        writes = connection.get_execution_options().get("cloche_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def shrink(connection: Connection) -> None:
    """Give pages that are free back to the disk, a few at a time and not those that are used again at once."""
    if connection.dialect.name != "sqlite":
        return
    free = int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())
    for _ in range(min(free - _SPARE_PAGES, _FREED_PAGES)):
        # one by one: a statement that has no columns is stepped only once by Python's module
        connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")


def _set(connection: Any, pragma: str, module: ModuleType) -> None:
    """Of processes that open a new file at once SQLite refuses the journal to some, without the wait asked for."""
    ends = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute(f"PRAGMA {pragma}").fetchall()
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
