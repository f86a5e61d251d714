"""A small model of one number, its rows in every kind of source, and a sink's rows read back."""

from __future__ import annotations

import csv
import gzip
import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from adbc_driver_postgresql import dbapi

from cloche.batch.fingerprint import fingerprint
from cloche.batch.plan import Outcome, Plan, Progress
from cloche.batch.run import run_batch
from cloche.core.signature import Columns, Field, Signature
from cloche.engine.validate import Validator

SIGNATURE = Signature(
    inputs=(
        Field(name="x", datatype="FP64", shape=(-1,)),
        Field(name="kind", datatype="BYTES", shape=(-1,), missing=True),
        Field(name="sure", datatype="BOOL", shape=(-1,)),
    ),
    outputs=(
        Field(name="label", datatype="BYTES", shape=(-1,)),
        Field(name="probabilities", datatype="FP32", shape=(-1, 2), classes=("no", "yes")),
    ),
)
_FITS = Validator(SIGNATURE, "flag").check
#: Rows of a source; `note` is what is carried over.
Rows = dict[str, list[Any]]


def predict(columns: Columns) -> Mapping[str, Any]:
    _FITS(columns)
    yes = np.where(columns["sure"], columns["x"] % 7 / 7, 0).astype(np.float32)
    label = np.array(["yes" if one > 0.5 else "no" for one in yes], object)
    return {"label": label, "probabilities": {"no": np.float32(1) - yes, "yes": yes}}


def rows(count: int, start: int = 0) -> Rows:
    numbers = range(start, start + count)
    return {
        "id": list(numbers),
        "x": [float(number) for number in numbers],
        "kind": [None if number % 3 == 0 else f"k{number % 5}" for number in numbers],
        "sure": [number % 2 == 0 for number in numbers],
        "note": [f"note, {number}" for number in numbers],
    }


def plan(source: str, sink: str, **changes: Any) -> Plan:
    changes = {"key": "id", "chunk": 100, **changes}
    return Plan(run="run_0123456789ab", ref="toy:3", digest="d", source=source, sink=sink, **changes)


def run(
    plan: Plan,
    predict: Callable[[Columns], Mapping[str, Any]] = predict,
    *,
    told: list[Progress] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    heard = [] if told is None else told
    return run_batch(plan, SIGNATURE, predict, look_up=str, tell=heard.append, is_stopped=is_stopped)


def pinned(plan: Plan) -> Plan:
    """The plan as it is kept from its start on."""
    changes = {**{name: getattr(plan, name) for name in plan.__struct_fields__}}
    return Plan(**{**changes, "fingerprint": fingerprint(plan.source, plan.key)})


def write_source(kind: str, folder: Path, table: Rows, new_database: Callable[[], str] | None = None) -> str:
    """The rows as a source of this kind, and its place."""
    if kind == "parquet":
        pq.write_table(pa.table(table), folder / "in.parquet", row_group_size=150)
        return str(folder / "in.parquet")
    if kind in ("csv", "csv.gz"):
        path = folder / f"in.{kind}"
        with gzip.open(path, "wt", newline="") if kind == "csv.gz" else path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))
        return str(path)
    if kind in ("jsonl", "jsonl.gz"):
        path = folder / f"in.{kind}"
        with gzip.open(path, "wt") if kind == "jsonl.gz" else path.open("w") as file:
            for values in zip(*table.values(), strict=True):
                file.write(json.dumps(dict(zip(table, values, strict=True))) + "\n")
        return str(path)
    if kind == "glob":
        size = len(table["id"])
        for name, (start, stop) in {"b": (size // 3, size), "a": (0, size // 3)}.items():
            part = {column: values[start:stop] for column, values in table.items()}
            pq.write_table(pa.table(part), folder / f"in-{name}.parquet")
        return str(folder / "in-*.parquet")
    if kind == "sqlite":
        with sqlite3.connect(folder / "in.db") as connection:
            connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, x REAL, kind, sure BOOLEAN, note)")
            values = list(zip(*table.values(), strict=True))[::-1]
            connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", values)
        connection.close()
        return f"sqlite:///{folder / 'in.db'}?table=orders"
    assert new_database is not None
    url = new_database()
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE orders (id int, x numeric, kind text, sure boolean, note varchar(40))")
        typed = pa.table({**table, "id": pa.array(table["id"], pa.int32()), "x": [str(x) for x in table["x"]]})
        cursor.execute("CREATE TABLE came (id int, x text, kind text, sure boolean, note text)")
        cursor.adbc_ingest("came", typed, mode="append")
        cursor.execute("INSERT INTO orders SELECT id, x::numeric, kind, sure, note FROM came ORDER BY random()")
        connection.commit()
    return f"{url}?query=SELECT * FROM orders"


def new_sink(kind: str, folder: Path, new_database: Callable[[], str] | None = None) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder / 'out.db'}?table=scores"
    if kind == "postgresql":
        assert new_database is not None
        return f"{new_database()}?table=scores"
    return f"{folder / 'out'}.parquet/" if kind == "folder" else str(folder / f"out.{kind}")


def read_sink(sink: str) -> dict[str, list[Any]]:
    """The sink's rows as columns, by id where the sink has no order."""
    place, _, _ = sink.partition("?")
    if sink.startswith("sqlite"):
        connection = sqlite3.connect(place.removeprefix("sqlite:///"))
        found = connection.execute("SELECT * FROM scores ORDER BY id")
        values = list(zip(*found, strict=True))
        connection.close()
        return {column[0]: list(each) for column, each in zip(found.description, values, strict=True)}
    if sink.startswith("postgresql"):
        with dbapi.connect(place) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT * FROM scores ORDER BY id")
            return cursor.fetch_arrow_table().to_pydict()  # type: ignore[no-any-return]
    if sink.endswith("/"):
        parts = [pq.read_table(path) for path in sorted(Path(sink).glob("*.parquet"))]
        return pa.concat_tables(parts).to_pydict()  # type: ignore[no-any-return]
    if sink.endswith(".parquet"):
        return pq.read_table(sink).to_pydict()  # type: ignore[no-any-return]
    if sink.endswith(".csv"):
        return pa.csv.read_csv(sink).to_pydict()  # type: ignore[no-any-return]
    lines = [json.loads(line) for line in Path(sink).read_text().splitlines()]
    return {name: [line[name] for line in lines] for name in lines[0]}


def execute(place: str, statement: str) -> None:
    """A statement in the database of a place."""
    address = place.partition("?")[0]
    if address.startswith("sqlite"):
        connection = sqlite3.connect(address.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute(statement)
        connection.close()
        return
    with dbapi.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        connection.commit()
