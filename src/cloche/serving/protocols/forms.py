"""The row form and the column form of TF Serving's bodies, which MLflow took over as `instances` and `inputs`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from cloche.core.errors import InputError
from cloche.core.signature import Columns, Signature
from cloche.core.words import listed
from cloche.serving.protocols.rows import RowReader, row_type
from cloche.serving.protocols.values import read_values
from cloche.serving.protocols.wire_types import MOST_ROWS, fast_type, kind_of, to_array, too_many


class Form(NamedTuple):
    """A Form is the types that both members are decoded to at once, and what makes columns of them.

    A body that does not fit is read again without types, by the methods of `Forms`.
    """

    instances: Any
    inputs: Any
    from_instances: Callable[[Any], Columns]
    from_inputs: Callable[[Any], Columns]


class Forms:
    """Forms reads both members for one signature: rows, or columns; the value of an only input goes unnamed too.

    A string may come as `{"b64": …}`. What can't be read raises InputError.
    """

    def __init__(self, signature: Signature) -> None:
        self._fields = signature.inputs
        self._reader = RowReader(signature)
        self._only = signature.inputs[0] if len(signature.inputs) == 1 else None
        self._texts = [field for field in signature.inputs if field.datatype == "BYTES"]
        #: The likeliest first.
        self.fast: list[Form] = []
        if self._only is not None:
            value: Any = fast_type(self._only)
            values: Any = list[value]
            self.fast.append(Form(values, values, self._unnamed, self._unnamed))
        columns = row_type({field.name: list[fast_type(field)] for field in signature.inputs})  # type: ignore[misc]
        if self._reader.row_type is not None and columns is not None:
            rows = list[self._reader.row_type]  # type: ignore[name-defined]
            self.fast.append(Form(rows, columns, self._reader.columns, self._named))

    def _unnamed(self, values: Sequence[Any]) -> Columns:
        assert self._only is not None
        if len(values) > MOST_ROWS:
            raise too_many(len(values), "rows", MOST_ROWS)
        return {self._only.name: to_array(self._only, values)}

    def _named(self, columns: Any) -> Columns:
        values = msgspec.structs.astuple(columns)
        if len(values[0]) > MOST_ROWS:
            raise too_many(len(values[0]), "rows", MOST_ROWS)
        return {field.name: to_array(field, column) for field, column in zip(self._fields, values, strict=True)}

    def rows(self, instances: Any) -> Columns:
        """The columns of `instances`: a list of objects, or of the values of an only input."""
        if not isinstance(instances, list):
            raise _form(f"`instances` is {kind_of(instances)}", "a list with an item a row")
        return self._reader.from_values([self._row(row) for row in instances])

    def _row(self, row: Any) -> Any:
        only = self._only
        if only is not None and (not isinstance(row, dict) or set(row) == {"b64"} != {only.name}):
            row = {only.name: row}
        if self._texts and isinstance(row, dict):
            texts = {f.name: _text(row[f.name], len(f.shape) - 1) for f in self._texts if f.name in row}
            return row | texts
        return row

    def columns(self, inputs: Any) -> Columns:
        """The columns of `inputs`: an object of columns, or the column of an only input."""
        if self._only is not None and not isinstance(inputs, dict):
            inputs = {self._only.name: inputs}
        if not isinstance(inputs, dict):
            raise _form(f"`inputs` is {kind_of(inputs)}", "an object with a list an input")
        known = {field.name: field for field in self._fields}
        for name in inputs:
            if name not in known:
                raise InputError(
                    f"input `{name[:60]}` is not known",
                    code="CL-E103",
                    where="request body, inputs",
                    hint=f"one of the inputs: {listed(list(known))}",
                )
        for name in known:
            if name not in inputs:
                raise InputError(f"input `{name}` is missing", code="CL-E104", where="request body, inputs")
        texts = {field.name: _text(inputs[field.name], len(field.shape)) for field in self._texts}
        return read_values(self._fields, inputs | texts)


def _text(value: Any, axes: int) -> Any:
    """A string of a `{"b64": …}` object, in lists nested so deep; anything else as it is."""
    if axes and isinstance(value, list):
        return [_text(item, axes - 1) for item in value]
    if not isinstance(value, dict) or set(value) != {"b64"}:
        return value
    try:
        return base64.b64decode(value["b64"], validate=True).decode()
    except (binascii.Error, TypeError, ValueError):
        raise InputError(
            "a `b64` value can't be read", code="CL-E105", where="request body", hint="base64 of UTF-8 text"
        ) from None


def _form(message: str, expected: str) -> InputError:
    return InputError(message, code="CL-E102", where="request body", hint=f"expected {expected}")
