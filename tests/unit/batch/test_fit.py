"""Values by a signature: what fits is an array of its type, what does not is named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cloche.batch.fit import fit
from cloche.batch.sources import ABSENT, Chunk
from cloche.core.errors import InputError
from cloche.core.signature import Field, Signature


def signature(datatype: str, *tail: int, missing: bool = False) -> Signature:
    return Signature(
        inputs=(Field(name="x", datatype=datatype, shape=(-1, *tail), missing=missing),),
        outputs=(Field(name="value", datatype="FP32", shape=(-1,)),),
    )


@pytest.mark.parametrize(
    ("datatype", "text", "value"),
    [
        ("FP64", "1.5", 1.5),
        ("FP64", " 2e3", 2000.0),
        ("FP64", "", math.nan),  # missing: whether that is allowed is the engine's to say
        ("FP64", "null", math.nan),
        ("INT64", "41", 41),
        ("INT64", "41.0", 41),  # as a frame writes whole numbers that had gaps
        ("BOOL", "True", True),
        ("BOOL", "0", False),
        ("BYTES", "41", "41"),
        ("BYTES", "", ""),
    ],
)
def test_a_text_is_read_by_the_field(datatype: str, text: str, value: Any) -> None:
    fitted = fit(Chunk(1, {"x": [text]}, 1), signature(datatype), texts=True)
    assert fitted.problems == {}
    assert fitted.inputs["x"].dtype == signature(datatype).inputs[0].numpy_type
    np.testing.assert_equal(fitted.inputs["x"][0], value)


def test_an_empty_text_is_missing_where_the_field_may_miss() -> None:
    fitted = fit(Chunk(1, {"x": [""]}, 1), signature("BYTES", missing=True), texts=True)
    assert fitted.inputs["x"].tolist() == [None]


@pytest.mark.parametrize(
    ("datatype", "value", "code"),
    [
        ("FP64", "1_000", "CL-E105"),  # a number in Python only
        ("FP64", "٣", "CL-E105"),
        ("INT64", "4.5", "CL-E105"),
        ("INT8", "300", "CL-E105"),
        ("INT64", "", "CL-E106"),
        ("INT64", "inf", "CL-E105"),
        ("BOOL", "maybe", "CL-E105"),
        ("BOOL", "", "CL-E106"),
    ],
)
def test_a_text_that_does_not_fit_is_named_with_its_row(datatype: str, value: str, code: str) -> None:
    good = {"BOOL": "true"}.get(datatype, "1")
    fitted = fit(Chunk(1, {"x": [good, value]}, 2), signature(datatype), texts=True)
    [[problem]] = fitted.problems.values()
    assert (problem.row, problem.field, problem.code) == (1, "x", code)


@pytest.mark.parametrize(
    ("datatype", "value", "code"),
    [("FP64", "1", "CL-E105"), ("FP64", True, "CL-E105"), ("FP64", 10**400, "CL-E105"), ("BYTES", 1, "CL-E105"),
     ("BOOL", 1, "CL-E105"), ("INT64", 2.5, "CL-E105"), ("INT64", ABSENT, "CL-E104")],
)  # fmt: skip
def test_a_value_of_json_is_not_read_as_another_type(datatype: str, value: Any, code: str) -> None:
    fitted = fit(Chunk(1, {"x": [value]}, 1), signature(datatype), texts=False)
    assert [problem.code for problem in fitted.problems[0]] == [code]


def test_an_array_a_row_is_a_list_in_json_and_json_in_csv() -> None:
    for texts, values in ((False, [[1, 2], [3, 4], [5], "no"]), (True, ["[1, 2]", "[3, 4]", "[5]", "no"])):
        fitted = fit(Chunk(1, {"x": values}, 4), signature("FP32", 2), texts=texts)
        assert fitted.inputs["x"][:2].tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert set(fitted.problems) == {2, 3}


def test_columns_of_numbers_are_the_one_array_that_the_model_takes() -> None:
    fitted = fit(Chunk(1, {"a": ["1"], "b": ["2"]}, 1), signature("FP32", 2), texts=True)
    assert fitted.inputs["x"].tolist() == [[1.0, 2.0]]
    assert fitted.carried == {}


def test_other_columns_are_carried_over() -> None:
    fitted = fit(Chunk(1, {"id": ["7"], "x": ["1"]}, 1), signature("FP64"), texts=True)
    assert fitted.carried == {"id": ["7"]}


def test_a_column_that_is_not_there_ends_it_at_once() -> None:
    with pytest.raises(InputError, match="no column `x`") as caught:
        fit(Chunk(1, {"id": ["7"]}, 1), signature("FP64"), texts=True)
    assert caught.value.code == "CL-E104"
