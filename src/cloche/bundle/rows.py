"""Rows as people hold them (frames, arrays, dicts) as columns, and columns drawn at random."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import numpy.typing as npt

from cloche.core.errors import ConfigError, InputError
from cloche.core.signature import FLOATS, INTEGERS, Array, Columns, Field, Signature, count_rows
from cloche.core.words import listed

#: The name of the one input of a model that was given an array.
ARRAY_INPUT = "x"

_TYPES = "give each column one type: numbers, strings or booleans"
_BEYOND_INT64 = 2**63
_DATATYPES = {np.dtype(np.bool_): "BOOL", np.dtype(np.float16): "FP16", np.dtype(np.float32): "FP32"}


def to_columns(data: object, signature: Signature | None = None) -> Columns:
    """The rows as columns: integers as int64, floats as given, strings as objects with None where missing.

    A frame, a dict of sequences or a list of dicts gives one column a name, of shape (n,), or where the
    signature has one input of k numbers, that; an array of shape (n, k) gives one column `x`, or where the
    signature has k inputs of one value, one for each; a list of texts is the one input of text that it has.
    With a signature, types become its own as they do over HTTP: 3.0 is a whole number, and a float is rounded
    to the width that the model takes. Raises InputError for what can't be columns at all, and for the first
    value that is of another type, by row; names and whatever else does not fit are left for the engine to
    refuse.
    """
    columns = _named(data)
    if columns is None:
        array = clean(ARRAY_INPUT, np.asarray(data))
        if array.ndim == 1 and (text := _only_text(signature)) is not None:
            columns = {text: array}
        elif array.ndim < 2:
            raise InputError(
                f"rows must have two axes, these have {array.ndim}",
                code="CL-E110",
                hint="give a frame with one column, named as at fit"
                if array.dtype == object
                else "give one row as [[...]], many as an array of shape (rows, columns)",
            )
        else:
            columns = _spread(array, signature)
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise InputError(f"the columns have different lengths: {sorted(lengths)}", code="CL-E110")
    if signature is None:
        return columns
    columns = _stack(columns, signature)
    widened = {name: _widen(column, signature.input(name)) for name, column in columns.items()}
    if widened.keys() == {field.name for field in signature.inputs}:
        for field in signature.inputs:
            _check_type(field, widened[field.name])
    return widened


def _only_text(signature: Signature | None) -> str | None:
    """The name of the one input of a signature, where it is a string a row."""
    inputs = () if signature is None else signature.inputs
    is_text = len(inputs) == 1 and inputs[0].datatype == "BYTES" and len(inputs[0].shape) == 1
    return inputs[0].name if is_text else None


def require_rows(columns: Columns) -> None:
    """Raises ConfigError CL-E204 where there is no row."""
    if not count_rows(columns):
        raise ConfigError("there are no rows", code="CL-E204", hint="give at least one row")


def is_frame(data: object) -> bool:
    """Whether narwhals knows it as a data frame. Raises InputError where two of its columns have one name."""
    return isinstance(_wrap(data), nw.DataFrame)


def _wrap(data: object) -> Any:
    """A frame as narwhals' own, anything else as it is."""
    try:
        return nw.from_native(data, eager_only=True, pass_through=True)
    except nw.exceptions.DuplicateError:
        raise _one_name("two columns") from None


def _one_name(what: str) -> InputError:
    words = f"{what} have the same name"
    return InputError(words, code="CL-E105", hint="give each column a name of its own")


def infer_fields(data: object) -> tuple[Field, ...]:
    """One Field a column, of its type and shape; any number of rows."""
    return tuple(
        Field(name=name, datatype=datatype_of(column), shape=(-1, *column.shape[1:]))
        for name, column in to_columns(data).items()
    )


def datatype_of(column: Array) -> str:
    """The signature's name for a clean column's type."""
    if column.dtype.kind in "iu":
        return "INT64"
    if column.dtype.kind == "O":
        return "BYTES"
    return _DATATYPES.get(column.dtype, "FP64")


def draw_rows(signature: Signature, n: int, seed: int = 0) -> Columns:
    """`n` rows drawn within the signature: its ranges and categories where it has them.

    Axes of any size get four entries.
    """
    generator = np.random.default_rng(seed)
    return {field.name: _draw(field, n, generator) for field in signature.inputs}


def _draw(field: Field, n: int, generator: np.random.Generator) -> Array:
    shape = (n, *(4 if size == -1 else size for size in field.shape[1:]))
    if field.datatype == "BOOL":
        return generator.integers(0, 2, shape).astype(np.bool_)
    if field.datatype == "BYTES":
        words = np.array(field.categories or ("a", "b", "c", "a longer text"), dtype=object)
        return words[generator.integers(0, len(words), shape)]
    if field.minimum is not None and field.maximum is not None:
        drawn = generator.uniform(field.minimum, field.maximum, shape)
    elif field.datatype in INTEGERS:
        drawn = generator.uniform(0, 10, shape)
    else:
        drawn = generator.standard_normal(shape)
    if field.datatype in INTEGERS:
        drawn = np.floor(drawn)
    return drawn.astype(field.numpy_type)


def _named(data: object) -> Columns | None:
    """The columns of whatever has names; None for arrays and lists of lists."""
    frame = _wrap(data)
    if isinstance(frame, nw.DataFrame):
        names = _as_texts(frame.columns)
        return {name: _from_series(name, each) for name, each in zip(names, frame.iter_columns(), strict=True)}
    if isinstance(data, Sequence) and data and all(isinstance(row, Mapping) for row in data):
        data = {
            name: [row.get(name) for row in data] for name in dict.fromkeys(name for row in data for name in row)
        }
    if isinstance(data, Mapping):
        names = _as_texts(data)
        return {name: clean(name, as_array(each)) for name, each in zip(names, data.values(), strict=True)}
    if isinstance(data, (str, Path)):
        raise InputError(
            f"the rows are the text {str(data)[:80]!r}",
            code="CL-E105",
            hint="read the file first, or use the command: cloche pack … --data FILE",
        )
    if hasattr(data, "toarray"):
        raise InputError("sparse rows are not taken", code="CL-E105", hint="give rows.toarray()")
    return None


def _as_texts(names: Iterable[object]) -> list[str]:
    """Names as texts. Raises InputError where two are one then, as 1 and "1" are."""
    texts = [str(name) for name in names]
    if len(set(texts)) < len(texts):
        twice = [text for text, count in Counter(texts).items() if count > 1]
        raise _one_name(f"two columns, {listed(twice)},")
    return texts


def as_array(values: Any) -> Array:
    """An array that keeps None beside strings and numbers apart from strings; one value is an array of one."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        return np.atleast_1d(np.asarray(values))
    kinds = {type(item) for item in values}
    if type(None) not in kinds and len(kinds) <= 1:
        with contextlib.suppress(ValueError):  # lists of different lengths
            return np.asarray(values)
    return _objects(values)


def _objects(items: Sequence[Any]) -> Array:
    return np.fromiter(items, dtype=object, count=len(items))


def _from_series(name: str, series: nw.Series[Any]) -> Array:
    dtype = series.dtype
    if dtype.is_numeric() and not dtype.is_decimal():
        if dtype.is_integer() and series.null_count():
            series = series.cast(nw.Float64)
        if dtype.is_float() and series.null_count():
            return np.array(
                [np.nan if is_missing(item) else item for item in series.to_list()], dtype=_float_of(dtype)
            )
        return clean(name, series.to_numpy())
    if dtype == nw.Boolean and not series.null_count():
        return clean(name, series.to_numpy())
    return clean(name, _objects(series.to_list()))


def _float_of(dtype: Any) -> type[np.floating[Any]]:
    return np.float32 if dtype == nw.Float32 else np.float64


def clean(name: str, array: Array) -> Array:
    """The array in one of the signature's types. Raises InputError for dates, mixtures and the like."""
    kind = array.dtype.kind
    if kind in "mM":
        raise _no_dates(name)
    if kind in "iu":
        if kind == "u" and array.size and int(array.max()) >= _BEYOND_INT64:
            raise _too_large(name)
        return array.astype(np.int64)
    if kind == "b" or (kind == "f" and array.dtype.itemsize <= 8):
        return array
    if kind == "U":
        return array.astype(object)
    if kind == "O":
        return _clean_objects(name, array)
    raise InputError(
        f"column {name!r} has the type {array.dtype}, which no signature has", code="CL-E105", hint=_TYPES
    )


def _clean_objects(name: str, array: Array) -> Array:
    flat: list[Any] = [None if is_missing(item) else item for item in array.ravel().tolist()]
    kinds = {type(item) for item in flat if item is not None}
    if all(issubclass(kind, str) for kind in kinds):
        return _objects([item if item is None else str(item) for item in flat]).reshape(array.shape)
    if kinds == {bool} and None not in flat:
        return np.array(flat, dtype=np.bool_).reshape(array.shape)
    if all(issubclass(kind, (int, np.integer)) and kind is not bool for kind in kinds) and None not in flat:
        if any(not -_BEYOND_INT64 <= item < _BEYOND_INT64 for item in flat):
            raise _too_large(name)
        return np.array(flat, dtype=np.int64).reshape(array.shape)
    if all(issubclass(kind, (int, float, np.number)) for kind in kinds):
        numbers = [np.nan if item is None else float(item) for item in flat]
        return np.array(numbers, dtype=np.float64).reshape(array.shape)
    if any(issubclass(kind, (date, time, timedelta, np.datetime64, np.timedelta64)) for kind in kinds):
        raise _no_dates(name)
    found = f"{'mixes' if len(kinds) > 1 else 'holds'} {', '.join(sorted(kind.__name__ for kind in kinds))}"
    raise InputError(f"column {name!r} {found}, which no signature has", code="CL-E105", hint=_TYPES)


def _too_large(name: str) -> InputError:
    return InputError(f"column {name!r} holds whole numbers beyond INT64", code="CL-E105", hint=_TYPES)


def _no_dates(name: str) -> InputError:
    return InputError(
        f"column {name!r} holds dates or times, which are not taken",
        code="CL-E105",
        hint=f"turn {name!r} into a number (for example days since 2000-01-01) or ISO text, or leave it out",
    )


def is_missing(item: Any) -> bool:
    """Whether a value stands for none: None, NaN, NaT, pandas' NA."""
    # NaN, NaT and pandas' NA: each is not equal to itself, or refuses to say.
    if item is None:
        return True
    try:
        return bool(item != item)
    except TypeError:
        return True


def _spread(array: Array, signature: Signature | None) -> Columns:
    if signature is None or not signature.inputs:
        return {ARRAY_INPUT: array}
    inputs = signature.inputs
    if len(inputs) == 1 and len(inputs[0].shape) > 1:
        return {inputs[0].name: array}
    if array.ndim == 2 and array.shape[1] == len(inputs) and all(len(field.shape) == 1 for field in inputs):
        return {field.name: clean(field.name, array[:, i]) for i, field in enumerate(inputs)}
    raise InputError(
        f"an array of shape {list(array.shape)} does not fit the {len(inputs)} inputs of this model",
        code="CL-E110",
        hint=f"give columns by name: {', '.join(field.name for field in inputs)}",
    )


def _stack(columns: Columns, signature: Signature) -> Columns:
    """Columns of numbers as the one array that the model takes, where their number is its width."""
    only = signature.inputs[0] if len(signature.inputs) == 1 else None
    if only is None or len(only.shape) != 2 or only.name in columns or only.shape[1] not in (-1, len(columns)):
        return columns
    if any(column.ndim != 1 or column.dtype.kind == "O" for column in columns.values()):
        return columns
    return {only.name: np.column_stack(list(columns.values()))}


def _widen(column: Array, field: Field | None) -> Array:
    """The column in the field's type, where every value stays what it is."""
    if field is None or column.dtype == field.numpy_type or field.datatype == "BYTES":
        return column
    if field.datatype in FLOATS and column.dtype.kind in "iufb":
        with np.errstate(over="ignore"):
            cast = column.astype(field.numpy_type)
        return cast if np.array_equal(np.isinf(cast), np.isinf(column)) else column
    if column.dtype.kind == "O" and all(item is None for item in column.ravel().tolist()):
        return np.full(column.shape, np.nan).astype(field.numpy_type) if field.datatype in FLOATS else column
    if field.datatype in INTEGERS and column.dtype.kind in "iu":
        cast = column.astype(field.numpy_type)
        return cast if np.array_equal(cast, column) else column
    if field.datatype in INTEGERS and column.dtype.kind == "f" and not _not_whole(column, field).any():
        return column.astype(field.numpy_type)
    return column


def _not_whole(column: Array, field: Field) -> npt.NDArray[np.bool_]:
    """Where floats are no whole numbers of the field's width."""
    limits = np.iinfo(field.numpy_type)
    # the upper limit of 64 bits is no float: the next one beyond it is
    within = (column >= float(limits.min)) & (column < float(limits.max) + 1)
    return np.asarray(~(within & (np.floor(column) == column)))


def _check_type(field: Field, column: Array) -> None:
    """Raises InputError for the first value that is of another type than the field's."""
    if column.dtype == field.numpy_type or column.size == 0:
        return
    wanted = (
        "a string" if field.datatype == "BYTES" else "true or false" if field.datatype == "BOOL" else "a number"
    )
    bad = np.ones(column.shape, np.bool_)
    if field.datatype in FLOATS and column.dtype.kind in "iufb":
        with np.errstate(over="ignore"):
            bad = np.isinf(column.astype(field.numpy_type)) & ~np.isinf(column)
        wanted += f" that fits {field.datatype}"
    elif field.datatype in INTEGERS:
        wanted = "a whole number"
        if column.dtype.kind == "f":
            bad = _not_whole(column, field)
        elif column.dtype.kind in "iu":
            bad = column.astype(field.numpy_type) != column
            wanted += f" of the type {field.datatype}"
    row = int(np.flatnonzero(bad.reshape(len(column), -1).any(axis=1))[0])
    value = column[row][bad[row]][0] if column.ndim > 1 else column[row]
    if is_missing(value):
        message, code = f"`{field.name}` is missing in row {row}", "CL-E106"
    else:
        plain = value.item() if isinstance(value, np.generic) else value
        message, code = f"`{field.name}` is {plain!r:.60} in row {row}", "CL-E105"
    problem = {"code": code, "message": message, "field": field.name, "row": row, "expected": wanted}
    raise InputError(message, code=code, hint=f"expected {wanted}", details=[problem])
