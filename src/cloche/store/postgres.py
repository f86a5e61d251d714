"""PostgreSQL under the store: the driver, and the lock under which tables are made."""

from __future__ import annotations

from importlib.util import find_spec

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL

from cloche.core.errors import MissingExtraError

_CONNECT_S = 10
_WAIT = "-c lock_timeout=15s -c idle_in_transaction_session_timeout=60s"
#: "cloche" as a number, so that no other program's advisory lock is met.
_SCHEMA_LOCK = int.from_bytes(b"cloche", "big")


def make_engine(url: URL, *, bulk: bool = False) -> Engine:
    """An engine that checks a connection before it is used, so that a restart of the server is survived.

    For what is written in `bulk` no disk is waited for.
    """
    if find_spec("psycopg") is None:
        raise MissingExtraError("PostgreSQL needs psycopg", code="CL-E701", hint='pip install "cloche[postgres]"')
    options = f"{_WAIT} -c synchronous_commit=off" if bulk else _WAIT
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=4,
        max_overflow=4,
        pool_pre_ping=True,
        connect_args={"connect_timeout": _CONNECT_S, "options": options, "application_name": "cloche"},
    )


def lock_schema(connection: Connection) -> None:
    """Let one process at a time make the tables; SQLite's own lock does that already."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
