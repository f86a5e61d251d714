"""Values of a source as columns of a signature, each that does not fit named with its row."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from cloche.batch.sources import ABSENT, Chunk
from cloche.batch.values import as_list, fit_arrow, is_arrow
from cloche.core.errors import InputError
from cloche.core.signature import FLOATS, INTEGERS, Array, Columns, Field, Signature
from cloche.engine.validate import Problem, describe

_Parse = Callable[[str], Any]
_LARGEST = 2**1023
_MISSING = ("", "null")
_BOOLS = {"true": True, "false": False, "1": True, "0": False}


class Fitted(msgspec.Struct, frozen=True):
    """Fitted is a chunk's inputs, what else it holds, and what is wrong with it: place in the chunk -> why.

    Rows with a problem hold anything in `inputs`.
    """

    inputs: Columns
    carried: dict[str, Any]
    problems: dict[int, list[Problem]]


def fit(chunk: Chunk, signature: Signature, *, texts: bool, aside: Collection[str] = ()) -> Fitted:
    """The chunk by the signature; `texts`: every value is text, as in CSV, and "" is missing.

    Columns that are `aside` are none of the numbers that a model takes all columns for.
    Raises InputError CL-E104 where a column is not there at all.
    """
    problems: dict[int, list[Problem]] = {
        row: [Problem("CL-E102", why, None, row)] for row, why in chunk.problems.items()
    }
    spread = _spread([name for name in chunk.columns if name not in aside], signature)
    fields = spread or signature.inputs
    columns: Columns = {}
    for field in fields:
        values = chunk.columns.get(field.name)
        if values is None:
            raise _no_column(field.name, list(chunk.columns), signature)
        if texts:
            values = list(map(_parser(field), values))
        columns[field.name], bad = _fit_column(values, field)
        for row, code in bad.items():
            if row not in chunk.problems:
                value = values[row].as_py() if is_arrow(values) else values[row]
                problems.setdefault(row, []).append(_problem(field, value, row, code))
    if spread:
        (only,) = signature.inputs
        columns = {only.name: np.column_stack([columns[field.name] for field in spread])}
    taken = {field.name for field in fields}
    carried = {name: values for name, values in chunk.columns.items() if name not in taken}
    return Fitted(columns, carried, problems)


def _spread(names: list[str], signature: Signature) -> tuple[Field, ...]:
    """A field a column, where all columns together are the one input of k numbers; else none."""
    only = signature.inputs[0]
    if len(signature.inputs) > 1 or len(only.shape) != 2 or only.name in names:
        return ()
    if only.datatype == "BYTES" or only.shape[1] not in (-1, len(names)):
        return ()
    return tuple(Field(name=name, datatype=only.datatype, shape=(-1,)) for name in names)


def _no_column(name: str, columns: list[str], signature: Signature) -> InputError:
    near = difflib.get_close_matches(name, columns, n=1)
    meant = f"; is `{near[0]}` meant?" if near else ""
    inputs = ", ".join(field.name for field in signature.inputs[:12])
    return InputError(
        f"there is no column `{name}`{meant}",
        code="CL-E104",
        hint=f"the model takes {inputs}{', …' if len(signature.inputs) > 12 else ''}",
    )


def _parser(field: Field) -> _Parse:
    """A text of CSV as the value that JSON would have; as it is where it is none."""
    if len(field.shape) > 1:
        return _json
    if field.datatype == "BYTES":
        return (lambda text: text or None) if field.missing else str
    if field.datatype == "BOOL":
        return lambda text: _BOOLS.get(text.strip().lower(), text or None)
    return _whole if field.datatype in INTEGERS else _number


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _number(text: str) -> Any:
    try:
        return float(text) if _is_plain(text) else text
    except ValueError:
        return None if text.strip().lower() in _MISSING else text


def _whole(text: str) -> Any:
    try:
        return int(text) if _is_plain(text) else text
    except ValueError:
        return _number(text)


def _is_plain(text: str) -> bool:
    """Python reads 1_000 and digits of any script as numbers; a table has no such."""
    return text.isascii() and "_" not in text


def _fit_column(values: Any, field: Field) -> tuple[Array, dict[int, str]]:
    """The array, and the code of each value that does not fit, by row."""
    if is_arrow(values):
        fitted = fit_arrow(values, field) if len(field.shape) == 1 else None
        if fitted is not None:
            return fitted
        values = as_list(values)
    return _fit_values(values, field)


def _fit_values(values: Sequence[Any], field: Field) -> tuple[Array, dict[int, str]]:
    if len(field.shape) > 1:
        return _fit_tensors(values, field)
    kinds, fits, filler = _rules(field)
    bad: dict[int, str] = {}
    if not kinds.issuperset(map(type, values)) or not (fits is None or all(map(fits, values))):
        fine = [type(value) in kinds and (fits is None or fits(value)) for value in values]
        bad = {row: _code(values[row]) for row, is_fine in enumerate(fine) if not is_fine}
        values = [value if is_fine else filler for value, is_fine in zip(values, fine, strict=True)]
    if field.datatype == "BYTES":
        texts = np.empty(len(values), object)
        texts[:] = values
        return texts, bad
    with np.errstate(over="ignore"):  # what is too large for the width is infinite, and refused by name
        return np.array(values, field.numpy_type), bad


def _rules(field: Field) -> tuple[set[type], Callable[[Any], bool] | None, Any]:
    """The types of a field's values, what else they must be, and what stands in for one that is not."""
    if field.datatype == "BYTES":
        return {str, type(None)}, None, ""
    if field.datatype == "BOOL":
        return {bool}, None, False
    if field.datatype in FLOATS:
        return {float, int, type(None)}, _is_float, 0.0
    limits = np.iinfo(field.numpy_type)
    low, high = int(limits.min), int(limits.max)
    return {int, float}, lambda value: low <= value <= high and value == int(value), 0


def _is_float(value: Any) -> bool:
    """An integer can be larger than any float."""
    return type(value) is not int or -_LARGEST < value < _LARGEST


def _code(value: Any) -> str:
    return "CL-E104" if value is ABSENT else "CL-E106" if value is None else "CL-E105"


def _fit_tensors(values: Sequence[Any], field: Field) -> tuple[Array, dict[int, str]]:
    tail = field.shape[1:]
    arrays: list[Array | None] = [_tensor(value, field) for value in values]
    first = next((array.shape for array in arrays if array is not None), tuple(max(size, 1) for size in tail))
    bad = {row: "CL-E110" for row, array in enumerate(arrays) if array is None or array.shape != first}
    filler = np.zeros(first, field.numpy_type)
    return np.stack([filler if array is None or row in bad else array for row, array in enumerate(arrays)]), bad


def _tensor(value: Any, field: Field) -> Array | None:
    try:
        array = np.array(value, field.numpy_type)
    except (TypeError, ValueError, OverflowError):
        return None
    tail = field.shape[1:]
    fits = array.ndim == len(tail) and all(
        want in (-1, size) for size, want in zip(array.shape, tail, strict=True)
    )
    return array if fits else None


def _problem(field: Field, value: Any, row: int, code: str) -> Problem:
    if value is ABSENT or value is None:
        said = f"`{field.name}` is {'not there' if value is ABSENT else 'missing'}"
    else:
        shown = repr(value)
        said = f"`{field.name}` is {shown if len(shown) <= 60 else shown[:59] + '…'}"
    return Problem(code, said, field.name, row, describe(field))


def kept(columns: Mapping[str, Array], rows: Array) -> Columns:
    """The columns with these rows only."""
    return {name: column[rows] for name, column in columns.items()}
