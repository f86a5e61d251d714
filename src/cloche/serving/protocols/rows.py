"""Rows in JSON: decoded fast by types made from the signature, walked for reasons when that fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, cast

import msgspec
import numpy as np

from cloche.core.errors import InputError
from cloche.core.signature import FLOATS, INTEGERS, Array, Columns, Field, Signature
from cloche.core.words import listed
from cloche.engine.validate import MOST_PROBLEMS, Problem, describe, refuse
from cloche.serving.protocols import words
from cloche.serving.protocols.base import MOST_ELEMENTS

#: Rows that one request may hold.
MOST_ROWS = 1_000_000


class RowReader:
    """A RowReader turns a JSON body into columns of one signature's types."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._types = {field.name: _python_type(field) for field in signature.inputs}
        self._builders = [(field, _builder(field)) for field in signature.inputs]
        self._anything = msgspec.json.Decoder().decode
        self._row_type = _row_type(self._types)
        if self._row_type is None:
            return
        wrapped = msgspec.defstruct("Rows", [("rows", list[self._row_type])], forbid_unknown_fields=True)  # type: ignore[name-defined]
        self._one = msgspec.json.Decoder(self._row_type).decode
        self._many = msgspec.json.Decoder(list[self._row_type]).decode  # type: ignore[name-defined]
        self._wrapped = msgspec.json.Decoder(wrapped).decode

    def read(self, body: bytes) -> tuple[Columns, bool]:
        """The columns, and whether the body was one object.

        Raises InputError: CL-E101 (not JSON), CL-E102 (not rows), else every bad row, at most 20.
        """
        if self._row_type is None:
            return self._read_slowly(body)
        try:
            head = body[:64].lstrip()
            if head[:1] == b"[":
                return self._columns(self._many(body)), False
            if head[1:].lstrip()[:6] == b'"rows"':
                return self._columns(cast(Any, self._wrapped(body)).rows), False
            return self._columns([self._one(body)]), True
        except (msgspec.ValidationError, ValueError, OverflowError, RecursionError):
            return self._read_slowly(body)

    def _columns(self, rows: Sequence[Any]) -> Columns:
        if len(rows) > MOST_ROWS:
            raise _too_many(len(rows), "rows", MOST_ROWS)
        if not rows:
            raise InputError("there are no rows", code="CL-E102", where="request body", hint="send at least one")
        as_tuple = msgspec.structs.astuple
        if len(rows) == 1:
            values = as_tuple(rows[0])
            return {f.name: build((value,)) for (f, build), value in zip(self._builders, values, strict=True)}
        by_field = zip(*map(as_tuple, rows), strict=True)
        return {f.name: build(values) for (f, build), values in zip(self._builders, by_field, strict=True)}

    def _read_slowly(self, body: bytes) -> tuple[Columns, bool]:
        """Find out what is wrong, every row of it; or, with an unusual but good body, read it all the same."""
        try:
            value = self._anything(body)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            said = words.not_json(body, error)
            raise InputError(said, code="CL-E101", where="request body", hint="RFC 8259, UTF-8") from None
        rows, single = _rows_of(value)
        if len(rows) > MOST_ROWS:
            raise _too_many(len(rows), "rows", MOST_ROWS)
        problems: list[Problem] = []
        for number, row in enumerate(rows):
            if self._is_row(row):
                continue
            problems.extend(self._row_problems(row, number))
            if len(problems) >= MOST_PROBLEMS:
                break
        if problems:
            raise refuse(problems[:MOST_PROBLEMS], where=f"request body, row {problems[0].row}")
        try:
            return {
                field.name: build([row[field.name] for row in rows]) for field, build in self._builders
            }, single
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"the rows can't be read: {error}", code="CL-E105") from None

    def _is_row(self, row: Any) -> bool:
        """Whether a decoded row is good, at a tenth of the price of finding out why not."""
        if self._row_type is None:
            return False
        try:
            msgspec.convert(row, self._row_type)
        except msgspec.ValidationError:
            return False
        return True

    def _row_problems(self, row: Any, number: int) -> list[Problem]:
        if not isinstance(row, dict):
            return [Problem("CL-E102", f"row {number} is {_kind(row)}", None, number, "an object")]
        problems = []
        missing = [name for name in self._types if name not in row]
        for field in self._signature.inputs:
            if field.name not in row:
                message = f"input `{field.name}` is missing from row {number}"
                problems.append(Problem("CL-E104", message, field.name, number, describe(field)))
            else:
                problem = _type_problem(field, self._types[field.name], row[field.name], number)
                if problem is not None:
                    problems.append(problem)
        unknown = [name for name in row if name not in self._types][:MOST_PROBLEMS]
        inputs = f"one of the inputs: {listed(list(self._types))}" if unknown else ""
        asked: list[Problem] = []
        for name in unknown:
            shown = name if len(name) <= 60 else name[:59] + "…"
            message = f"input `{shown}` of row {number} is not known"
            near = words.meant(name, missing)
            if near is not None:
                message += f"; did you mean `{near}` for `{shown}`?"
                asked.append(Problem("CL-E103", message, shown, number, inputs))
            else:
                problems.append(Problem("CL-E103", message, shown, number, inputs))
        return asked + problems


def _rows_of(value: Any) -> tuple[list[Any], bool]:
    if isinstance(value, list):
        rows, single = value, False
    elif isinstance(value, dict) and len(value) == 1 and isinstance(value.get("rows"), list):
        rows, single = value["rows"], False
    elif isinstance(value, dict):
        rows, single = [value], True
    else:
        raise InputError(
            f"the body is {_kind(value)}",
            code="CL-E102",
            where="request body",
            hint='send one object, a list of objects or {"rows": [...]}',
        )
    if not rows:
        raise InputError("there are no rows", code="CL-E102", where="request body", hint="send at least one")
    return rows, single


def _row_type(types: Mapping[str, Any]) -> Any:
    """A struct with a member an input; None where a name is one that msgspec takes for no member."""
    try:
        return msgspec.defstruct(
            "Row",
            [(f"f{at}", python_type) for at, python_type in enumerate(types.values())],
            rename={f"f{at}": name for at, name in enumerate(types)},
            forbid_unknown_fields=True,
            gc=False,
        )
    except ValueError:
        return None


def _largest(field: Field) -> float:
    """The largest number that rounds to one of the field's type rather than to infinity."""
    limits = np.finfo(field.numpy_type)
    half_a_step = 2.0 ** (int(limits.maxexp) - limits.nmant - 2)
    return math.nextafter(float(limits.max) + half_a_step, 0.0)


def _python_type(field: Field) -> Any:
    """The type that msgspec checks a value of the field against, trailing axes as lists."""
    inner: Any
    if field.datatype == "FP64":
        inner = float
    elif field.datatype in FLOATS:
        limit = _largest(field)
        inner = Annotated[float, msgspec.Meta(ge=-limit, le=limit)]
    elif field.datatype in INTEGERS:
        limits = np.iinfo(field.numpy_type)
        low, high = max(limits.min, -(2**63)), min(limits.max, 2**63 - 1)
        inner = Annotated[int, msgspec.Meta(ge=int(low), le=int(high))]
    else:
        inner = bool if field.datatype == "BOOL" else str
    if field.missing:
        inner = inner | None
    for size in reversed(field.shape[1:]):
        limits_of_list = msgspec.Meta(min_length=size, max_length=size) if size >= 0 else msgspec.Meta()
        inner = Annotated[list[inner], limits_of_list]
    return inner


def _builder(field: Field) -> Callable[[Sequence[Any]], Array]:
    """A function from a column's values to its array; a null number is NaN."""
    dtype = field.numpy_type
    if field.datatype == "BYTES" and len(field.shape) == 1:

        def build_strings(values: Sequence[Any]) -> Array:
            column = np.empty(len(values), object)
            column[:] = values
            return column

        return build_strings

    def build(values: Sequence[Any]) -> Array:
        try:
            array = np.array(values, dtype)
        except ValueError:
            raise InputError(
                f"the lists of `{field.name}` differ in length",
                code="CL-E110",
                where="request body",
                hint="every row of a request needs the same shape; send others in a request of their own",
            ) from None
        if array.size > MOST_ELEMENTS:
            raise _too_many(array.size, "elements", MOST_ELEMENTS)
        return array

    return build


def _type_problem(field: Field, python_type: Any, value: Any, row: int) -> Problem | None:
    """What is wrong with the type or shape of a decoded value; ranges and categories are the engine's."""
    try:
        msgspec.convert(_whole(value, len(field.shape) - 1) if field.datatype in INTEGERS else value, python_type)
    except msgspec.ValidationError as error:
        if value is None:
            expected = f"{describe(field)}; pack with rows that have gaps to allow it"
            return Problem("CL-E106", f"input `{field.name}` of row {row} is null", field.name, row, expected)
        code = "CL-E110" if "length" in str(error) else "CL-E105"
        message = f"input `{field.name}` of row {row} is {_kind(value)}"
        if code == "CL-E110":
            message = f"input `{field.name}` of row {row} has the wrong shape"
        elif isinstance(value, list):
            message += f": {words.plain(error)}"
        elif _kind(value) == "a number":
            message = f"input `{field.name}` of row {row} is {_odd_number(field, value)}"
        return Problem(code, message, field.name, row, describe(field))
    return None


def _odd_number(field: Field, value: float) -> str:
    """A number that a field does not take, and why."""
    # Python writes no number of more than 4,300 digits
    shown = "a very large number" if isinstance(value, int) and value.bit_length() > 128 else repr(value)
    if field.datatype in INTEGERS and isinstance(value, float) and not value.is_integer():
        return f"{shown}, a whole number is expected"
    if len(field.shape) == 1 and field.datatype in (*INTEGERS, *FLOATS):
        return f"{shown}, which does not fit {field.datatype}"
    return f"{shown}, which is a number"


def _whole(value: Any, axes: int) -> Any:
    """2.0 is a whole number in JSON, whose writers often know no other kind of number.

    `axes` lists deep and no deeper: how deep the caller nests them is the caller's choice.
    """
    if axes and isinstance(value, list):
        return [_whole(item, axes - 1) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds: dict[type, str] = {
        bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list",
        dict: "an object",
    }  # fmt: skip
    return kinds.get(type(value), type(value).__name__)


def _too_many(came: int, what: str, most: int) -> InputError:
    return InputError(
        f"the body holds {came:,} {what}; at most {most:,} fit a request", code="CL-E113", hint="send it in parts"
    )
