"""What a model class's `predict` gives back, as columns: lists, arrays, columns by name, or rows with fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from cloche.core.errors import ModelError
from cloche.core.signature import FLOATS, INTEGERS, Array, Columns, Field, Signature

VALUE = "value"


def read_answer(answer: Any) -> Columns:
    """Columns from what `predict` returned.

    A mapping or a data frame is columns by name; a list of mappings, dataclasses, named tuples or structs is
    rows with fields; any other list or array is the one column `value`. Raises ModelError otherwise.
    """
    if isinstance(answer, Mapping):
        return {str(name): to_array(column, name) for name, column in answer.items()}
    if hasattr(answer, "columns") and hasattr(answer, "__getitem__"):  # a data frame of any library
        return {str(name): to_array(answer[name], name) for name in answer.columns}
    if isinstance(answer, (list, tuple)) and answer and (fields := _fields(answer[0])) is not None:
        return _turn(answer, fields)
    return {VALUE: to_array(answer, VALUE)}


def _fields(row: Any) -> tuple[str, ...] | None:
    """The names of a row's fields; None for a plain value."""
    if isinstance(row, Mapping):
        return tuple(str(name) for name in row)
    if dataclasses.is_dataclass(row):
        return tuple(field.name for field in dataclasses.fields(row))
    if isinstance(row, tuple) and hasattr(row, "_fields"):
        return tuple(row._fields)
    if isinstance(row, msgspec.Struct):
        return row.__struct_fields__
    return None


def _turn(rows: Sequence[Any], fields: tuple[str, ...]) -> Columns:
    columns: dict[str, list[Any]] = {name: [] for name in fields}
    for number, row in enumerate(rows):
        if _fields(row) != fields and set(_fields(row) or ()) != set(fields):
            raise ModelError(f"row {number} of the answer has other fields than row 0", code="CL-E901")
        for name, column in columns.items():
            column.append(row[name] if isinstance(row, Mapping) else getattr(row, name))
    return {name: to_array(column, name) for name, column in columns.items()}


def to_array(values: Any, name: object) -> Array:
    """One column: numbers as numpy types, text as objects with None for what is missing.

    Raises ModelError for what is no sequence, has rows of several lengths or holds other things.
    """
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise ModelError(
            f"predict gave {name!r} as {type(values).__name__}; it gives one value a row, in a list or array",
            code="CL-E901",
        )
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ModelError(f"predict gave {name!r} with rows of several lengths", code="CL-E901") from error
    if array.ndim == 0:
        raise ModelError(f"predict gave {name!r} as {type(values).__name__}", code="CL-E901")
    if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
        return array
    if array.dtype.kind in "UTS":
        # numpy turns a list of text and numbers into text: only what was text before may be text now
        return _objects(np.asarray(values, dtype=object), name)
    if array.dtype == object:
        return _objects(array, name)
    raise ModelError(f"predict gave {name!r} with values of the type {array.dtype}", code="CL-E901")


def _objects(array: Array, name: object) -> Array:
    # data frames write a missing text as NaN
    if any(isinstance(value, str) for value in array.flat):
        array = _each(array, lambda value: None if value != value else value)
    kinds = {type(value) for value in array.flat}
    if all(issubclass(kind, (str, type(None))) for kind in kinds):
        return array if kinds <= {str, type(None)} else _each(array, _plain)
    if all(issubclass(kind, (int, float, np.integer, np.floating, type(None))) for kind in kinds):
        return array.astype(np.float64)  # None becomes NaN
    raise ModelError(
        f"predict gave {name!r} with values of {', '.join(sorted(kind.__name__ for kind in kinds))}",
        code="CL-E901",
    )


def _plain(text: str | None) -> str | None:
    """`str` in place of its subclasses, numpy's among them."""
    return None if text is None else str(text)


def _each(array: Array, change: Callable[[Any], Any]) -> Array:
    changed = np.empty(array.size, dtype=object)
    changed[:] = [change(value) for value in array.flat]
    return changed.reshape(array.shape)


def to_outputs(answer: Columns, signature: Signature) -> Columns:
    """The signature's outputs from an answer, in its order and types. Raises ModelError CL-E901."""
    names = [field.name for field in signature.outputs]
    if set(names) != set(answer):
        raise ModelError(
            f"predict gave {', '.join(answer) or 'nothing'}; it gives {', '.join(names)}", code="CL-E901"
        )
    return {field.name: fit(answer[field.name], field) for field in signature.outputs}


def fit(array: Array, field: Field) -> Array:
    """The column in the field's type and shape, where that loses nothing. Raises ModelError CL-E901."""
    shape = field.shape
    if array.ndim != len(shape) or any(
        wanted not in (-1, given) for wanted, given in zip(shape[1:], array.shape[1:], strict=True)
    ):
        raise ModelError(
            f"predict gave {field.name!r} with the shape {list(array.shape)}, not {list(shape)}",
            code="CL-E901",
        )
    if array.dtype == field.numpy_type:
        return np.ascontiguousarray(array)
    kind = array.dtype.kind
    has_no_text = kind == "O" and all(value is None for value in array.flat)
    if field.datatype in FLOATS and (kind in "iuf" or has_no_text):  # None becomes NaN
        return np.ascontiguousarray(array, dtype=field.numpy_type)
    if field.datatype in INTEGERS and (kind in "iu" or (kind == "f" and not array.size)):
        info = np.iinfo(field.numpy_type)
        if not array.size or (int(array.min()) >= info.min and int(array.max()) <= info.max):
            return np.ascontiguousarray(array, dtype=field.numpy_type)
    if not array.size:
        return np.empty(array.shape, dtype=field.numpy_type)
    raise ModelError(f"predict gave {field.name!r} as {array.dtype}, not as {field.datatype}", code="CL-E901")
