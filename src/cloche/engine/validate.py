"""Values against a signature: missing, extra, wrong type, not finite, unknown category, out of range."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np

from cloche.core.errors import InputError
from cloche.core.signature import FLOATS, INTEGERS, Array, Columns, Field, Signature

#: What happens to a row with a category that was never seen or a number out of the range that was:
#: refused, answered with a flag, or answered.
OnInvalid: TypeAlias = Literal["reject", "flag", "allow"]

#: Problems that one answer lists at most.
MOST_PROBLEMS = 20

UNKNOWN_CATEGORY = "CL-E108"
OUT_OF_RANGE = "CL-E109"
_SOFT = (UNKNOWN_CATEGORY, OUT_OF_RANGE)


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Problem is what is wrong with one value: where it stands, what came and what was expected."""

    code: str
    message: str
    field: str | None = None
    row: int | None = None
    expected: str | None = None


class Flag(msgspec.Struct, frozen=True):
    """A Flag marks a value that was answered all the same (`on_invalid = "flag"`)."""

    row: int
    field: str
    code: str


def refuse(problems: list[Problem], where: str | None = None) -> InputError:
    """The error for these problems; the first one speaks, all are in `details`."""
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return InputError(
        first.message + more,
        code=first.code,
        where=where,
        hint=f"expected {first.expected}" if first.expected else None,
        details=[msgspec.to_builtins(problem) for problem in problems],
    )


def describe(field: Field) -> str:
    """What a field takes, in words; a range that was only seen is told as such, since it is no limit."""
    words = {"BOOL": "true or false", "BYTES": "a string"}
    text = words.get(field.datatype) or ("a number" if field.datatype in FLOATS else "a whole number")
    if field.categories:
        shown = ", ".join(field.categories[:8])
        text = f"one of {shown}{', …' if len(field.categories) > 8 else ''}"
    elif field.minimum is not None and field.maximum is not None:
        text += f" ({field.minimum:g} to {field.maximum:g} were seen)"
    if len(field.shape) > 1:
        text = f"an array of shape {list(field.shape[1:])}, each {text}"
    return text + (" or null" if field.missing else "")


class Validator:
    """A Validator checks columns against one signature, quickly when they are good.

    The quick checks answer one question (is anything odd?); only then are the rows walked for reasons.
    """

    def __init__(self, signature: Signature, on_invalid: OnInvalid) -> None:
        self.signature = signature
        self.on_invalid = on_invalid
        self._names = {field.name for field in signature.inputs}
        self._fields = [
            (field.name, field, field.numpy_type, field.shape[1:], _quick_check(field))
            for field in signature.inputs
        ]

    def check(self, columns: Columns) -> tuple[Flag, ...]:
        """The flags of values that are answered all the same; InputError for what is refused.

        Columns must be arrays of the signature's types, (rows,) or (rows, …); a trailing axis of one is the
        caller's to drop.
        """
        rows = -1
        odd: list[Field] = []
        if len(columns) != len(self._fields):
            raise refuse(self._misnamed(columns))
        for name, field, dtype, tail, is_fine in self._fields:
            column = columns.get(name)
            if column is None:
                raise refuse(self._misnamed(columns))
            shape = column.shape
            if column.dtype != dtype or not shape or (shape[1:] != tail and not _fits(shape[1:], tail)):
                raise refuse([_misshapen(field, column)])
            if rows < 0:
                rows = shape[0]
            elif shape[0] != rows:
                raise refuse([_uneven(field, shape[0], rows)])
            if not is_fine(column):
                odd.append(field)
        if rows == 0:
            raise refuse([Problem("CL-E102", "there are no rows", expected="at least one row")])
        return self._explain(columns, odd) if odd else ()

    def _misnamed(self, columns: Mapping[str, Any]) -> list[Problem]:
        missing = [name for name in (field.name for field in self.signature.inputs) if name not in columns]
        extra = [name for name in columns if name not in self._names]
        problems = [Problem("CL-E104", f"input `{name}` is missing", name) for name in missing]
        inputs = [field.name for field in self.signature.inputs]
        known = f"one of the inputs: {', '.join(inputs[:12])}{', …' if len(inputs) > 12 else ''}"
        for name in extra[:MOST_PROBLEMS]:
            near = difflib.get_close_matches(name, missing, n=1)
            message = f"input `{name}` is not known"
            if near:
                message += f"; did you mean `{near[0]}` for `{name}`?"
                problems.insert(0, Problem("CL-E103", message, name, expected=known))
            else:
                problems.append(Problem("CL-E103", message, name, expected=known))
        return problems[:MOST_PROBLEMS]

    def _explain(self, columns: Columns, odd: list[Field]) -> tuple[Flag, ...]:
        problems: list[Problem] = []
        flags: list[Flag] = []
        # sorting is stable: by row, and in a row by the signature's order
        suspects = sorted(
            ((int(row), field) for field in odd for row in _odd_rows(field, columns[field.name])),
            key=lambda suspect: suspect[0],
        )
        for row, field in suspects:
            problem = value_problem(field, columns[field.name][row], row)
            if problem is None:
                continue
            if problem.code in _SOFT and self.on_invalid != "reject":
                if self.on_invalid == "flag":
                    flags.append(Flag(row, field.name, problem.code))
                continue
            problems.append(problem)
            if len(problems) == MOST_PROBLEMS:
                break
        if problems:
            raise refuse(problems)
        return tuple(flags)


def _odd_rows(field: Field, column: Array) -> Array:
    """The numbers of the rows that may have a problem: a look at whole columns, so that few are walked."""
    if field.datatype == "BYTES":
        is_fine = _known(field)
        return np.array([row for row in range(len(column)) if not is_fine(column[row : row + 1])], np.intp)
    odd = ~np.isfinite(column) if field.datatype in FLOATS else np.zeros(column.shape, np.bool_)
    if field.missing and field.datatype in FLOATS:
        odd &= ~np.isnan(column)
    if field.minimum is not None:
        odd |= column < field.minimum
    if field.maximum is not None:
        odd |= column > field.maximum
    return np.flatnonzero(odd.reshape(len(column), -1).any(axis=1))


def value_problem(field: Field, value: Any, row: int) -> Problem | None:
    """What is wrong with one value (a scalar, or an array for a field with more axes); None when it is fine."""

    def problem(code: str, words: str) -> Problem:
        return Problem(code, f"{words} in row {row}", field.name, row, describe(field))

    if field.datatype == "BYTES":
        for item in np.asarray(value, object).ravel():
            if item is None:
                if not field.missing:
                    return problem("CL-E106", f"`{field.name}` is null")
            elif not isinstance(item, str):
                return problem("CL-E105", f"`{field.name}` is {type(item).__name__}")
            elif field.categories is not None and item not in field.categories:
                return problem(UNKNOWN_CATEGORY, f"`{field.name}` is {_shown(item)}, which was never seen,")
        return None
    numbers = np.asarray(value).ravel()
    if field.datatype in FLOATS:
        if np.isinf(numbers).any():
            return problem("CL-E107", f"`{field.name}` is infinite")
        if np.isnan(numbers).any():
            if not field.missing:
                return problem("CL-E106", f"`{field.name}` is null or NaN")
            numbers = numbers[~np.isnan(numbers)]
    if field.minimum is not None or field.maximum is not None:
        lowest = -math.inf if field.minimum is None else field.minimum
        highest = math.inf if field.maximum is None else field.maximum
        beyond = numbers[(numbers < lowest) | (numbers > highest)]
        if beyond.size:
            return problem(OUT_OF_RANGE, f"`{field.name}` is {beyond[0]:g}, outside what was seen,")
    return None


def _quick_check(field: Field) -> Callable[[Array], bool]:
    """A function that says whether a column is free of anything odd; False only asks for a closer look."""
    if field.datatype == "BYTES":
        return _known(field)
    if field.datatype not in FLOATS and field.datatype not in INTEGERS:
        return lambda column: True
    limit = float(np.finfo(field.numpy_type).max) if field.datatype in FLOATS else math.inf
    lowest = -limit if field.minimum is None else field.minimum
    highest = limit if field.maximum is None else field.maximum
    # NaN is in no range, so minimum() and maximum() find it; fmin and fmax pass over it
    takes_nan = field.missing and field.datatype in FLOATS
    least, most = (np.fmin, np.fmax) if takes_nan else (np.minimum, np.maximum)

    def in_range(column: Array) -> bool:
        if column.size == 1:
            value = column.item()
            return bool(lowest <= value <= highest) or (takes_nan and value != value)
        if column.size == 0:
            return True
        low, high = least.reduce(column, axis=None), most.reduce(column, axis=None)
        if takes_nan:
            return not (low < lowest or high > highest)
        return bool(lowest <= low and high <= highest)

    return in_range


def _known(field: Field) -> Callable[[Array], bool]:
    """Whether strings are strings, of known categories, and missing only where that is allowed."""
    types: set[type] = {str, type(None)} if field.missing else {str}
    are_strings = types.issuperset
    if field.categories is None:
        return lambda column: are_strings(map(type, column.ravel().tolist()))
    are_known = {*field.categories, *((None,) if field.missing else ())}.issuperset

    def is_fine(column: Array) -> bool:
        values = column.ravel().tolist()
        return are_strings(map(type, values)) and are_known(values)

    return is_fine


def _fits(shape: tuple[int, ...], tail: tuple[int, ...]) -> bool:
    return len(shape) == len(tail) and all(wanted in (-1, size) for size, wanted in zip(shape, tail, strict=True))


def _misshapen(field: Field, column: Array) -> Problem:
    if column.dtype != field.numpy_type:
        message, code = f"`{field.name}` came as {column.dtype}", "CL-E105"
    else:
        message, code = f"`{field.name}` came in shape {list(column.shape)}", "CL-E110"
    return Problem(code, message, field=field.name, expected=f"{field.datatype} {list(field.shape)}")


def _uneven(field: Field, came: int, rows: int) -> Problem:
    return Problem("CL-E110", f"`{field.name}` has {came} rows, the inputs before it {rows}", field=field.name)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
