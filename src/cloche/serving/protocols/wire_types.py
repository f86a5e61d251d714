"""The types of single values on the wire: what msgspec decodes them to, and what is wrong with one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from cloche.core.errors import InputError
from cloche.core.signature import FLOATS, INTEGERS, Array, Field
from cloche.engine.validate import Problem, describe
from cloche.serving.protocols import words
from cloche.serving.protocols.arrays import RaggedError, TooManyError, from_nested
from cloche.serving.protocols.base import MOST_ELEMENTS

#: Rows that one request may hold.
MOST_ROWS = 1_000_000


def _largest(field: Field) -> float:
    """The largest number that rounds to one of the field's type rather than to infinity."""
    limits = np.finfo(field.numpy_type)
    half_a_step = 2.0 ** (int(limits.maxexp) - limits.nmant - 2)
    return math.nextafter(float(limits.max) + half_a_step, 0.0)


def fast_type(field: Field) -> Any:
    """The type that a value of the field is decoded to: as `python_type`, but the floats of an array have no
    bounds yet, since they are checked for less where they are packed."""
    if len(field.shape) > 1 and field.datatype in FLOATS:
        return python_type(msgspec.structs.replace(field, datatype="FP64"))
    return python_type(field)


def python_type(field: Field) -> Any:
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
    if field.takes_null:
        inner = inner | None
    for size in reversed(field.shape[1:]):
        limits_of_list = msgspec.Meta(min_length=size, max_length=size) if size >= 0 else msgspec.Meta()
        inner = Annotated[list[inner], limits_of_list]
    return inner


def to_array(field: Field, values: Sequence[Any]) -> Array:
    """A column from its rows' values, of the right types. Raises InputError for lists of unequal length."""
    try:
        array = from_nested(values, len(field.shape) - 1, field.numpy_type, most=MOST_ELEMENTS)
    except RaggedError:
        raise ragged(field) from None
    except TooManyError as error:
        raise too_many(error.count, "elements", MOST_ELEMENTS) from None
    if array.size:
        return array
    # an empty list does not show how long the lists in it would be; the field knows
    return array.reshape(
        [size if size >= 0 else came for size, came in zip(field.shape, array.shape, strict=True)]
    )


def ragged(field: Field) -> InputError:
    """The error for rows of one column whose arrays are not of one shape."""
    return InputError(
        f"the lists of `{field.name}` differ in length",
        code="CL-E110",
        where="request body",
        hint="every row of a request needs the same shape; send others in a request of their own",
    )


def type_problem(field: Field, python_type: Any, value: Any, row: int) -> Problem | None:
    """What is wrong with the type or shape of a decoded value; ranges and categories are the engine's."""
    try:
        msgspec.convert(whole(value, len(field.shape) - 1) if field.datatype in INTEGERS else value, python_type)
    except msgspec.ValidationError as error:
        if value is None:
            expected = f"{describe(field)}; pack with rows that have gaps to allow it"
            if field.missing:
                expected = f"a value, since {field.datatype} has none for what is missing; pack it as a float"
            return Problem("CL-E106", f"input `{field.name}` of row {row} is null", field.name, row, expected)
        code = "CL-E110" if "length" in str(error) else "CL-E105"
        message = f"input `{field.name}` of row {row} is {kind_of(value)}"
        if code == "CL-E110":
            message = f"input `{field.name}` of row {row} has the wrong shape"
        elif isinstance(value, list):
            message += f": {words.plain(error)}"
        elif kind_of(value) == "a number":
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


def whole(value: Any, axes: int) -> Any:
    """2.0 is a whole number in JSON, whose writers often know no other kind of number.

    `axes` lists deep and no deeper: how deep the caller nests them is the caller's choice.
    """
    if axes and isinstance(value, list):
        return [whole(item, axes - 1) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def kind_of(value: Any) -> str:
    """What a decoded value is, in words."""
    if value is None:
        return "null"
    kinds: dict[type, str] = {
        bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list",
        dict: "an object",
    }  # fmt: skip
    return kinds.get(type(value), type(value).__name__)


def too_many(came: int, what: str, most: int) -> InputError:
    """The error for a body that holds more than fits a request."""
    return InputError(
        f"the body holds {came:,} {what}; at most {most:,} fit a request", code="CL-E113", hint="send it in parts"
    )
