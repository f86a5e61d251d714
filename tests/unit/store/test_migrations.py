"""Tables that an older Cloche made: brought up to date in one piece, by one process, with nothing lost."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from alembic.operations import Operations
from sqlalchemy import URL, Connection, Engine, event, inspect, make_url

from cloche.core.errors import BusyError, ConflictError
from cloche.store import migrations, postgres, sqlite
from cloche.store.database import Store
from cloche.store.tables import SCHEMA

#: What Cloche made of an empty database when its tables were of version 1, and rows as it wrote them.
_VERSION_1 = """
CREATE TABLE cloche_keys (
    id VARCHAR(10) NOT NULL,
    name VARCHAR(63) NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    scopes JSON NOT NULL,
    created FLOAT NOT NULL,
    expires FLOAT,
    revoked FLOAT,
    PRIMARY KEY (id)
);
CREATE TABLE cloche_models (
    name VARCHAR(63) NOT NULL,
    created FLOAT NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE cloche_state (
    id INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT cloche_state_one_row CHECK (id = 1)
);
CREATE TABLE cloche_trusted (
    public_key VARCHAR(200) NOT NULL,
    name VARCHAR(200) NOT NULL,
    added FLOAT NOT NULL,
    PRIMARY KEY (public_key)
);
CREATE TABLE cloche_versions (
    model VARCHAR(63) NOT NULL,
    version INTEGER NOT NULL,
    digest VARCHAR(64) NOT NULL,
    created FLOAT NOT NULL,
    framework VARCHAR(200) NOT NULL,
    size_bytes FLOAT NOT NULL,
    metrics JSON NOT NULL,
    PRIMARY KEY (model, version),
    CONSTRAINT cloche_versions_digest_once UNIQUE (model, digest),
    FOREIGN KEY(model) REFERENCES cloche_models (name)
);
CREATE TABLE cloche_aliases (
    model VARCHAR(63) NOT NULL,
    alias VARCHAR(63) NOT NULL,
    version INTEGER NOT NULL,
    moved FLOAT NOT NULL,
    PRIMARY KEY (model, alias),
    FOREIGN KEY(model, version) REFERENCES cloche_versions (model, version)
);
INSERT INTO cloche_state VALUES (1, 1, 7);
INSERT INTO cloche_models VALUES ('churn', 1750000000.25), ('fraud', 1750000001.5);
INSERT INTO cloche_versions VALUES
    ('fraud', 1, 'aa', 1750000002.0, 'scikit-learn 1.7', 4096.0, '{"auc": 0.91}'),
    ('fraud', 2, 'bb', 1750000003.0, 'scikit-learn 1.7', 8192.0, '{}');
INSERT INTO cloche_aliases VALUES ('fraud', 'champion', 2, 1750000004.0);
INSERT INTO cloche_keys VALUES ('k1', 'shop', 'cc', '["predict"]', 1750000005.0, NULL, 1750000006.0);
INSERT INTO cloche_trusted VALUES ('ed25519:dd', 'build', 1750000007.0)
"""
_TABLES_OF_1 = ["aliases", "keys", "models", "state", "trusted", "versions"]


@pytest.fixture
def old(database: str) -> str:
    """The URL of a database as version 1 left it."""
    _write(database, *_VERSION_1.split(";"))
    return database


@pytest.fixture
def fresh(database: str, request: pytest.FixtureRequest) -> str:
    """The URL of another database of the same kind, which is empty."""
    if database.startswith("sqlite"):
        return f"{database}.fresh"
    return str(request.getfixturevalue("postgresql")())


def test_what_an_older_cloche_wrote_is_all_there(old: str) -> None:
    before = _rows(old)
    with Store(old) as store:
        assert store.revision() == 7
    after = _rows(old)
    assert (before.pop("state"), after.pop("state")) == ([(1, 1, 7)], [(1, SCHEMA, 7)])
    assert all(before.values())
    assert {name: after[name] for name in before} == before


def test_the_tables_are_then_those_of_a_new_database(old: str, fresh: str) -> None:
    with Store(old) as migrated, Store(fresh) as new:
        assert _structure(migrated) == _structure(new)


def test_there_is_a_step_to_each_version() -> None:
    assert list(migrations.STEPS) == list(range(2, SCHEMA + 1))


def test_who_only_reads_migrates_too(old: str) -> None:
    with Store(old, create=False) as store:
        assert "cloche_events" in _structure(store)


_OPEN = """
import sys
from cloche.store.database import Store
print("ready", flush=True)
sys.stdin.readline()
with Store(sys.argv[1]) as store:
    store.revision()
print("alembic" in sys.modules)
"""


def test_alembic_is_imported_only_where_a_database_is_behind(old: str, fresh: str) -> None:
    assert _open_at_once(fresh, 1) == ["False"]  # new
    assert _open_at_once(fresh, 1) == ["False"]  # up to date
    assert _open_at_once(old, 1) == ["True"]
    assert _open_at_once(old, 1) == ["False"]


def test_of_processes_that_open_it_at_once_one_migrates_and_the_others_find_it_done(old: str) -> None:
    assert sorted(_open_at_once(old, 8)) == ["False"] * 7 + ["True"]
    assert _rows(old)["state"] == [(1, SCHEMA, 7)]


@pytest.mark.heavy
def test_a_change_of_an_older_cloche_that_is_under_way_is_waited_for(postgresql: Callable[[], str]) -> None:
    """It holds the row of the state and has yet to write to a table that the migration will lock."""
    url = postgresql()
    _write(url, *_VERSION_1.split(";"))
    opening = threading.Thread(target=lambda: Store(url).close())
    with _connected(url) as watcher, _connected(url) as connection:
        with connection.begin():
            connection.exec_driver_sql("UPDATE cloche_state SET revision = revision + 1")
            opening.start()
            until = time.monotonic() + 30
            while not watcher.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar_one():
                assert time.monotonic() < until, "the migration waited for nothing"
            connection.exec_driver_sql("INSERT INTO cloche_models VALUES ('late', 1.0)")
        opening.join(30)
    assert ("late", 1.0) in _rows(url)["models"]
    assert _rows(url)["state"] == [(1, SCHEMA, 8)]


def test_a_step_that_fails_leaves_all_as_it_was(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _rows(old)

    def fails(op: Operations) -> None:
        migrations.to_2(op)
        op.execute("DELETE FROM cloche_aliases")
        raise RuntimeError("stop")

    with monkeypatch.context() as patched:
        patched.setitem(migrations.STEPS, 2, fails)
        with pytest.raises(RuntimeError, match="stop"):
            Store(old)
    assert list(before) == _TABLES_OF_1
    assert _rows(old) == before
    with Store(old) as store:
        assert store.revision() == 7


def test_a_database_that_may_not_be_written_is_named(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _forbid_writing(old, monkeypatch)
    said = r"is of an older Cloche and can't be brought up to date: .*read-?only"
    with pytest.raises(BusyError, match=said) as caught:
        Store(old, create=False)
    assert caught.value.code == "CL-E606"
    assert "writable" in str(caught.value.hint)


def test_a_database_of_the_next_cloche_is_left_alone(old: str) -> None:
    _write(old, f"UPDATE cloche_state SET schema_version = {SCHEMA + 1}")
    with pytest.raises(ConflictError, match=f"tables of version {SCHEMA + 1}") as caught:
        Store(old)
    assert caught.value.code == "CL-E504"
    assert list(_rows(old)) == _TABLES_OF_1


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    engine = (sqlite if url.startswith("sqlite") else postgres).make_engine(make_url(url))
    try:
        with engine.connect() as connection:
            yield connection.execution_options(cloche_writes=True)
    finally:
        engine.dispose()


def _write(url: str, *statements: str) -> None:
    with _connected(url) as connection, connection.begin():
        for statement in statements:
            connection.exec_driver_sql(statement)


def _rows(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    with _connected(url) as connection:
        names = sorted(inspect(connection).get_table_names())
        return {
            name.removeprefix("cloche_"): [
                tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {name} ORDER BY 1, 2")
            ]
            for name in names
        }


def _structure(store: Store) -> dict[str, dict[str, object]]:
    """All that can be seen of each table, with types as they are written."""
    with store.read() as connection:
        seen = inspect(connection)
        return {
            name: {
                "columns": [{**column, "type": str(column["type"])} for column in seen.get_columns(name)],
                "primary key": seen.get_pk_constraint(name),
                "foreign keys": seen.get_foreign_keys(name),
                "indexes": seen.get_indexes(name),
                "unique": seen.get_unique_constraints(name),
                "checks": seen.get_check_constraints(name),
            }
            for name in seen.get_table_names()
        }


def _open_at_once(url: str, processes: int) -> list[str]:
    """What each process says that waited for all the others before it opened the store."""
    command = [sys.executable, "-W", "error", "-c", _OPEN, url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [subprocess.Popen(command, text=True, **pipes) for _ in range(processes)]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("now\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * processes, ends
    return [said.strip() for said, _ in ends]


def _forbid_writing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's mode would not stop root, who may run the tests."""
    if not url.startswith("sqlite"):
        _write(url, f"ALTER DATABASE {make_url(url).database} SET default_transaction_read_only = on")
        return
    make_engine = sqlite.make_engine

    def make_read_only(parsed: URL, *, bulk: bool) -> Engine:
        engine = make_engine(parsed, bulk=bulk)
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only=ON"))
        return engine

    monkeypatch.setattr(sqlite, "make_engine", make_read_only)
