"""The values of a column, whether they are a list, a numpy array or an Arrow array."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from cloche.batch.sources import ABSENT
from cloche.core.signature import FLOATS, INTEGERS, Array, Field


def is_arrow(values: Any) -> bool:
    """Whether it is an array of pyarrow's, told without importing that."""
    return hasattr(values, "to_pylist")


def spare_memory() -> None:
    """Let this process's Arrow take memory the way that keeps least of it; nothing where there is no pyarrow."""
    if find_spec("pyarrow") is not None:
        arrow = import_module("pyarrow")
        if "jemalloc" in arrow.supported_memory_backends():
            arrow.set_memory_pool(arrow.jemalloc_memory_pool())


def as_list(values: Any) -> list[Any]:
    """The values as Python has them."""
    if is_arrow(values):
        found: list[Any] = values.to_pylist()
        return found
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def chosen(values: Any, rows: Array) -> Any:
    """The values of these rows only."""
    if is_arrow(values):
        return values.take(rows)
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]


def missing_rows(values: Any) -> list[int]:
    """The rows that have no value, or an empty text."""
    if is_arrow(values):
        if not values.null_count:
            return []
        return [int(row) for row in np.flatnonzero(_nulls(values))]
    return [row for row, value in enumerate(values) if value is None or value is ABSENT or value == ""]


def fit_arrow(values: Any, field: Field) -> tuple[Array, dict[int, str]] | None:
    """An Arrow column as the field's array, and the code of each value that does not fit.

    None where only a look at each value can say; what it gives is what such a look would.
    """
    kind = str(values.type)
    if field.datatype in FLOATS and kind in _FLOATS | _WHOLE:
        return _floats(values, kind, field), {}
    if field.datatype in INTEGERS and kind in _FLOATS | _WHOLE:
        return _integers(values, field)
    if field.datatype == "BOOL" and kind == "bool":
        return _booleans(values)
    if field.datatype == "BYTES" and kind in _TEXTS:
        return values.to_numpy(zero_copy_only=False), {}
    return None


_FLOATS = frozenset({"halffloat", "float", "double"})
_WHOLE = frozenset(f"{sign}int{width}" for sign in ("", "u") for width in (8, 16, 32, 64))
_TEXTS = frozenset({"string", "large_string"})


def _nulls(values: Any) -> Array:
    found: Array = values.is_null().to_numpy(zero_copy_only=False)
    return found


def _floats(values: Any, kind: str, field: Field) -> Array:
    if kind in _WHOLE:
        filled = _numbers(values).astype(np.float64)
        if values.null_count:
            filled[_nulls(values)] = np.nan
    else:
        filled = values.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # what is too large for the width is infinite, and refused by name
        return filled.astype(field.numpy_type, copy=False)


def _integers(values: Any, field: Field) -> tuple[Array, dict[int, str]]:
    numbers = _numbers(values)
    limits = np.iinfo(field.numpy_type)
    if numbers.dtype.kind == "f":
        numbers = numbers.astype(np.float64, copy=False)
        # the upper limit of 64 bits is no float: the next one beyond it is
        fine = (numbers >= float(limits.min)) & (numbers < float(limits.max) + 1) & (np.floor(numbers) == numbers)
    elif np.can_cast(numbers.dtype, field.numpy_type):
        fine = None
    else:
        fine = _at_least(numbers, int(limits.min)) & _at_most(numbers, int(limits.max))
    bad: dict[int, str] = {}
    if fine is not None and not fine.all():
        bad = {int(row): "CL-E105" for row in np.flatnonzero(~fine)}
    if values.null_count:
        bad |= {int(row): "CL-E106" for row in np.flatnonzero(_nulls(values))}
    if bad:
        numbers = numbers.copy()
        numbers[list(bad)] = 0
    return numbers.astype(field.numpy_type, copy=False), bad


def _at_least(numbers: Array, limit: int) -> Any:
    return numbers >= max(limit, int(np.iinfo(numbers.dtype).min))


def _at_most(numbers: Array, limit: int) -> Any:
    return numbers <= min(limit, int(np.iinfo(numbers.dtype).max))


def _booleans(values: Any) -> tuple[Array, dict[int, str]]:
    bad = dict.fromkeys(missing_rows(values), "CL-E106")
    filled = values.fill_null(False) if bad else values
    return filled.to_numpy(zero_copy_only=False), bad


def _numbers(values: Any) -> Array:
    """The numbers with zeros where one is missing; floats keep their NaN."""
    whole = values.fill_null(0) if values.null_count else values
    numbers: Array = whole.to_numpy(zero_copy_only=False)
    return numbers
