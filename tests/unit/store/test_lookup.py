"""A look-up table is read in bulk and never written, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text

from cloche.core.errors import BusyError, ConfigError
from cloche.store.lookup import LookupTable


@pytest.fixture
def shop(database: str) -> Iterator[str]:
    engine = create_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("create table customers (name varchar(40) primary key, age integer, pay numeric)"))
        connection.execute(text("create table odd (born date primary key, age integer)"))
        rows = [{"name": f"c{n}", "age": n, "pay": n / 2} for n in range(2_500)]
        connection.execute(text("insert into customers values (:name, :age, :pay)"), rows)
    engine.dispose()
    yield database


def test_rows_come_by_key_and_absent_keys_are_left_out(shop: str) -> None:
    table = LookupTable(shop, "customers", "name", ["pay", "age"])
    assert table.key_datatype() == "BYTES"
    found = table.read(["c4", "nobody", "c1", "'; drop table customers; --", "a\0b"])
    assert {key: (float(pay), age) for key, (pay, age) in found.items()} == {"c4": (2.0, 4), "c1": (0.5, 1)}
    assert len(table.read([f"c{n}" for n in range(2_500)])) == 2_500
    assert len(table.some_keys(3)) == 3
    table.close()


def test_what_is_not_there_is_told_by_name(shop: str) -> None:
    for name, key, column, words in (
        ("clients", "name", "age", "there is no table clients"),
        ("customers", "id", "age", "no column 'id'"),
        ("customers", "name", "height", "no column 'height'"),
        ("odd", "born", "age", "neither a whole number nor a text"),
    ):
        table = LookupTable(shop, name, key, [column])
        with pytest.raises(ConfigError, match=words) as caught:
            table.key_datatype()
        assert caught.value.code == "CL-E208"
        table.close()


def test_nothing_can_be_written(shop: str) -> None:
    table = LookupTable(shop, "customers", "name", ["age"])
    with table._engine.connect() as connection, pytest.raises(Exception, match=r"read-?only"):
        connection.execute(text("delete from customers"))
    assert len(table.read(["c1"])) == 1
    table.close()


def test_a_database_that_is_not_there_is_busy(tmp_path) -> None:  # type: ignore[no-untyped-def]
    table = LookupTable(f"sqlite:///{tmp_path / 'none.db'}", "customers", "name", ["age"])
    with pytest.raises(BusyError) as caught:
        table.read(["c1"])
    assert caught.value.code == "CL-E607"
    assert not (tmp_path / "none.db").exists()
    table.close()
