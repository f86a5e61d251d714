"""Rows of our own dialect: what is read, and what is said of what can't be."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.errors import InputError
from cloche.core.signature import Field, Signature
from cloche.serving.protocols import rows as module
from cloche.serving.protocols import wire_types
from cloche.serving.protocols.rows import RowReader


def reader(*fields: Field) -> RowReader:
    return RowReader(Signature(inputs=fields, outputs=()))


def field(name: str = "x", datatype: str = "FP64", shape: tuple[int, ...] = (-1,), **facts: Any) -> Field:
    return Field(name=name, datatype=datatype, shape=shape, **facts)


def refusal(made: RowReader, body: Any) -> InputError:
    with pytest.raises(InputError) as raised:
        made.read(body if isinstance(body, bytes) else json.dumps(body).encode())
    return raised.value


AGE, JOB = field("age", "INT64"), field("job", "BYTES", missing=True)
POINT = field("point", "FP32", (-1, 2))
GOOD = {"age": 41, "job": "cook", "point": [0.5, 1]}


@pytest.mark.parametrize(
    ("body", "single"),
    [
        (GOOD, True),
        ([GOOD], False),
        ({"rows": [GOOD]}, False),
    ],
)
@pytest.mark.parametrize("space", ["", " ", "\n\t" + " " * 100])
def test_one_object_a_list_or_rows(body: Any, single: bool, space: str) -> None:
    columns, was_single = reader(AGE, JOB, POINT).read((space + json.dumps(body) + space).encode())
    assert was_single == single
    assert columns["age"].tolist() == [41]
    assert columns["job"].tolist() == ["cook"]
    assert columns["point"].tolist() == [[0.5, 1]]
    assert [column.dtype for column in columns.values()] == [np.int64, object, np.float32]


def test_members_come_in_any_order_and_rows_keep_theirs() -> None:
    body = b'[{"x": 1, "y": 2}, {"y": 4, "x": 3}]'
    columns, _ = reader(field("x"), field("y")).read(body)
    assert (columns["x"].tolist(), columns["y"].tolist()) == ([1, 3], [2, 4])


def test_a_null_is_a_missing_number_or_string_where_that_is_allowed() -> None:
    made = reader(field("x", missing=True), field("s", "BYTES", missing=True))
    columns, _ = made.read(b'[{"x": null, "s": null}, {"x": 1, "s": ""}]')
    assert math.isnan(columns["x"][0])
    assert columns["s"].tolist() == [None, ""]


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", "CL-E101", "truncated"),
        (b"{", "CL-E101", "truncated"),
        (b"not json", "CL-E101", "not JSON"),
        (b'{"age": NaN}', "CL-E101", "JSON has no NaN"),
        (b'{"age": Infinity}', "CL-E101", "JSON has no NaN"),
        (b'{"age": 41,}', "CL-E101", "not JSON"),
        (b'{"age": 41} x', "CL-E101", "not JSON"),
        (b"\xff\xfe{}", "CL-E101", "not JSON"),
        (b'{"job": "\xff"}', "CL-E101", "not JSON"),
        (b'{"job": "\\ud800"}', "CL-E101", "not JSON"),
        (b'{"age": 1e999}', "CL-E101", "not JSON"),
        (b"[" * 100_000, "CL-E101", ""),
        (b"[" * 100_000 + b"]" * 100_000, "CL-E101", "nested too deeply"),
        (b'{"age":' * 100_000 + b"1" + b"}" * 100_000, "CL-E101", "nested too deeply"),
        (b"null", "CL-E102", "the body is null"),
        (b"3", "CL-E102", "the body is a number"),
        (b'"x"', "CL-E102", "the body is a string"),
        (b"[]", "CL-E102", "no rows"),
        (b'{"rows": []}', "CL-E102", "no rows"),
        (b"[3]", "CL-E102", "row 0 is a number"),
        (b'{"rows": [null]}', "CL-E102", "row 0 is null"),
        (b"[[1, 2]]", "CL-E102", "row 0 is a list"),
        (b"{}", "CL-E104", "input `age` is missing from row 0"),
        (b'{"rows": 3}', "CL-E104", "input `age` is missing from row 0"),
    ],
)
def test_what_is_no_rows_is_refused(body: bytes, code: str, words: str) -> None:
    error = refusal(reader(AGE, JOB, POINT), body)
    assert error.code == code
    assert words in error.message


@pytest.mark.parametrize(
    ("change", "code", "words", "expected"),
    [
        ({"age": "41"}, "CL-E105", "input `age` of row 0 is a string", "a whole number"),
        ({"age": 41.5}, "CL-E105", "input `age` of row 0 is 41.5, a whole number is expected", "a whole number"),
        ({"age": True}, "CL-E105", "input `age` of row 0 is a boolean", "a whole number"),
        ({"age": None}, "CL-E106", "input `age` of row 0 is null", "a whole number"),
        ({"age": 2**63}, "CL-E105", "row 0 is 9223372036854775808, which does not fit INT64", "a whole number"),
        ({"age": -(10**400)}, "CL-E105", "input `age` of row 0 is a very large number", "a whole number"),
        ({"age": {}}, "CL-E105", "input `age` of row 0 is an object", "a whole number"),
        ({"job": 3}, "CL-E105", "input `job` of row 0 is 3, which is a number", "a string or null"),
        ({"point": 3}, "CL-E105", "input `point` of row 0 is 3, which is a number", "an array of shape [2]"),
        ({"point": [1]}, "CL-E110", "input `point` of row 0 has the wrong shape", "an array of shape [2]"),
        ({"point": [1, 2, 3]}, "CL-E110", "input `point` of row 0 has the wrong shape", "an array of shape [2]"),
        ({"point": [1, [2]]}, "CL-E105", "input `point` of row 0 is a list", "an array of shape [2]"),
        ({"point": [1, 1e39]}, "CL-E105", "input `point` of row 0 is a list", "an array of shape [2]"),
        ({"salary": 3}, "CL-E103", "input `salary` of row 0 is not known", ""),
    ],
)
def test_a_value_that_is_wrong_is_named(change: Any, code: str, words: str, expected: str) -> None:
    error = refusal(reader(AGE, JOB, POINT), {**GOOD, **change})
    assert (error.code, error.where) == (code, "request body, row 0")
    assert words in error.message
    problem = error.details[0]
    assert (problem["row"], problem["field"]) == (0, next(iter(change)))
    assert expected in problem.get("expected", "")


def test_every_bad_row_is_listed_up_to_20() -> None:
    rows = [{**GOOD, "age": "x" if number % 2 else number} for number in range(100)]
    error = refusal(reader(AGE, JOB, POINT), {"rows": rows})
    assert [problem["row"] for problem in error.details] == list(range(1, 41, 2))
    assert "(and 19 more)" in error.message


def test_an_object_whose_only_key_is_rows_is_rows_even_where_an_input_has_that_name() -> None:
    made = reader(field("rows", "INT64", (-1, 2)), field("n", "INT64", missing=True))
    columns, single = made.read(b'{"rows": [1, 2], "n": 3}')
    assert (columns["rows"].tolist(), single) == ([[1, 2]], True)
    columns, single = made.read(b'{"rows": [{"rows": [1, 2], "n": 3}]}')
    assert (columns["rows"].tolist(), single) == ([[1, 2]], False)
    alone = reader(field("rows", "INT64", (-1, 2)))
    assert refusal(alone, b'{"rows": [1, 2]}').code == "CL-E102"
    assert alone.read(b'{"rows": [{"rows": [1, 2]}]}')[0]["rows"].tolist() == [[1, 2]]
    scalar = reader(field("rows", "INT64"))
    assert scalar.read(b'{"rows": 3}')[0]["rows"].tolist() == [3]
    assert scalar.read(b'{"\\u0072ows": [{"rows": 3}]}')[0]["rows"].tolist() == [3]


@pytest.mark.parametrize(
    "name",
    [
        "größe",
        "日本",
        "with space",
        'quo"te',
        "back\\slash",
        "new\nline",
        "",
        "f0",
        "__init__",
        "$",
        "rows ",
        "a.b",
    ],
)
def test_an_input_may_have_any_name(name: str) -> None:
    made = reader(field(name, "INT64"), field("other", "BYTES"))
    columns, single = made.read(json.dumps({name: 7, "other": "x"}).encode())
    assert (columns[name].tolist(), single) == ([7], True)
    columns, _ = made.read(json.dumps([{name: 7, "other": "x"}] * 2).encode())
    assert columns[name].tolist() == [7, 7]
    error = refusal(made, {name: "7", "other": "x"})
    assert (error.code, error.details[0]["field"]) == ("CL-E105", name)
    assert refusal(made, {"other": "x"}).code == "CL-E104"


@pytest.mark.parametrize(
    ("datatype", "low", "high"),
    [(name, int(np.iinfo(kind).min), int(np.iinfo(kind).max)) for name, kind in
     (("INT8", np.int8), ("INT16", np.int16), ("INT32", np.int32), ("INT64", np.int64), ("UINT8", np.uint8))],
)  # fmt: skip
def test_integers_have_the_range_of_their_type(datatype: str, low: int, high: int) -> None:
    made = reader(field("x", datatype))
    for value in (low, high):
        assert made.read(json.dumps({"x": value}).encode())[0]["x"].tolist() == [value]
    for value in (low - 1, high + 1):
        assert refusal(made, {"x": value}).code == "CL-E105"


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert reader(field("x", "INT64")).read(b'{"x": 2.0}')[0]["x"].tolist() == [2]


def test_numbers_beyond_a_float_are_refused_and_its_largest_is_not() -> None:
    made = reader(field("x", "FP32"))
    assert made.read(b'{"x": 3.4028235e38}')[0]["x"].tolist() == [float(np.finfo(np.float32).max)]
    assert refusal(made, {"x": 3.5e38}).code == "CL-E105"
    assert reader(field("x", "FP16")).read(b'{"x": 65504}')[0]["x"].tolist() == [65504]
    assert refusal(reader(field("x", "FP16")), {"x": 65536}).code == "CL-E105"


def test_booleans_are_booleans_only() -> None:
    made = reader(field("x", "BOOL"))
    assert made.read(b'{"x": true}')[0]["x"].tolist() == [True]
    for value in (1, "true", None):
        assert refusal(made, {"x": value}).code in ("CL-E105", "CL-E106")


def test_open_axes_take_any_size_but_one_size_a_request() -> None:
    made = reader(field("tokens", "INT64", (-1, -1)))
    assert made.read(b'{"tokens": [1, 2, 3]}')[0]["tokens"].shape == (1, 3)
    error = refusal(made, [{"tokens": [1]}, {"tokens": [1, 2]}])
    assert error.code == "CL-E110"
    assert "`tokens`" in error.message


def test_of_a_member_that_comes_twice_the_last_counts() -> None:
    assert reader(field("x")).read(b'{"x": 1, "x": 2}')[0]["x"].tolist() == [2]


def test_rows_have_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 3)
    monkeypatch.setattr(wire_types, "MOST_ELEMENTS", 10)
    made = reader(field("x", "FP64", (-1, 5)))
    assert refusal(made, [{"x": [1] * 5}] * 4).code == "CL-E113"
    assert refusal(made, [{"x": [1] * 5}] * 3).code == "CL-E113"
    assert made.read(json.dumps([{"x": [1] * 5}] * 2).encode())[0]["x"].shape == (2, 5)


_values = {
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "BOOL": st.booleans(),
    "BYTES": st.text(),
}


@given(st.data())
def test_what_was_written_is_read_back(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text(max_size=5), min_size=1, max_size=4, unique=True))
    fields = [field(name, data.draw(st.sampled_from(list(_values)))) for name in names]
    row = st.fixed_dictionaries({one.name: _values[one.datatype] for one in fields})
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    columns, single = reader(*fields).read(json.dumps(rows).encode())
    assert not single
    assert [
        dict(zip(names, values, strict=True))
        for values in zip(*(columns[name].tolist() for name in names), strict=True)
    ] == rows


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["age", "job", "point", "rows", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_json)
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        columns, _ = reader(AGE, JOB, POINT).read(json.dumps(value).encode())
    except InputError as error:
        assert error.code.startswith("CL-E1")
    else:
        assert {len(column) for column in columns.values()} != {0}


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(body: bytes) -> None:
    with pytest.raises(InputError):
        reader(AGE, JOB, POINT).read(body)


def test_a_misspelt_input_is_told_beside_the_one_that_was_meant() -> None:
    error = refusal(reader(AGE, JOB, POINT), {**{k: v for k, v in GOOD.items() if k != "age"}, "agee": 41})
    assert "did you mean `age` for `agee`?" in error.message
    assert "age, job, point" in (error.hint or "")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"age": NaN}', "JSON has no NaN: send null for a missing number"),
        (b'{"age": -Infinity}', "JSON has no NaN: send null for a missing number"),
        (b'{"age": nan}', "JSON has no NaN: send null for a missing number"),
        (b"{'age': 3}", "this is not JSON (Python's quotes?)"),
        (b'{"age": None}', "this is not JSON (Python's quotes?)"),
        (b'{"age": True}', "this is not JSON (Python's quotes?)"),
    ],
)
def test_what_python_writes_and_json_has_not_is_told_in_words(body: bytes, words: str) -> None:
    assert refusal(reader(AGE, JOB, POINT), body).message == words


def test_a_range_that_was_seen_reads_as_no_limit_and_a_null_says_how_to_allow_it() -> None:
    seen = field("age", "INT64", minimum=18, maximum=79)
    assert refusal(reader(seen), {"age": "x"}).hint == "expected a whole number (18 to 79 were seen)"
    assert "pack with rows that have gaps" in (refusal(reader(seen), {"age": None}).hint or "")
    assert "Expected" not in refusal(reader(POINT), {"point": [1, "x"]}).message
