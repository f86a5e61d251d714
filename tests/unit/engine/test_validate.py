"""What the validator finds odd, what it says of it, and that its quick look and its long look agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.errors import InputError
from cloche.core.signature import NUMPY_TYPES, Columns, Field, Signature
from cloche.engine.validate import Flag, OnInvalid, Validator, _quick_check, describe, value_problem

AGE = Field(name="age", datatype="FP64", shape=(-1,), minimum=0.0, maximum=100.0)
PAY = Field(name="pay", datatype="FP32", shape=(-1,), missing=True)
JOB = Field(name="job", datatype="BYTES", shape=(-1,), categories=("cook", "nurse"))
POINT = Field(name="point", datatype="FP32", shape=(-1, 2))
COUNT = Field(name="count", datatype="INT64", shape=(-1,), minimum=0, maximum=9)


def strings(*values: str | None) -> Any:
    column = np.empty(len(values), object)
    column[:] = values
    return column


def good() -> Columns:
    return {
        "age": np.array([41.0, 7.0]),
        "pay": np.array([1.5, math.nan], np.float32),
        "job": strings("cook", "nurse"),
        "point": np.zeros((2, 2), np.float32),
        "count": np.array([3, 4]),
    }


def validator(on_invalid: OnInvalid = "reject", *fields: Field) -> Validator:
    return Validator(Signature(inputs=fields or (AGE, PAY, JOB, POINT, COUNT), outputs=()), on_invalid)


def refusal(columns: Columns, on_invalid: OnInvalid = "reject") -> InputError:
    with pytest.raises(InputError) as raised:
        validator(on_invalid).check(columns)
    return raised.value


def test_good_rows_have_no_flags() -> None:
    assert validator().check(good()) == ()


@pytest.mark.parametrize("on_invalid", ["reject", "flag", "allow"])
@pytest.mark.parametrize(
    ("name", "column", "code", "words"),
    [
        ("age", np.array([41.0, math.nan]), "CL-E106", "`age` is null or NaN in row 1"),
        ("age", np.array([math.inf, 7.0]), "CL-E107", "`age` is infinite in row 0"),
        ("pay", np.array([1, -math.inf], np.float32), "CL-E107", "`pay` is infinite in row 1"),
        ("job", strings("cook", None), "CL-E106", "`job` is null in row 1"),
        ("job", strings("cook", 7), "CL-E105", "`job` is int in row 1"),  # type: ignore[arg-type]
        ("point", np.array([[0, 0], [0, math.nan]], np.float32), "CL-E106", "`point` is null or NaN in row 1"),
        ("age", np.array([41.0, 7.0], np.float32), "CL-E105", "`age` came as float32"),
        ("job", np.array(["cook", "nurse"]), "CL-E105", "`job` came as <U5"),
        ("point", np.zeros((2, 3), np.float32), "CL-E110", "`point` came in shape [2, 3]"),
        ("age", np.zeros((2, 1)), "CL-E110", "`age` came in shape [2, 1]"),
        ("age", np.array(41.0), "CL-E110", "`age` came in shape []"),
        ("pay", np.zeros(3, np.float32), "CL-E110", "`pay` has 3 rows, the inputs before it 2"),
    ],
)
def test_what_is_wrong_is_refused_whatever_the_policy(
    on_invalid: OnInvalid, name: str, column: Any, code: str, words: str
) -> None:
    error = refusal({**good(), name: column}, on_invalid)
    assert error.code == code
    assert words in error.message
    assert error.details[0]["field"] == name


@pytest.mark.parametrize(
    ("name", "column", "code", "words"),
    [
        ("age", np.array([41.0, 120.5]), "CL-E109", "`age` is 120.5, outside what was seen, in row 1"),
        ("count", np.array([3, -1]), "CL-E109", "`count` is -1, outside what was seen, in row 1"),
        ("job", strings("cook", "pilot"), "CL-E108", "`job` is 'pilot', which was never seen, in row 1"),
    ],
)
def test_what_is_odd_is_refused_flagged_or_allowed(name: str, column: Any, code: str, words: str) -> None:
    odd = {**good(), name: column}
    error = refusal(odd)
    assert (error.code, error.message) == (code, words)
    assert error.details == (
        {
            "code": code,
            "message": words,
            "field": name,
            "row": 1,
            "expected": describe({"age": AGE, "count": COUNT, "job": JOB}[name]),
        },
    )
    assert validator("flag").check(odd) == (Flag(1, name, code),)
    assert validator("allow").check(odd) == ()


def test_a_row_that_is_wrong_is_refused_although_another_is_only_odd() -> None:
    error = refusal({**good(), "age": np.array([120.0, math.inf])}, "flag")
    assert [(problem["row"], problem["code"]) for problem in error.details] == [(1, "CL-E107")]


def test_missing_and_extra_inputs_are_named() -> None:
    columns = good()
    columns["salary"] = columns.pop("pay")
    error = refusal(columns)
    assert [(one["code"], one["field"]) for one in error.details] == [("CL-E104", "pay"), ("CL-E103", "salary")]
    assert "(and 1 more)" in error.message


def test_no_rows_are_no_request() -> None:
    empty = {name: column[:0] for name, column in good().items()}
    assert refusal(empty).code == "CL-E102"


def test_at_most_20_problems_are_listed_by_row() -> None:
    many: Columns = {
        "age": np.full(50, 120.0),
        "pay": np.zeros(50, np.float32),
        "job": strings(*["pilot"] * 50),
        "point": np.zeros((50, 2), np.float32),
        "count": np.zeros(50, np.int64),
    }
    error = refusal(many)
    listed = [(problem["row"], problem["field"]) for problem in error.details]
    assert listed == [(row, field) for row in range(10) for field in ("age", "job")]
    assert refusal({f"x{number}": np.zeros(1) for number in range(50)}).details[19:]
    assert len(refusal({f"x{number}": np.zeros(1) for number in range(50)}).details) == 20


def test_open_axes_take_any_size() -> None:
    tokens = Field(name="tokens", datatype="INT64", shape=(-1, -1, 2))
    assert validator("reject", tokens).check({"tokens": np.zeros((3, 7, 2), np.int64)}) == ()
    with pytest.raises(InputError, match="shape"):
        validator("reject", tokens).check({"tokens": np.zeros((3, 7, 3), np.int64)})


def test_one_bound_alone_is_a_bound() -> None:
    field = Field(name="x", datatype="FP32", shape=(-1,), minimum=0.0)
    assert validator("flag", field).check({"x": np.array([1, -1], np.float32)}) == (Flag(1, "x", "CL-E109"),)


def test_a_field_is_described_in_words() -> None:
    assert describe(AGE) == "a number (0 to 100 were seen)"
    assert describe(PAY) == "a number or null"
    assert describe(JOB) == "one of cook, nurse"
    assert describe(POINT) == "an array of shape [2], each a number"
    assert describe(Field(name="b", datatype="BOOL", shape=(-1,))) == "true or false"


@st.composite
def fields_and_columns(draw: st.DrawFn) -> tuple[Field, Any]:
    datatype = draw(st.sampled_from(["FP16", "FP32", "FP64", "INT8", "INT64", "UINT8", "BOOL", "BYTES"]))
    missing = draw(st.booleans())
    tail = draw(st.sampled_from([(), (2,)]))
    rows = draw(st.integers(1, 5))
    size = rows * math.prod(tail)
    bounds: dict[str, Any] = {}
    values: st.SearchStrategy[Any]
    if datatype == "BYTES":
        values = st.sampled_from(["a", "b", "c", None])
        if draw(st.booleans()):
            bounds["categories"] = ("a", "b")
    elif datatype == "BOOL":
        values = st.booleans()
    else:
        values = st.integers(0, 9)
        if draw(st.booleans()):
            bounds = {"minimum": draw(st.integers(0, 4)), "maximum": draw(st.integers(5, 9))}
        if datatype.startswith("FP"):
            values = st.one_of(values, st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e4]))
    flat = draw(st.lists(values, min_size=size, max_size=size))
    column = np.empty(size, NUMPY_TYPES[datatype])
    column[:] = flat
    field = Field(name="x", datatype=datatype, shape=(-1, *tail), missing=missing, **bounds)
    return field, column.reshape(rows, *tail)


@given(fields_and_columns())
def test_the_quick_look_is_false_exactly_where_a_walk_finds_something(given_: tuple[Field, Any]) -> None:
    field, column = given_
    found = [value_problem(field, column[row], row) for row in range(len(column))]
    assert _quick_check(field)(column) == (not any(found))


@given(fields_and_columns())
def test_every_row_that_a_walk_finds_is_flagged_or_refused(given_: tuple[Field, Any]) -> None:
    field, column = given_
    found = [problem for row in range(len(column)) if (problem := value_problem(field, column[row], row))]
    check = validator("flag", field).check
    hard = [problem for problem in found if problem.code not in ("CL-E108", "CL-E109")]
    if hard:
        with pytest.raises(InputError) as raised:
            check({"x": column})
        assert [one["row"] for one in raised.value.details] == [problem.row for problem in hard]
    else:
        assert [(flag.row, flag.code) for flag in check({"x": column})] == [
            (problem.row, problem.code) for problem in found
        ]


def test_a_misspelt_input_is_told_beside_the_one_that_was_meant() -> None:
    columns = good()
    columns["payy"] = columns.pop("pay")
    error = refusal(columns)
    assert "did you mean `pay` for `payy`?" in error.message
    assert "one of the inputs: " in (error.hint or "")
