"""A model's signature (names, types, shapes) and the columns that flow through it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

#: What flows between a dialect, the engine and a runtime: name -> array; the first axis is rows. Numbers are
#: numpy's own types; BYTES is an object array of `str`, with `None` where a value is missing; a missing
#: number is NaN.
Columns: TypeAlias = dict[str, Array]

#: The Open Inference Protocol's datatypes that Cloche serves, and numpy's.
NUMPY_TYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}

FLOATS = frozenset({"FP16", "FP32", "FP64"})
INTEGERS = frozenset({"UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"})


class Field(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A Field is one input or output: its name, datatype, shape and what the data showed of it."""

    name: str
    #: One of NUMPY_TYPES.
    datatype: str
    #: -1 stands for any number; the first is rows.
    shape: tuple[int, ...]
    #: A null (NaN in binary) is a legal value.
    missing: bool = False
    #: Smallest and largest finite value that was seen; None where it does not apply.
    minimum: float | None = None
    maximum: float | None = None
    #: Every value that was seen, where there were few (BYTES and BOOL inputs).
    categories: tuple[str, ...] | None = None
    #: For `label` and `probabilities`: the names of the classes, in the order of the columns.
    classes: tuple[str, ...] | None = None

    @property
    def numpy_type(self) -> np.dtype[Any]:
        return NUMPY_TYPES[self.datatype]

    @property
    def takes_null(self) -> bool:
        """Whether a null can be a value: an array of integers or booleans has no place for one."""
        return self.missing and (self.datatype in FLOATS or self.datatype == "BYTES")

    def nulls(self, rows: int) -> Array:
        """A column of so many nulls."""
        shape = (rows, *(max(size, 0) for size in self.shape[1:]))
        return np.full(shape, None if self.datatype == "BYTES" else np.nan, self.numpy_type)


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """A Signature is what goes into a model and what comes out, in order."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]

    def input(self, name: str) -> Field | None:
        return next((field for field in self.inputs if field.name == name), None)

    def output(self, name: str) -> Field | None:
        return next((field for field in self.outputs if field.name == name), None)


def count_rows(columns: Columns) -> int:
    """The number of rows; all columns have as many (the engine has checked it)."""
    for column in columns.values():
        return int(column.shape[0])
    return 0


def row_numbers(columns: Columns) -> int:
    """How many values one row has in all columns together."""
    return sum(math.prod(column.shape[1:]) for column in columns.values())


def take_rows(columns: Columns, start: int, stop: int) -> Columns:
    return {name: column[start:stop] for name, column in columns.items()}


def join_rows(parts: list[Columns]) -> Columns:
    """The rows of all parts, in order; every part has the same columns."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
