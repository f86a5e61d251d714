"""Rows are completed from a table: in bulk, remembered for a while, refused or null where a key is not there."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloche.core.errors import BusyError, InputError, ModelError
from cloche.core.signature import Columns, Field, Signature
from cloche.engine.features import REST_S, FeatureRuntime, FeatureSpec, OnMissing, wire_signature
from cloche.store.lookup import LookupTable

SIGNATURE = Signature(
    inputs=(
        Field(name="amount", datatype="FP64", shape=(-1,)),
        Field(name="age", datatype="INT64", shape=(-1,)),
        Field(name="income", datatype="FP64", shape=(-1,), missing=True),
        Field(name="plan", datatype="BYTES", shape=(-1,), missing=True),
    ),
    outputs=(Field(name="value", datatype="FP64", shape=(-1,)),),
)
COLUMNS = ("age", "income", "plan")


class Echo:
    """A model that remembers what it was given."""

    in_process = True

    def __init__(self) -> None:
        self.came: list[Columns] = []

    def run(self, columns: Columns, timeout_s: float | None = None) -> Columns:
        self.came.append(columns)
        return {"value": columns["amount"]}

    def close(self) -> None: ...


class CountedTable(LookupTable):
    """A look-up that counts how often the database is asked, and may be held up."""

    asked: list[list[Any]]
    gate: threading.Event | None = None

    def read(self, keys: Any) -> dict[Any, tuple[Any, ...]]:
        self.asked.append(list(keys))
        if self.gate is not None:
            self.gate.wait(10)
        return super().read(keys)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def customers(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as database:
        database.execute("create table customers (id integer primary key, age integer, income real, plan text)")
        rows = [(1, 41, 52_000.0, "pro"), (2, 30, None, None), (3, None, 1.0, "free")]
        database.executemany("insert into customers values (?, ?, ?, ?)", rows)
    database.close()
    return path


class Door:
    """A FeatureRuntime over the customers, and its parts."""

    def __init__(self, path: Path, on_missing: OnMissing) -> None:
        self.clock = Clock()
        self.model = Echo()
        self.table = CountedTable(f"sqlite:///{path}", "customers", "id", COLUMNS)
        self.table.asked = []
        key = Field(name="id", datatype=self.table.key_datatype(), shape=(-1,))
        self.spec = FeatureSpec(key=key, columns=COLUMNS, ttl_s=10.0, on_missing=on_missing)
        self.runtime = FeatureRuntime(
            self.model, SIGNATURE, self.table, self.spec, timeout_s=5.0, clock=self.clock
        )

    def ask(self, *keys: int, timeout_s: float | None = None) -> Columns:
        columns = {"id": np.array(keys, np.int64), "amount": np.arange(len(keys), dtype=np.float64)}
        return self.runtime.run(columns, timeout_s)


@pytest.fixture
def door(customers: Path) -> Iterator[Door]:
    opened = Door(customers, "reject")
    yield opened
    opened.runtime.close()


def test_callers_send_the_key_and_what_is_not_read(door: Door) -> None:
    assert [field.name for field in wire_signature(SIGNATURE, door.spec).inputs] == ["id", "amount"]


def test_the_model_gets_whole_rows_in_the_callers_order(door: Door) -> None:
    assert door.ask(2, 1, 2)["value"].tolist() == [0.0, 1.0, 2.0]
    came = door.model.came[0]
    assert sorted(came) == ["age", "amount", "income", "plan"]
    assert came["age"].tolist() == [30, 41, 30]
    np.testing.assert_array_equal(came["income"], [np.nan, 52_000.0, np.nan])
    assert came["plan"].tolist() == [None, "pro", None]
    assert door.table.asked == [[2, 1]]


def test_a_row_is_remembered_until_its_time_is_over(door: Door) -> None:
    door.ask(1)
    door.clock.now += 9.9
    door.ask(1, 2)
    assert door.table.asked == [[1], [2]]
    door.clock.now += 0.2
    door.ask(1, 2)
    assert door.table.asked[2:] == [[1]]


def test_a_key_that_is_not_there_is_refused_by_name(door: Door) -> None:
    with pytest.raises(InputError, match="`id` 77 of row 1 is not in customers") as caught:
        door.ask(1, 77)
    assert caught.value.code == "CL-E122"
    assert [problem["row"] for problem in caught.value.details] == [1]
    with pytest.raises(InputError):
        door.ask(77)
    assert door.table.asked == [[1, 77]]  # that it is not there is remembered as well


def test_or_its_columns_are_missing_where_that_is_allowed(customers: Path) -> None:
    door = Door(customers, "null")
    with pytest.raises(InputError, match="`age` is null in row 0"):
        door.ask(77)
    door.runtime.close()


def test_what_is_read_is_validated(door: Door) -> None:
    with pytest.raises(InputError, match="`age` is null in row 0"):
        door.ask(3)


def test_what_does_not_fit_the_input_is_an_error_of_ours_not_the_callers(door: Door, customers: Path) -> None:
    with sqlite3.connect(customers) as database:
        database.execute("update customers set age = 'old' where id = 1")
    database.close()
    with pytest.raises(ModelError, match="what customers holds for `age` is no INT64"):
        door.ask(1)


def test_a_table_that_does_not_answer_is_busy_and_left_alone_for_a_moment(door: Door) -> None:
    door.table.gate = threading.Event()
    started = time.monotonic()
    with pytest.raises(BusyError, match="did not answer in time") as caught:
        door.ask(1, timeout_s=0.1)
    assert time.monotonic() - started < 5.0
    assert caught.value.code == "CL-E607"
    with pytest.raises(BusyError, match="a moment ago"):
        door.ask(2)
    door.table.gate.set()
    door.clock.now += REST_S
    assert door.ask(2)["value"].tolist() == [0.0]


def test_rows_that_are_remembered_need_no_database(door: Door, customers: Path) -> None:
    door.ask(1)
    door.table.close()
    customers.unlink()
    assert door.ask(1)["value"].tolist() == [0.0]
    with pytest.raises(BusyError) as caught:
        door.ask(2)
    assert caught.value.code == "CL-E607"
