"""Which form a body has and which one an answer gets: Content-Type, Accept, and what is not installed."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from cloche.core.errors import InputError
from cloche.core.signature import Field, Signature
from cloche.serving.bodies import arrow
from cloche.serving.bodies import csv as csv_body
from cloche.serving.bodies.base import Bodies, choose
from cloche.serving.bodies.layout import Layout, spread
from cloche.serving.protocols.rows import RowReader
from cloche.serving.protocols.schema import input_schema

Run = Callable[[Any], None]
MakeDoor = Callable[..., Any]
OFFERS = ("application/json", "text/csv", "application/jsonl")
MATRIX = Signature(
    inputs=(Field(name="x", datatype="FP32", shape=(-1, 2)),),
    outputs=(Field(name="y", datatype="FP32", shape=(-1, 2)), Field(name="z", datatype="FP32", shape=(-1, 2, 2))),
)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("text/csv;q=0.5, */*;q=0.1", "text/csv"),
        ("application/json;q=0.5, text/csv;q=0.9", "text/csv"),
        ("application/json;q=0, */*", "text/csv"),  # the more specific range decides
        ("text/csv;charset=utf-8;q=0.3", "text/csv"),
        ("application/*;q=0.2, application/jsonl", "application/jsonl"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("text/html", None),
        ("text/csv;q=0", None),
        ("text/csv;q=x", None),
        ("text/csv;q=nan", None),
        (",,,", "application/json"),
    ],
)
def test_the_offer_of_the_highest_quality_is_chosen(accept: str, chosen: str | None) -> None:
    assert choose(accept, OFFERS) == chosen


def test_an_answer_comes_in_the_form_of_the_rows_unless_another_is_wanted(
    make_door: MakeDoor, run: Run, row: Any
) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(row)
    writer.writerow([json.dumps(value) if isinstance(value, list) else value for value in row.values()])
    table = out.getvalue().encode()
    sent = {"content-type": "text/csv; charset=UTF-8"}

    async def scenario() -> None:
        async with make_door().open() as door, door.connect() as client:
            cases = [
                (table, sent, "text/csv"),
                (table, {**sent, "accept": "*/*"}, "text/csv"),
                (table, {**sent, "accept": "application/json, */*;q=0.1"}, "application/json"),
                (row, {"accept": "text/csv"}, "text/csv"),
                (row, {"accept": "text/plain, */*"}, "application/json"),
                (row, {}, "application/json"),
            ]
            for body, headers, wanted in cases:
                answer = await client.ask("/predict/fraud", body, headers=headers)
                assert (answer.status, answer.headers["content-type"]) == (200, wanted), (headers, answer.body)
            assert (await client.ask("/invocations", table, headers=sent)).json() == {"predictions": ["no"]}
            refused = await client.ask("/predict/fraud", row, headers={"accept": "image/png"})
            assert (refused.status, refused.json()["code"]) == (406, "CL-E121")
            assert "text/csv" in refused.json()["hint"]
            assert door.runtime.rows == 7  # what can't be answered is not run

    run(scenario())


def test_flags_of_a_table_are_counted_in_a_header(make_door: MakeDoor, run: Run, row: Any) -> None:
    async def scenario() -> None:
        async with make_door(on_invalid="flag").open() as door:
            rows = [row, {**row, "age": 130}, {**row, "job": "smith"}]
            answer = await door.ask("/predict/fraud", rows, headers={"accept": "text/csv"})
            assert answer.headers["cloche-flags"] == "2"
            assert answer.body.decode().splitlines()[0] == "label,probabilities.no,probabilities.yes"
            answer = await door.ask("/v1/models/fraud:predict", {"instances": rows})
            assert answer.headers["cloche-flags"] == "2"

    run(scenario())


def test_without_pyarrow_the_caller_is_told_what_to_do(
    make_door: MakeDoor, run: Run, row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "cloche.serving.bodies._pyarrow", raising=False)

    async def scenario() -> None:
        async with make_door().open() as door:
            (media_type,) = arrow.ArrowBody.media_types
            answer = await door.ask("/predict/fraud", b"x", headers={"content-type": media_type})
            assert (answer.status, answer.json()["code"]) == (415, "CL-E115")
            assert 'pip install "cloche[parquet]"' in answer.json()["hint"]
            answer = await door.ask("/predict/fraud", row, headers={"accept": media_type})
            assert (answer.status, answer.json()["code"]) == (406, "CL-E121")

    run(scenario())


@pytest.mark.parametrize("first", ["1,2", "1.5,1.5", "0.0,1.0", "-3,1e5", "nan,2", ",2", "0,2"])
def test_a_row_in_place_of_the_header_is_refused_and_not_lost(first: str) -> None:
    with pytest.raises(InputError, match="the first line holds numbers") as raised:
        csv_body.CsvBody(MATRIX).read(f"{first}\n3,4\n".encode())
    assert raised.value.code == "CL-E102"
    years = Signature(
        inputs=tuple(Field(name=name, datatype="FP64", shape=(-1,)) for name in ("2019", "2020")),
        outputs=MATRIX.outputs,
    )
    columns = csv_body.CsvBody(years).read(b"2019,2020\n3,4\n")
    assert {name: column.tolist() for name, column in columns.items()} == {"2019": [3.0], "2020": [4.0]}


def test_an_arrow_file_is_told_from_a_stream() -> None:
    table = pa.table({"x": [[1.0, 2.0]]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    made = arrow.ArrowBody(MATRIX)
    made.prepare()
    with pytest.raises(InputError, match="an Arrow file, not a stream"):
        made.read(sink.getvalue().to_pybytes())


@pytest.mark.parametrize("before", [1, 8192])  # a block of rows, and one more
def test_lists_of_unequal_length_in_csv_are_refused_by_name(before: int, make_door: MakeDoor, run: Run) -> None:
    lists = Signature(
        inputs=(Field(name="v", datatype="FP32", shape=(-1, -1)), Field(name="n", datatype="INT64", shape=(-1,))),
        outputs=(),
    )
    body = b"v,n\n" + b'"[1, 2]",1\n' * before + b'"[1]",2\n'

    async def scenario() -> None:
        door = make_door(signature=lists, examples={"v": np.ones((1, 2), np.float32), "n": np.array([1])})
        answer = await door.call("POST", "/predict/fraud", body, {"content-type": "text/csv"})
        assert (answer.status, answer.json()["code"]) == (422, "CL-E110"), answer.body
        assert "the lists of `v` differ in length" in answer.json()["detail"]

    run(scenario())


def test_a_whole_number_is_exact_beside_one_that_is_written_as_a_fraction() -> None:
    whole = Signature(inputs=(Field(name="n", datatype="INT64", shape=(-1,)),), outputs=())
    columns = csv_body.CsvBody(whole).read(b"n\n9007199254740993\n1.0\n")
    assert columns["n"].tolist() == [2**53 + 1, 1]


def test_an_empty_list_has_the_shape_that_its_field_says() -> None:
    paths = Signature(inputs=(Field(name="path", datatype="FP32", shape=(-1, -1, 3)),), outputs=())
    table = pa.table({"path": pa.array([[]], pa.list_(pa.list_(pa.float32())))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    made = arrow.ArrowBody(paths)
    made.prepare()
    read = (
        made.read(sink.getvalue().to_pybytes()),
        csv_body.CsvBody(paths).read(b"path\n[]\n"),
        RowReader(paths).read(b'{"path": []}')[0],
    )
    assert [columns["path"].shape for columns in read] == [(1, 0, 3)] * 3


@pytest.mark.parametrize(("datatype", "good"), [("INT64", 1), ("UINT8", 1), ("BOOL", True)])
def test_a_null_that_an_array_can_not_hold_is_refused_in_every_form(
    datatype: str, good: Any, make_door: MakeDoor, run: Run
) -> None:
    optional = Signature(inputs=(Field(name="n", datatype=datatype, shape=(-1,), missing=True),), outputs=())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, (table := pa.table({"n": [good, None]})).schema) as writer:
        writer.write_table(table)
    (stream,) = arrow.ArrowBody.media_types
    bodies = [
        ("/predict/fraud", [{"n": good}, {"n": None}], "application/json"),
        ("/v1/models/fraud:predict", {"instances": [good, None]}, "application/json"),
        ("/v1/models/fraud:predict", {"inputs": {"n": [good, None]}}, "application/json"),
        ("/invocations", {"dataframe_split": {"columns": ["n"], "data": [[good], [None]]}}, "application/json"),
        ("/invocations", b'{"n": null}', "application/jsonl"),
        ("/invocations", sink.getvalue().to_pybytes(), stream),
    ]

    async def scenario() -> None:
        door = make_door(signature=optional, examples={"n": np.array([good], optional.inputs[0].numpy_type)})
        assert "null" not in input_schema(optional.inputs[0])["type"]
        for path, body, media_type in bodies:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            answer = await door.call("POST", path, raw, {"content-type": media_type})
            assert answer.status == 422, (path, body, answer.body)
            assert b"is null" in answer.body

    run(scenario())


@pytest.mark.parametrize("content_type", [b"text/html", b"text/csv;charset=latin-1", b"", b"csv", b"\xff/csv"])
def test_another_media_type_is_refused_and_those_that_are_there_named(content_type: bytes) -> None:
    with pytest.raises(InputError) as raised:
        Bodies(MATRIX).came(content_type)
    assert raised.value.code == "CL-E115"


def test_a_matrix_comes_as_its_columns_by_any_names() -> None:
    for header in ("x.0,x.1", "left,right"):
        columns = csv_body.CsvBody(MATRIX).read(f"{header}\n1,2\n3,4\n".encode())
        assert columns["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert columns["x"].dtype == np.float32
    columns = csv_body.CsvBody(MATRIX).read(b'x\n"[1, 2]"\n')
    assert columns["x"].tolist() == [[1.0, 2.0]]
    for header in ("0,1", "1.5,b"):
        assert csv_body.CsvBody(MATRIX).read(f"{header}\n1,2\n".encode())["x"].tolist() == [[1.0, 2.0]]
    with pytest.raises(InputError, match="column `x` is missing"):
        Layout(MATRIX, ["a", "b", "c"])
    with pytest.raises(InputError, match="came twice"):
        Layout(MATRIX, ["a", "a"])
    of_any_width = msgspec.structs.replace(MATRIX, inputs=(Field(name="x", datatype="FP32", shape=(-1, -1)),))
    with pytest.raises(InputError, match="column `x` is missing"):
        Layout(of_any_width, [])


def test_outputs_of_more_axes_are_columns_or_lists() -> None:
    outputs = {"y": np.ones((1, 2), np.float32), "z": np.ones((1, 2, 2), np.float32)}
    assert list(spread(outputs, MATRIX.outputs, matrices=True)) == ["y.0", "y.1", "z"]
    assert list(spread(outputs, MATRIX.outputs, matrices=False)) == ["y", "z"]
    assert csv_body.CsvBody(MATRIX).write(outputs) == b'y.0,y.1,z\n1.0,1.0,"[[1.0,1.0],[1.0,1.0]]"\n'
    body = arrow.ArrowBody(MATRIX)
    body.prepare()
    table = pa.ipc.open_stream(body.write(outputs)).read_all()
    assert table.to_pydict() == {"y": [[1.0, 1.0]], "z": [[[1.0, 1.0], [1.0, 1.0]]]}


SCALARS = Signature(
    inputs=(
        Field(name="n", datatype="INT32", shape=(-1,)),
        Field(name="x", datatype="FP32", shape=(-1,), missing=True),
        Field(name="b", datatype="BOOL", shape=(-1,)),
        Field(name="s", datatype="BYTES", shape=(-1,), missing=True),
    ),
    outputs=(),
)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        ("1,2.5,true,a", [1, 2.5, True, "a"]),
        ("1.0,1e3,False,", [1, 1000.0, False, None]),
        ("-7,,1,nan", [-7, None, True, "nan"]),
        (' 7 , nan ,0,"a, ""b""\nc"', [7, None, False, 'a, "b"\nc']),
        ("7,NULL,TRUE,日本", [7, None, True, "日本"]),
    ],
)
def test_cells_are_read_by_the_type_of_their_column(cells: str, values: list[Any]) -> None:
    columns = csv_body.CsvBody(SCALARS).read(f"\ufeffn,x,b,s\r\n{cells}\r\n\r\n".encode())
    got = [None if column[0] != column[0] else column.tolist()[0] for column in columns.values()]
    assert got == values


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("1_0,1,1,a", "n"),
        ("١,1,1,a", "n"),
        ("3000000000,1,1,a", "n"),
        ("1e400,1,1,a", "n"),
        ("1,1e39,1,a", "x"),
        ("1,inf,1,a", "x"),
        ("1,1_0,1,a", "x"),
        ("1,1,yes,a", "b"),
        ("1,1,,a", "b"),
        (",1,1,a", "n"),
    ],
)
def test_a_cell_that_is_not_plainly_of_its_type_is_refused(line: str, field: str) -> None:
    with pytest.raises(InputError) as raised:
        csv_body.CsvBody(SCALARS).read(f"n,x,b,s\n1,1,1,a\n{line}\n".encode())
    assert [(one["field"], one["row"]) for one in raised.value.details] == [(field, 1)]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"n,x,b,s\n1,1,1\n", "row 0 has 3 values"),
        (b'n,x,b,s\n1,1,1,"a\n', "line 2"),
        (b"n,x,b,s\n", "no rows"),
        (b"n;x;b;s\n1;1;1;a\n", "separated by semicolons"),
        (b"n,x,b,s\n1,1,1,\xff\n", "not UTF-8"),
        (b"n,x,b,s\n1,1,1," + b"a" * 200_000 + b"\n", "field limit"),
        (b"n,x,b,s\n" + b"1," * 700_000 + b"\n", "1 MiB"),
    ],
)
def test_what_is_no_such_table_is_refused_in_words(body: bytes, words: str) -> None:
    with pytest.raises(InputError) as raised:
        csv_body.CsvBody(SCALARS).read(body)
    assert words in raised.value.message


def arrow_of(columns: dict[str, Any], options: Any = None) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def read_arrow(body: bytes, signature: Signature = SCALARS) -> Any:
    made = arrow.ArrowBody(signature)
    made.prepare()
    return made.read(body)


GOOD = {"n": [1, 2], "x": [0.5, None], "b": [True, False], "s": ["a", None]}


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("n", pa.array([1, 2], pa.int8())),
        ("n", pa.array([1, 2], pa.uint64())),
        ("n", pa.array([1.0, 2.0])),
        ("x", pa.array([0.5, None], pa.float32())),
        ("x", pa.array([0.5, None], pa.float16())),
        ("s", pa.array(["a", None], pa.large_string())),
        ("s", pa.array(["a", None], pa.string_view())),
        ("s", pa.array(["a", None]).dictionary_encode()),
    ],
)
def test_arrow_types_that_hold_the_same_are_taken(name: str, column: Any) -> None:
    columns = read_arrow(arrow_of({**GOOD, name: column}))
    assert columns["n"].tolist() == [1, 2]
    assert (columns["x"][0], columns["s"].tolist()) == (0.5, ["a", None])
    assert np.isnan(columns["x"][1])
    assert [column.dtype for column in columns.values()] == [np.int32, np.float32, np.bool_, object]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("n", pa.array([1, 2**31])),
        ("n", pa.array([1, 2**63], pa.uint64())),
        ("n", pa.array(["1", "2"])),
        ("n", pa.array([True, False])),
        ("n", pa.array([1, None])),
        ("x", pa.array([0.5, 1e39])),
        ("x", pa.array(["0.5", None])),
        ("x", pa.array([0, 1], pa.timestamp("s"))),
        ("x", pa.array([0, 2**62], pa.timestamp("s"))),
        ("b", pa.array([0, 1])),
        ("s", pa.array([b"a", None])),
    ],
)
def test_arrow_types_that_do_not_are_refused_by_name(name: str, column: Any) -> None:
    with pytest.raises(InputError) as raised:
        read_arrow(arrow_of({**GOOD, name: column}))
    assert name in raised.value.message or raised.value.code == "CL-E101"


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("texts", ["plain", "dictionary"])
def test_a_stream_compressed_inside_is_refused(codec: str, texts: str) -> None:
    strings = pa.array(["a", None])
    columns = {**GOOD, "s": strings.dictionary_encode() if texts == "dictionary" else strings}
    read_arrow(arrow_of(columns))
    with pytest.raises(InputError, match="compressed"):
        read_arrow(arrow_of(columns, pa.ipc.IpcWriteOptions(compression=codec)))


def test_lists_of_a_stream_are_arrays_where_they_are_even() -> None:
    for kind in (pa.list_(pa.float64(), 2), pa.list_(pa.float32()), pa.large_list(pa.int64())):
        column = pa.array([[9, 9], [1, 2], [3, 4]], kind)[1:]
        assert read_arrow(arrow_of({"x": column}), MATRIX)["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    for odd in ([[1, 2], [3]], [[1, 2], None], [[1, 2], [3, None]]):
        with pytest.raises(InputError) as raised:
            read_arrow(arrow_of({"x": pa.array(odd, pa.list_(pa.float64()))}), MATRIX)
        assert raised.value.details[0]["row"] == 1
    stacked = read_arrow(arrow_of({"left": [1, 3], "right": [2.0, 4.0]}), MATRIX)
    assert stacked["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_tables_are_read_and_written_without_pandas() -> None:
    # loading it takes a second, and would do so in the middle of somebody's request
    code = """if True:
        import sys
        import numpy as np
        from cloche.core.signature import Field, Signature
        from cloche.serving.bodies import _pyarrow as half
        kinds = {"FP64": [1.5, np.nan], "INT64": [1, 2], "BOOL": [True, False], "BYTES": ["a", "é"]}
        fields = tuple(Field(name=kind, datatype=kind, shape=(-1,), missing=kind == "FP64") for kind in kinds)
        signature = Signature(inputs=fields, outputs=fields)
        columns = {field.name: np.array(kinds[field.name], field.numpy_type) for field in fields}
        for write, read in ((half.write_file, half.read_file), (half.write_stream, half.read_stream)):
            back = read(write(columns, signature), signature)
            for name in kinds:
                assert np.array_equal(back[name], columns[name], equal_nan=name == "FP64"), back
        sys.exit("pandas" in sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
