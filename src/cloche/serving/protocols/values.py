"""Columns of decoded JSON values: a list a column, checked against the fields that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from cloche.core.errors import InputError
from cloche.core.signature import FLOATS, Array, Columns, Field
from cloche.engine.validate import MOST_PROBLEMS, Problem, refuse
from cloche.serving.protocols.wire_types import (
    MOST_ROWS,
    kind_of,
    python_type,
    to_array,
    too_many,
    type_problem,
    whole,
)

_types = lru_cache(maxsize=1024)(python_type)


def read_values(fields: Sequence[Field], given: Mapping[str, Any]) -> Columns:
    """A column a field from the list of its rows' values. InputError for every bad row, at most 20."""
    columns: Columns = {}
    problems: list[Problem] = []
    for field in fields:
        values = given[field.name]
        if not isinstance(values, list):
            message = f"`{field.name}` is {kind_of(values)}"
            problems.append(Problem("CL-E102", message, field.name, expected="a list with a value a row"))
        elif len(values) > MOST_ROWS:
            raise too_many(len(values), "rows", MOST_ROWS)
        else:
            found = _read(field, values)
            if isinstance(found, list):
                problems.extend(found)
            else:
                columns[field.name] = found
    if problems:
        problems.sort(key=lambda problem: problem.row or 0)
        raise refuse(problems[:MOST_PROBLEMS], where="request body")
    return columns


def _read(field: Field, values: list[Any]) -> Array | list[Problem]:
    kind = _types(field)
    try:
        msgspec.convert(values, list[kind])  # type: ignore[valid-type]
    except msgspec.ValidationError:
        problems = []
        for row, value in enumerate(values):
            problem = type_problem(field, kind, value, row)
            if problem is not None:
                problems.append(problem)
                if len(problems) == MOST_PROBLEMS:
                    break
        if problems:
            return problems
        if field.datatype not in FLOATS:
            values = [whole(value, len(field.shape) - 1) for value in values]
    try:
        return to_array(field, values)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"`{field.name}` can't be read: {error}", code="CL-E105") from None
