"""How the columns of a table become a model's inputs, and outputs the columns of a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from cloche.core.errors import InputError
from cloche.core.signature import Array, Columns, Field, Signature
from cloche.core.words import listed
from cloche.engine.validate import MOST_PROBLEMS, Problem, describe, refuse
from cloche.serving.protocols import words


class Layout:
    """A Layout is one table's columns beside a signature: a column an input, by name.

    A model with one matrix input, (rows, k), takes k columns of any other names as well, in their order.
    Raises InputError that names what is missing, not known or there twice.
    """

    def __init__(self, signature: Signature, names: Sequence[str]) -> None:
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(
                f"the columns {listed(twice)} came twice",
                code="CL-E102",
                where="request body",
                hint="send each once",
            )
        self._names = list(names)
        self._matrix = matrix_of(signature, names)
        if self._matrix is not None:
            field = self._matrix
            self.fields = [
                Field(name=name, datatype=field.datatype, shape=(-1,), missing=field.missing) for name in names
            ]
            return
        known = {field.name: field for field in signature.inputs}
        problems = _misnamed(signature, names)
        if problems:
            raise refuse(problems[:MOST_PROBLEMS], where="request body")
        #: What each column of the table holds, in the table's order.
        self.fields = [known[name] for name in names]

    def join(self, columns: Columns) -> Columns:
        """The model's inputs from the table's columns."""
        if self._matrix is None:
            return columns
        return {self._matrix.name: np.column_stack([columns[name] for name in self._names])}


def spread(outputs: Columns, fields: Sequence[Field], *, matrices: bool) -> Columns:
    """Outputs as columns of a table: `probabilities.yes` for a class, and `x.0` where `matrices` are spread."""
    columns: Columns = {}
    for field in fields:
        array = outputs[field.name]
        parts: Sequence[object] = ()
        if array.ndim == 2:
            parts = field.classes or (range(array.shape[1]) if matrices else ())
        for at, part in enumerate(parts):
            columns[f"{field.name}.{part}"] = array[:, at]
        if not parts:
            columns[field.name] = array
    return columns


def row_values(array: Array) -> int:
    """How many values a row of a column holds."""
    return math.prod(array.shape[1:])


def matrix_of(signature: Signature, names: Sequence[str]) -> Field | None:
    """The only input, where it is a matrix that columns of these names make up."""
    if len(signature.inputs) != 1 or not names:
        return None
    (field,) = signature.inputs
    if len(field.shape) != 2 or field.name in names or field.datatype == "BYTES":
        return None
    return field if field.shape[1] in (-1, len(names)) else None


def _misnamed(signature: Signature, names: Sequence[str]) -> list[Problem]:
    missing = [field for field in signature.inputs if field.name not in names]
    inputs = [field.name for field in signature.inputs]
    wanted = f"one of the inputs: {listed(inputs)}"
    asked: list[Problem] = []
    others: list[Problem] = []
    for name in [name for name in names if name not in inputs][:MOST_PROBLEMS]:
        shown = name if len(name) <= 60 else name[:59] + "…"
        near = words.meant(name, [field.name for field in missing])
        message = f"column `{shown}` is not known"
        if near is None:
            others.append(Problem("CL-E103", message, shown, expected=wanted))
        else:
            message += f"; did you mean `{near}` for `{shown}`?"
            asked.append(Problem("CL-E103", message, shown, expected=wanted))
    absent = [
        Problem("CL-E104", f"column `{field.name}` is missing", field.name, expected=describe(field))
        for field in missing
    ]
    return asked + absent + others
