"""Rows in every form that people hold them become the same columns."""

from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.bundle.rows import draw_rows, infer_fields, is_frame, to_columns
from cloche.core.errors import InputError
from cloche.core.signature import Field, Signature
from cloche.serving.protocols.rows import RowReader

ROWS = [
    {"age": 30, "fare": 1.5, "port": "S", "adult": True},
    {"age": 40, "fare": None, "port": None, "adult": False},
]


def signature(*fields: tuple[str, str, tuple[int, ...]]) -> Signature:
    return Signature(inputs=tuple(Field(name=n, datatype=d, shape=s) for n, d, s in fields), outputs=())


def check_passengers(columns: dict[str, Any]) -> None:
    assert list(columns) == ["age", "fare", "port", "adult"]
    assert columns["age"].dtype == np.int64 and columns["age"].tolist() == [30, 40]
    np.testing.assert_array_equal(columns["fare"], [1.5, np.nan])
    assert columns["port"].dtype == object and columns["port"].tolist() == ["S", None]
    assert columns["adult"].dtype == np.bool_


@pytest.mark.parametrize(
    "form",
    [
        lambda: ROWS,
        lambda: {name: [row[name] for row in ROWS] for name in ROWS[0]},
        lambda: pd.DataFrame(ROWS),
        lambda: pd.DataFrame(ROWS).convert_dtypes(),
        lambda: pd.DataFrame(ROWS).astype({"port": "category"}),
        lambda: pa.Table.from_pylist(ROWS),
    ],
    ids=["dicts", "dict", "pandas", "pandas nullable", "pandas category", "pyarrow"],
)
def test_named_rows_of_every_form_are_the_same_columns(form) -> None:
    check_passengers(to_columns(form()))


def test_an_array_is_one_column_x_as_it_is() -> None:
    for dtype, kept in (
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.int32, np.int64),
        (np.bool_, np.bool_),
    ):
        columns = to_columns(np.ones((3, 2), dtype))
        assert columns["x"].dtype == kept and columns["x"].shape == (3, 2)
    assert to_columns([["a", "b"]])["x"].tolist() == [["a", "b"]]


def test_a_signature_tells_what_an_array_means() -> None:
    array = np.array([[1, 2], [3, 4]])
    two = to_columns(array, signature(("a", "FP64", (-1,)), ("b", "INT64", (-1,))))
    assert two["a"].dtype == np.float64 and two["b"].tolist() == [2, 4]
    one = to_columns(array, signature(("pixels", "FP32", (-1, 2))))
    assert one["pixels"].dtype == np.float32
    frame = to_columns(pd.DataFrame(array), signature(("pixels", "FP32", (-1, 2))))
    assert frame["pixels"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_a_dict_of_series_is_a_dict_of_columns() -> None:
    columns = to_columns({"a": pd.Series([1, 2]), "b": pd.Series(["x", None])})
    assert columns["a"].tolist() == [1, 2] and columns["b"].tolist() == ["x", None]


@pytest.mark.parametrize("given", [[1.1, 1e-46, 2**24 + 1], np.array([0.1, 1.0, np.pi])])
def test_floats_are_rounded_to_the_model_s_width_as_over_http(given: Any) -> None:
    wish = signature(("f", "FP32", (-1,)))
    over_http, _ = RowReader(wish).read(json.dumps([{"f": float(value)} for value in given]).encode())
    np.testing.assert_array_equal(to_columns({"f": given}, wish)["f"], over_http["f"])


def test_a_float_beyond_the_model_s_width_is_refused_by_row_as_over_http() -> None:
    wish = signature(("f", "FP32", (-1,)))
    with pytest.raises(InputError, match=r"1e.300 in row 1") as caught:
        to_columns({"f": [1.0, 1e300]}, wish)
    assert caught.value.code == "CL-E105" and caught.value.hint == "expected a number that fits FP32"
    with pytest.raises(InputError, match="does not fit FP32"):
        RowReader(wish).read(b'[{"f": 1.0}, {"f": 1e300}]')
    assert np.isinf(to_columns({"f": [np.inf]}, wish)["f"]).all()  # the engine's to refuse


def test_types_are_widened_only_where_nothing_is_lost() -> None:
    wish = signature(("n", "INT8", (-1,)), ("f", "FP64", (-1,)))
    assert to_columns({"n": [1, 2], "f": [1, 2]}, wish)["n"].dtype == np.int8
    assert to_columns({"n": [1.0, 2.0], "f": [1, 2]}, wish)["n"].dtype == np.int8
    np.testing.assert_array_equal(to_columns({"n": [1], "f": [None]}, wish)["f"], [np.nan])


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ([1.0, 2.0, None], "CL-E106", "`n` is missing in row 2"),
        ([1.0, 2.5], "CL-E105", "`n` is 2.5 in row 1"),
        ([1, 300], "CL-E105", "`n` is 300 in row 1"),
        ([1e300], "CL-E105", "`n` is 1e.300 in row 0"),
        (["many", "few"], "CL-E105", "`n` is 'many' in row 0"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_row(values: list[Any], code: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        to_columns({"n": values}, signature(("n", "INT8", (-1,))))
    assert caught.value.code == code and "expected a whole number" in (caught.value.hint or "")


def test_names_are_left_to_the_engine() -> None:
    columns = to_columns({"m": ["x"]}, signature(("n", "INT64", (-1,))))
    assert list(columns) == ["m"]


def test_a_list_of_texts_is_told_to_be_a_frame() -> None:
    with pytest.raises(InputError) as caught:
        to_columns(["good", "bad"])
    assert "frame with one column" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"a": [1, "x"]}, "column 'a' mixes int, str"),
        ({"a": [datetime.date(2026, 1, 1)]}, "'a'"),
        (pd.DataFrame({"t": pd.to_datetime(["2026-01-01"])}), "'t' holds dates"),
        ({"a": [1], "b": [1, 2]}, "different lengths"),
        ([1.0, 2.0], "rows must have two axes"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "same name"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "two columns, 1, have the same name"),
        ({1: [0], "1": [0]}, "two columns, 1, have the same name"),
        ({"a": [2**63]}, "'a' holds whole numbers beyond INT64"),
        ({"a": np.array([2**64 - 1], np.uint64)}, "'a' holds whole numbers beyond INT64"),
        ({"a": [[1, 2], [3]]}, "'a' holds list, which no signature has"),
        ({"a": [b"x"]}, "'a' has the type"),
        ({"a": [{"b": 1}]}, "'a' holds dict"),
        (pd.DataFrame({"a": pd.period_range("2026-01", periods=2)}), "'a' holds Period"),
        (np.array([[1 + 2j]]), "complex"),
    ],
)
def test_what_no_signature_has_is_refused_by_name(rows: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        to_columns(rows)


def test_frames_are_told_from_arrays() -> None:
    assert is_frame(pd.DataFrame({"a": [1]})) and is_frame(pa.table({"a": [1]}))
    assert not is_frame(np.ones((2, 2))) and not is_frame([{"a": 1}])


def test_fields_are_inferred_from_the_rows() -> None:
    assert [(f.name, f.datatype, f.shape) for f in infer_fields(ROWS)] == [
        ("age", "INT64", (-1,)),
        ("fare", "FP64", (-1,)),
        ("port", "BYTES", (-1,)),
        ("adult", "BOOL", (-1,)),
    ]
    assert infer_fields(np.ones((2, 3), np.float32))[0].shape == (-1, 3)


def test_drawn_rows_lie_within_the_signature() -> None:
    wish = Signature(
        inputs=(
            Field(name="a", datatype="INT64", shape=(-1,), minimum=3, maximum=5),
            Field(name="b", datatype="BYTES", shape=(-1,), categories=("x", "y")),
            Field(name="c", datatype="FP32", shape=(-1, 3, -1)),
            Field(name="d", datatype="BOOL", shape=(-1,)),
        ),
        outputs=(),
    )
    drawn = draw_rows(wish, 50, seed=1)
    assert drawn["a"].dtype == np.int64 and drawn["a"].min() >= 3 and drawn["a"].max() <= 5
    assert set(drawn["b"]) == {"x", "y"}
    assert drawn["c"].shape == (50, 3, 4) and drawn["c"].dtype == np.float32
    assert drawn["d"].dtype == np.bool_
    assert draw_rows(wish, 50, seed=1)["a"].tolist() == drawn["a"].tolist()


@given(st.lists(st.one_of(st.none(), st.text(max_size=5)), min_size=1, max_size=20))
def test_strings_survive_as_they_are(texts: list[str | None]) -> None:
    column = to_columns({"t": texts})["t"]
    assert column.tolist() == texts
    assert column.shape == (len(texts),)
