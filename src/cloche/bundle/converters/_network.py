"""What the converters of networks share: tensors of rows, and answers that depend on their own row only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cloche.bundle.converters.base import PROOF_ROWS
from cloche.bundle.measure import rows_a_call
from cloche.bundle.parity import compare
from cloche.bundle.rows import is_frame, to_columns
from cloche.core.errors import ConversionError, InputError
from cloche.core.signature import Array, Columns, count_rows, join_rows, take_rows
from cloche.core.words import listed

#: Columns in, all outputs by name out.
Answer = Callable[[Columns], Columns]

#: So many rows are asked at a time, at most.
_CALL_ROWS = 256
_ALONE_ROWS = 8
_TIMED_S = 0.5


def ask(answer: Answer, columns: Columns, *, rtol: float, atol: float) -> Columns:
    """The original's answers to the first PROOF_ROWS rows.

    Raises ConversionError where it gives another number of rows than it was asked for, or answers a row that
    comes alone otherwise than among others: requests are answered together.
    """
    total = min(count_rows(columns), PROOF_ROWS)
    step = min(_CALL_ROWS, rows_a_call(columns))
    parts = []
    for start in range(0, total, step):
        stop = min(start + step, total)
        parts.append(answer(take_rows(columns, start, stop)))
        _check_rows(parts[-1], stop - start)
    reference = join_rows(parts)
    few = min(total, _ALONE_ROWS)
    alone = [answer(take_rows(columns, row, row + 1)) for row in range(few)]
    for each in alone:
        _check_rows(each, 1)
    try:
        compare(take_rows(reference, 0, few), join_rows(alone), rtol=rtol, atol=atol)
    except ConversionError as error:
        raise ConversionError(
            f"the model answers a row differently when it comes alone than among others: {error.message}",
            code="CL-E802",
            hint="an answer must depend on its own row only, since requests are answered together: look for "
            "statistics over the rows, and for chance (dropout) that is not switched off",
        ) from None
    return reference


def time_one_row(answer: Answer, columns: Columns) -> float:
    """Median seconds of one row in the original, over at most half a second."""
    row = take_rows(columns, 0, 1)
    answer(row)
    spent: list[float] = []
    while len(spent) < 3 or (len(spent) < 50 and sum(spent) < _TIMED_S):
        start = time.perf_counter()
        answer(row)
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))


def _check_rows(answers: Columns, rows: int) -> None:
    for name, column in answers.items():
        if column.shape[:1] != (rows,):
            raise ConversionError(
                f"{name} has the shape {list(column.shape)} for {rows} row{'s' * (rows != 1)}",
                code="CL-E802",
                hint="the first axis of every output must be rows, one for each row that is given",
            )


def to_tensors(rows: object | None, names: list[str], floats: Any) -> Columns:
    """The rows as one array for each input of a network, in its order; floats in the type it computes with.

    Raises InputError, and ConversionError without rows.
    """
    if rows is None:
        raise ConversionError(
            "without rows nobody can tell the shape of this network's inputs",
            code="CL-E802",
            hint="give a few rows as X: an array or tensor, or a tuple or dict of them",
        )
    given = by_name(arrays(rows), names, keep=True)
    return {
        name: np.ascontiguousarray(array, dtype=floats if array.dtype.kind == "f" else None)
        for name, array in given.items()
    }


def arrays(rows: object) -> Columns:
    """The rows as arrays of numbers: by name where they are a dict, by position (`0`, `1`, ...) otherwise.

    Rows are an array or tensor, a tuple or a dict of them, or a data frame, which is one matrix. Raises
    InputError.
    """
    if is_frame(rows):
        rows = np.column_stack(list(to_columns(rows).values()))
    if isinstance(rows, Mapping):
        given = {str(name): each for name, each in rows.items()}
    else:
        given = {str(place): each for place, each in enumerate(rows if isinstance(rows, tuple) else (rows,))}
    return {name: _array(name, each) for name, each in given.items()}


def by_name(given: Columns, names: list[str], *, keep: bool) -> Columns:
    """The arrays under the names of the network's inputs, or under their own where these are `keep`t.

    Raises InputError for one that the network does not have.
    """
    known = [name for name in names if name in given]
    strange = [name for name in given if name not in known]
    if (known and strange) or len(given) > len(names):
        raise InputError(
            f"the model has no input {listed(strange or list(given))}",
            code="CL-E103",
            hint=f"its inputs are {listed(names)}",
        )
    if known:
        return {name: given[name] for name in known}
    by_place = all(name.isdigit() for name in given)
    return {
        wanted if by_place or not keep else name: array
        for wanted, (name, array) in zip(names, given.items(), strict=False)
    }


def _array(name: str, given: Any) -> Array:
    array = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise InputError(
            f"input {name} is {array.dtype} of the shape {list(array.shape)}, and rows of numbers are wanted",
            code="CL-E105",
        )
    return array
