"""Rows in JSON: decoded fast by types made from the signature, walked for reasons when that fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np

from cloche.core.errors import InputError
from cloche.core.signature import Array, Columns, Field, Signature
from cloche.core.words import listed
from cloche.engine.validate import MOST_PROBLEMS, Problem, describe, refuse
from cloche.serving.protocols import words
from cloche.serving.protocols.arrays import from_flat
from cloche.serving.protocols.wire_types import (
    MOST_ROWS,
    fast_type,
    kind_of,
    python_type,
    to_array,
    too_many,
    type_problem,
)


class RowReader:
    """A RowReader turns a JSON body into columns of one signature's types."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._types = {field.name: python_type(field) for field in signature.inputs}
        self._builders = [(field, _builder(field)) for field in signature.inputs]
        self._anything = msgspec.json.Decoder().decode
        self._strict_type = row_type(self._types)
        #: What a row is decoded to, for dialects that wrap rows in a form of their own; None where there is none.
        self.row_type = row_type({field.name: fast_type(field) for field in signature.inputs})
        if self.row_type is None:
            return
        wrapped = msgspec.defstruct("Rows", [("rows", list[self.row_type])], forbid_unknown_fields=True)  # type: ignore[name-defined]
        self._one = msgspec.json.Decoder(self.row_type).decode
        self._many = msgspec.json.Decoder(list[self.row_type]).decode  # type: ignore[name-defined]
        self._lines = msgspec.json.Decoder(self.row_type).decode_lines
        self._wrapped = msgspec.json.Decoder(wrapped).decode

    def read(self, body: bytes) -> tuple[Columns, bool]:
        """The columns, and whether the body was one object.

        Raises InputError: CL-E101 (not JSON), CL-E102 (not rows), else every bad row, at most 20.
        """
        if self.row_type is None:
            return self._read_slowly(body)
        try:
            head = body[:64].lstrip()
            if head[:1] == b"[":
                return self.columns(self._many(body)), False
            if head[1:].lstrip()[:6] == b'"rows"':
                return self.columns(cast(Any, self._wrapped(body)).rows), False
            return self.columns([self._one(body)]), True
        except (msgspec.ValidationError, ValueError, OverflowError, RecursionError):
            return self._read_slowly(body)

    def read_lines(self, body: bytes) -> Columns:
        """The columns of a body with a JSON object a line. Raises what `read` does."""
        if self.row_type is not None:
            with contextlib.suppress(msgspec.ValidationError, ValueError, OverflowError, RecursionError):
                return self.columns(self._lines(body))
        rows: list[Any] = []
        for line in body.splitlines():
            if not line.strip():
                continue
            if len(rows) == MOST_ROWS:
                raise too_many(len(rows) + 1, "rows", MOST_ROWS)
            try:
                rows.append(self._anything(line))
            except (msgspec.DecodeError, RecursionError, ValueError) as error:
                said = words.not_json(line, error).replace("the body", f"row {len(rows)}")
                raise InputError(
                    said, code="CL-E101", where=f"request body, row {len(rows)}", hint="a JSON object a line"
                ) from None
        return self.from_values(rows)

    def columns(self, rows: Sequence[Any]) -> Columns:
        """The columns of rows of `row_type`. Raises InputError; OverflowError for a float that is too large."""
        if len(rows) > MOST_ROWS:
            raise too_many(len(rows), "rows", MOST_ROWS)
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
        return self.from_values(rows), single

    def from_values(self, rows: Sequence[Any]) -> Columns:
        """The columns of rows as JSON is decoded to them. Raises InputError for every bad row, at most 20."""
        if not rows:
            raise InputError("there are no rows", code="CL-E102", where="request body", hint="send at least one")
        if len(rows) > MOST_ROWS:
            raise too_many(len(rows), "rows", MOST_ROWS)
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
            return {field.name: build([row[field.name] for row in rows]) for field, build in self._builders}
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"the rows can't be read: {error}", code="CL-E105") from None

    def _is_row(self, row: Any) -> bool:
        """Whether a decoded row is good, at a tenth of the price of finding out why not."""
        if self._strict_type is None:
            return False
        try:
            msgspec.convert(row, self._strict_type)
        except msgspec.ValidationError:
            return False
        return True

    def _row_problems(self, row: Any, number: int) -> list[Problem]:
        if not isinstance(row, dict):
            return [Problem("CL-E102", f"row {number} is {kind_of(row)}", None, number, "an object")]
        problems = []
        missing = [name for name in self._types if name not in row]
        for field in self._signature.inputs:
            if field.name not in row:
                message = f"input `{field.name}` is missing from row {number}"
                problems.append(Problem("CL-E104", message, field.name, number, describe(field)))
            else:
                problem = type_problem(field, self._types[field.name], row[field.name], number)
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
            f"the body is {kind_of(value)}",
            code="CL-E102",
            where="request body",
            hint='send one object, a list of objects or {"rows": [...]}',
        )
    return rows, single


def row_type(types: Mapping[str, Any]) -> Any:
    """A struct with a member a name; None where a name is one that msgspec takes for no member."""
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


def _builder(field: Field) -> Callable[[Sequence[Any]], Array]:
    """A function from a column's values to its array; a null number is NaN."""
    dtype = field.numpy_type
    axes = len(field.shape) - 1
    if axes == 0 and field.datatype != "BYTES":
        return lambda values: np.array(values, dtype)
    if axes == 0:
        return lambda values: from_flat(values, dtype)
    return lambda values: to_array(field, values)
