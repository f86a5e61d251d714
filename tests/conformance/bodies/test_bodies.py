"""Each body format keeps the promises of `cloche.serving.bodies.base`: JSON's columns, errors by row and name."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conformance.dialects.test_dialects import ROWS, Row, bent
from tests.unit.serving.conftest import SIGNATURE, Door, Scoring, board, make_door, run

from cloche.core.errors import InputError
from cloche.core.signature import Columns
from cloche.serving.bodies.base import Body, find_bodies
from cloche.serving.protocols.rows import RowReader

__all__ = ["board", "make_door", "run"]  # fixtures

Run = Callable[[Any], None]
MakeDoor = Callable[..., Door]


class Format(NamedTuple):
    """A Format is how the tests write and read one body format."""

    write: Callable[[list[Row]], bytes]
    read: Callable[[bytes], list[Row]]


def table_of(rows: list[Row]) -> Any:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def to_csv(rows: list[Row]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(value) if isinstance(value, list) else value for k, value in row.items()})
    return out.getvalue().encode()


def of_csv(body: bytes) -> list[Row]:
    return [
        {name: value if name == "label" else float(value) for name, value in row.items()}
        for row in csv.DictReader(io.StringIO(body.decode()))
    ]


def of_lines(body: bytes) -> list[Row]:
    rows = [json.loads(line) for line in body.splitlines()]
    return [
        {"label": row["label"], **{f"probabilities.{name}": p for name, p in row["probabilities"].items()}}
        for row in rows
    ]


def to_arrow(rows: list[Row]) -> bytes:
    table = table_of(rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=len(rows) // 2 or 1)
    return sink.getvalue().to_pybytes()


def of_arrow(body: bytes) -> list[Row]:
    return pa.ipc.open_stream(body).read_all().to_pylist()


def to_parquet(rows: list[Row]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table_of(rows), sink, row_group_size=len(rows) // 2 or 1)
    return sink.getvalue()


FORMATS = {
    "csv": Format(to_csv, of_csv),
    "jsonlines": Format(lambda rows: b"".join(json.dumps(row).encode() + b"\n" for row in rows), of_lines),
    "arrow": Format(to_arrow, of_arrow),
    "parquet": Format(to_parquet, lambda body: pq.read_table(io.BytesIO(body)).to_pylist()),
}
KINDS = {body.name: body for body in find_bodies()}
EACH = pytest.mark.parametrize("name", FORMATS)


def made(name: str) -> Body:
    body = KINDS[name](SIGNATURE)
    body.prepare()
    return body


def refusal(name: str, data: bytes) -> InputError:
    with pytest.raises(InputError) as raised:
        made(name).read(data)
    return raised.value


def test_every_format_that_is_installed_is_written_here() -> None:
    assert set(KINDS) == set(FORMATS)


@EACH
def test_the_columns_are_those_of_json(name: str) -> None:
    rows = ROWS * 4_000
    columns = made(name).read(FORMATS[name].write(rows))
    wanted, _ = RowReader(SIGNATURE).read(json.dumps(rows).encode())
    assert list(columns) == list(wanted)
    for key, column in columns.items():
        assert column.dtype == wanted[key].dtype
        equal_nan = column.dtype.kind == "f"
        assert np.array_equal(column, wanted[key], equal_nan=equal_nan), key


@EACH
def test_columns_come_in_any_order(name: str) -> None:
    turned = [dict(reversed(row.items())) for row in ROWS]
    assert made(name).read(FORMATS[name].write(turned))["age"].tolist() == [41, 101, 0]


@EACH
@pytest.mark.parametrize(
    ("odd", "code"),
    [
        ({"age": "41x"}, "CL-E105"),
        ({"age": 1.5}, "CL-E105"),
        ({"age": None}, "CL-E106"),
        ({"pay": "much"}, "CL-E105"),
        ({"point": [1.0, 2.0, 3.0]}, "CL-E110"),
        ({"point": None}, "CL-E106"),
        ({"age": 2.0**70}, "CL-E105"),
    ],
)
def test_a_bad_value_is_told_by_row_and_column(name: str, odd: Row, code: str) -> None:
    (field,) = odd
    # a table has one type a column: the bad value bends it for all, so that every row is named
    bends = name in ("arrow", "parquet") and isinstance(odd[field], str)
    rows = [{**row, **odd} for row in ROWS] if bends else [ROWS[0], {**ROWS[1], **odd}, ROWS[2]]
    error = refusal(name, FORMATS[name].write(rows))
    first = error.details[0]
    assert (first["field"], first["row"]) == (field, 0 if bends else 1)
    if name != "csv" or field != "point":  # a cell of CSV that is no such array has the wrong type
        assert first["code"] == code
    assert field in error.message
    assert error.hint


@EACH
def test_a_column_that_is_missing_or_not_known_is_named(name: str) -> None:
    absent = [{key: value for key, value in row.items() if key != "job"} for row in ROWS]
    assert refusal(name, FORMATS[name].write(absent)).details[0]["field"] == "job"
    more = [{**row, "jobs": 1} for row in ROWS]
    error = refusal(name, FORMATS[name].write(more))
    assert (error.code, error.details[0]["field"]) == ("CL-E103", "jobs")
    meant = [{("jbo" if key == "job" else key): value for key, value in row.items()} for row in ROWS]
    assert "did you mean `job` for `jbo`" in refusal(name, FORMATS[name].write(meant)).message


@EACH
def test_no_rows_and_no_bytes_are_refused(name: str) -> None:
    for data in (b"", b"\n", b"\x00" * 40, b"x", b"PAR1", b"\xff" * 100):
        assert refusal(name, data).code in ("CL-E101", "CL-E102", "CL-E103", "CL-E104")


@EACH
def test_more_rows_than_fit_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cloche.serving.bodies.csv", "cloche.serving.bodies._pyarrow", "cloche.serving.protocols.rows"):
        monkeypatch.setattr(f"{module}.MOST_ROWS", 5)
    made(name).read(FORMATS[name].write(ROWS))
    assert refusal(name, FORMATS[name].write(ROWS * 2)).code == "CL-E113"


@EACH
def test_a_body_bent_at_random_is_never_a_bug(name: str) -> None:
    good = FORMATS[name].write(ROWS)
    generator = random.Random(3)
    body = made(name)
    refused = 0
    for _ in range(300):
        try:
            body.read(bent(good, generator))
        except InputError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_a_table_in_countless_pieces_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloche.serving.bodies._pyarrow._MOST_PIECES", 1)
    assert refusal(name, FORMATS[name].write(ROWS)).code == "CL-E113"


@EACH
def test_answers_have_a_column_an_output_and_one_a_class(name: str) -> None:
    columns, _ = RowReader(SIGNATURE).read(json.dumps(ROWS).encode())
    outputs: Columns = Scoring().run(columns)
    rows = FORMATS[name].read(made(name).write(outputs))
    assert [row["label"] for row in rows] == ["no", "yes", "no"]
    for row, p in zip(rows, outputs["probabilities"].tolist(), strict=True):
        assert list(row) == ["label", "probabilities.no", "probabilities.yes"]
        assert [row["probabilities.no"], row["probabilities.yes"]] == p


@EACH
@pytest.mark.parametrize("path", ["/predict/fraud", "/invocations"])
def test_a_body_and_its_answer_over_http(name: str, path: str, make_door: MakeDoor, run: Run) -> None:
    body = FORMATS[name].write(ROWS)

    async def scenario() -> None:
        async with make_door(max_body=10_000_000).open() as door:
            for media_type in KINDS[name].media_types:
                headers = {"content-type": media_type}
                answer = await door.ask(path, body, headers={**headers, "accept": media_type})
                assert (answer.status, answer.headers["content-type"]) == (200, media_type)
                assert [row["label"] for row in FORMATS[name].read(answer.body)] == ["no", "yes", "no"]
                as_json = await door.ask(path, body, headers={**headers, "accept": "application/json"})
                assert len(as_json.json()["predictions"]) == 3
            large = await door.ask(path, FORMATS[name].write(ROWS * 2000), headers=headers)
            assert large.status == 200
            refused = await door.ask(path, b"", headers=headers)
            assert refused.status in (400, 422)
            assert "json" in refused.headers["content-type"]

    run(scenario())
