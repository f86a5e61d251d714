"""Whatever form `predict` answers in becomes columns of the signature's types, or an error that says why."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pytest

from cloche.core.errors import ModelError
from cloche.core.signature import Field, Signature
from cloche.runtimes.answers import fit, read_answer, to_outputs


@dataclasses.dataclass
class Score:
    label: str
    score: float


class Pair(NamedTuple):
    label: str
    score: float


class Struct(msgspec.Struct):
    label: str
    score: float


def plain(answer: Any) -> dict[str, list[Any]]:
    return {name: column.tolist() for name, column in read_answer(answer).items()}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"label": ["a", "b"], "score": [1.0, 2.0]}, id="columns"),
        pytest.param([{"label": "a", "score": 1.0}, {"score": 2.0, "label": "b"}], id="mappings"),
        pytest.param([Score("a", 1.0), Score("b", 2.0)], id="dataclasses"),
        pytest.param([Pair("a", 1.0), Pair("b", 2.0)], id="named tuples"),
        pytest.param([Struct("a", 1.0), Struct("b", 2.0)], id="structs"),
        pytest.param(pd.DataFrame({"label": ["a", "b"], "score": [1.0, 2.0]}), id="a data frame"),
    ],
)
def test_columns_by_name_and_rows_with_fields_are_the_same(answer: Any) -> None:
    assert plain(answer) == {"label": ["a", "b"], "score": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ([1, 2], np.int64),
        ([1, 2.5], np.float64),
        ([1.5, None], np.float64),
        ([True, False], np.bool_),
        (["a", None], object),
        ((1.0, 2.0), np.float64),
        (np.array([1, 2], dtype=np.int32), np.int32),
        (np.array(["a", "b"]), object),
        (pd.Series(["a", None]), object),
        (pd.Series([1.0, 2.0]), np.float64),
        ([np.float32(1), np.float32(2)], np.float32),
        ([np.str_("a"), "b"], object),
    ],
)
def test_one_value_a_row_is_the_column_value(answer: Any, kind: Any) -> None:
    columns = read_answer(answer)

    assert list(columns) == ["value"]
    assert columns["value"].dtype == kind
    assert len(columns["value"]) == 2
    if kind is object:
        assert {type(value) for value in columns["value"]} <= {str, type(None)}


def test_a_list_a_row_is_a_table() -> None:
    assert read_answer([[1.0, 2.0], [3.0, 4.0]])["value"].shape == (2, 2)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("text", "'value' as str"),
        (None, "'value' as NoneType"),
        (3.5, "'value' as float"),
        ([["a"], ["b", "c"]], "several lengths"),
        (["a", 1], "values of int, str"),
        ([object()], "values of object"),
        ([b"bytes"], "values of bytes"),
        (np.array(["2026-01-01"], dtype="datetime64[D]"), "datetime64"),
        ([{"a": 1}, {"b": 1}], "row 1 of the answer has other fields"),
        (iter([1]), "'value' as list_iterator"),
    ],
)
def test_what_is_no_column_is_refused_in_words(answer: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        read_answer(answer)
    assert caught.value.code == "CL-E901"


def field(datatype: str, shape: tuple[int, ...] = (-1,)) -> Field:
    return Field(name="value", datatype=datatype, shape=shape)


@pytest.mark.parametrize(
    ("given", "datatype"),
    [
        (np.array([1, 2]), "FP64"),
        (np.array([1, 2]), "FP32"),
        (np.array([1, 2], dtype=np.int32), "INT64"),
        (np.array([1, 2]), "UINT8"),
        (np.array([]), "BYTES"),
    ],
)
def test_a_column_is_widened_where_that_loses_nothing(given: Any, datatype: str) -> None:
    column = fit(given, field(datatype))

    assert column.dtype == field(datatype).numpy_type
    assert column.tolist() == given.tolist()


def test_one_row_without_an_answer_is_as_one_among_others() -> None:
    """A list with nothing but None has no number in it that would say of which type it is."""
    alone = fit(read_answer([None])["value"], field("FP64"))
    among = fit(read_answer([None, 1.0])["value"], field("FP64"))

    assert alone.dtype == among.dtype
    assert np.isnan(alone[0])
    assert np.isnan(among[0])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.array([1.5]), field("INT64")),
        (np.array([300]), field("UINT8")),
        (np.array([-1]), field("UINT64")),
        (np.array(["1"], dtype=object), field("FP64")),
        (np.array([1.0]), field("BYTES")),
        (np.array([1]), field("BOOL")),
        (np.zeros((2, 3)), field("FP64")),
        (np.zeros((2, 3)), field("FP64", (-1, 4))),
    ],
)
def test_a_column_that_would_lose_something_is_refused(given: Any, wanted: Field) -> None:
    with pytest.raises(ModelError):
        fit(given, wanted)


def test_outputs_come_in_the_signatures_order_and_all_of_them() -> None:
    signature = Signature(
        inputs=(),
        outputs=(
            Field(name="a", datatype="FP64", shape=(-1,)),
            Field(name="b", datatype="INT64", shape=(-1,)),
        ),
    )
    one = np.array([1])

    assert list(to_outputs({"b": one, "a": one}, signature)) == ["a", "b"]
    with pytest.raises(ModelError, match="predict gave a; it gives a, b"):
        to_outputs({"a": one}, signature)
    with pytest.raises(ModelError, match="predict gave a, b, c"):
        to_outputs({"a": one, "b": one, "c": one}, signature)
