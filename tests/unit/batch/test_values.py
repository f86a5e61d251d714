"""An Arrow column becomes what the same values in a list become, and has the same problems."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cloche.batch.fit import fit
from cloche.batch.sources import Chunk
from cloche.batch.values import fit_arrow
from cloche.core.signature import FLOATS, INTEGERS, NUMPY_TYPES, Field, Signature

COLUMNS: dict[str, Any] = {
    "double": pa.array([1.5, -2.0, 3.0, None, float("nan"), float("inf"), 1e300, 2.0**63, -(2.0**63)]),
    "whole doubles": pa.array([0.0, 7.0, -1.0, 300.0, 65536.0]),
    "float": pa.array([1.5, 16777217.0, None], pa.float32()),
    "half": pa.array(np.float16([1.5, 2, 3])),
    "int64": pa.array([0, -1, 2**53 + 1, 2**63 - 1, -(2**63), None, 255, 16777217]),
    "int8": pa.array([1, -128, 127], pa.int8()),
    "uint64": pa.array([0, 2**64 - 1, 2**63, None], pa.uint64()),
    "uint8": pa.array([0, 255], pa.uint8()),
    "bool": pa.array([True, False, None]),
    "string": pa.array(["a", None, "", "ü"]),
    "large": pa.array(["a", None], pa.large_string()),
    "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
    "timestamp": pa.array([1, None], pa.timestamp("us")),
    "empty": pa.array([], pa.float64()),
    "nulls": pa.nulls(2),
    "slice": pa.array([9.0, 1.0, None, 3.0]).slice(1, 2),
}


@pytest.mark.parametrize("datatype", NUMPY_TYPES)
@pytest.mark.parametrize("name", COLUMNS)
def test_an_arrow_column_fits_as_its_values_do(name: str, datatype: str) -> None:
    field = Field(name="x", datatype=datatype, shape=(-1,), missing=True)
    signature = Signature(inputs=(field,), outputs=(field,))
    column = COLUMNS[name]

    fitted = fit(Chunk(1, {"x": column}, len(column)), signature, texts=False)
    expected = fit(Chunk(1, {"x": column.to_pylist()}, len(column)), signature, texts=False)

    assert fitted.problems == expected.problems
    good = [row for row in range(len(column)) if row not in expected.problems]
    assert fitted.inputs["x"].dtype == expected.inputs["x"].dtype
    np.testing.assert_array_equal(fitted.inputs["x"][good], expected.inputs["x"][good])


def test_numbers_booleans_and_texts_are_not_looked_at_one_by_one() -> None:
    def quick(name: str, datatype: str) -> bool:
        return fit_arrow(COLUMNS[name], Field(name="x", datatype=datatype, shape=(-1,))) is not None

    assert all(quick("int64", datatype) and quick("double", datatype) for datatype in FLOATS | INTEGERS)
    assert quick("bool", "BOOL")
    assert quick("string", "BYTES")
