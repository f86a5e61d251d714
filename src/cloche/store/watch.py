"""What was seen, beside the state: tables of their own, in a file of their own where the store is SQLite.

They are written all the time and in bulk, so that nobody who changes the state has to wait for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import PurePosixPath

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from cloche.store.database import Database, Schema

_FILE = "sqlite:///"

metadata = MetaData()

#: One row: the version of these tables.
state = Table(
    "cloche_watch",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("schema_version", Integer, nullable=False),
    CheckConstraint("id = 1", name="cloche_watch_one_row"),
)

#: What is counted: the labels of a series, their hash as on the board, and the last day on which it was there.
series = Table(
    "cloche_series",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hash", BigInteger, nullable=False, unique=True),
    Column("labels", Text, nullable=False),
    Column("used", Float(53), nullable=False),
)

#: By how much series grew (see `store.increases`) on a machine in the `step` seconds from `start` on.
statistics = Table(
    "cloche_statistics",
    metadata,
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("machine", String(63), primary_key=True),
    Column("increases", LargeBinary, nullable=False),
)

#: Up to where the board of a machine was carried into the statistics.
carried = Table(
    "cloche_carried",
    metadata,
    Column("machine", String(63), primary_key=True),
    Column("board", BigInteger, nullable=False),
    Column("sums", LargeBinary, nullable=False),
)

_WATCH = Schema(metadata=metadata, state=state, version=1, bulk=True)


class WatchStore(Database):
    """A WatchStore is what was seen by the machines of the Store at `url`: beside its file, or in its database."""

    def __init__(self, url: str, *, create: bool = True, clock: Callable[[], float] = time.time) -> None:
        super().__init__(beside(url), _WATCH, create=create, clock=clock)


def beside(url: str) -> str:
    """Where what is seen is kept: `watch.db` beside `state.db`, or the same PostgreSQL."""
    if not url.startswith(_FILE):
        return url
    file = PurePosixPath(url.removeprefix(_FILE))
    name = "watch.db" if file.name == "state.db" else f"{file.stem}-watch{file.suffix}"
    return f"{_FILE}{file.with_name(name)}"
