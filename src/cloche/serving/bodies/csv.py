"""CSV: a header with the names of the inputs, then a row a line; the standard library reads and writes it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from cloche.core.errors import InputError
from cloche.core.signature import FLOATS, INTEGERS, Array, Columns, Field, Signature, join_rows
from cloche.engine.validate import MOST_PROBLEMS, Problem, describe, refuse
from cloche.serving.bodies.layout import Layout, spread
from cloche.serving.protocols.values import read_values
from cloche.serving.protocols.wire_types import MOST_ROWS, ragged, too_many

#: Rows that are texts at the same time; what was read is arrays.
_BLOCK = 8192
_LONGEST_LINE = 1024 * 1024
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_MISSING = {"", "nan", "null"}


class CsvBody:
    """A CsvBody reads comma-separated values in UTF-8; an empty cell is a missing value.

    A cell of an input that is an array holds it as JSON.
    """

    name = "csv"
    media_types = ("text/csv", "application/csv")

    def __init__(self, signature: Signature) -> None:
        self._signature = signature

    def prepare(self) -> None: ...

    def read(self, body: bytes) -> Columns:
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise _broken(f"the body is not UTF-8 at byte {error.start}") from None
        lines = csv.reader(_lines(text), strict=True)
        try:
            return self._read(lines)
        except csv.Error as error:
            raise _broken(f"the body is not CSV at line {lines.line_num}: {error}") from None

    def _read(self, lines: Iterator[list[str]]) -> Columns:
        header = [name.strip() for name in next(lines, [])]
        if not header:
            raise InputError("the body is empty", code="CL-E102", hint="send a line with the names of the inputs")
        _check_commas(header, self._signature)
        _check_names(header, self._signature)
        layout = Layout(self._signature, header)
        columns = [(field, _reader(field)) for field in layout.fields]
        parts: list[Columns] = []
        rows = 0
        filled = (line for line in lines if line)
        while block := list(islice(filled, _BLOCK)):
            if rows + len(block) > MOST_ROWS:
                raise too_many(rows + len(block), "rows", MOST_ROWS)
            parts.append(_block(block, rows, columns))
            rows += len(block)
        if not parts:
            raise InputError("there are no rows", code="CL-E102", where="request body", hint="send at least one")
        for field in layout.fields:
            if len({part[field.name].shape[1:] for part in parts}) > 1:
                raise ragged(field)
        return layout.join(join_rows(parts))

    def write(self, outputs: Columns) -> bytes:
        return _to_csv(spread(outputs, self._signature.outputs, matrices=True))

    def example(self, rows: Columns) -> str:
        return _to_csv(rows).decode()


def _check_commas(header: Sequence[str], signature: Signature) -> None:
    """Raises InputError for what a spreadsheet of some countries writes."""
    if len(header) == 1 and signature.input(header[0]) is None:
        for other, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if other in header[0]:
                raise InputError(f"the columns are separated by {name}", code="CL-E102", hint="send commas")


def _check_names(header: Sequence[str], signature: Signature) -> None:
    """Raises InputError where a row stands in place of the header, and would be lost without a word.

    A model of one matrix takes columns of any names. 0, 1, 2, … are names, as pandas writes them.
    """
    is_named = header == [str(at) for at in range(len(header))] or any(map(signature.input, header))
    if not is_named and all(map(_is_number, header)):
        raise InputError(
            "the first line holds numbers, where the names of the columns belong",
            code="CL-E102",
            where="request body",
            hint="send a line of names before the rows",
        )


def _is_number(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True


def _lines(text: str) -> Iterator[str]:
    for line in io.StringIO(text, newline=""):
        if len(line) > _LONGEST_LINE:
            raise csv.Error("the line has more than 1 MiB")
        yield line


def _block(
    block: list[list[str]], start: int, columns: Sequence[tuple[Field, Callable[[list[str]], Array]]]
) -> Columns:
    """The columns of some rows, whose first is number `start`. InputError for every bad value, at most 20."""
    width = len(columns)
    uneven = [
        Problem("CL-E102", f"row {start + at} has {len(row)} values", None, start + at, f"{width}, as the header")
        for at, row in enumerate(block)
        if len(row) != width
    ]
    if uneven:
        raise refuse(uneven[:MOST_PROBLEMS], where=f"request body, row {uneven[0].row}")
    read: Columns = {}
    problems: list[Problem] = []
    for (field, reader), texts in zip(columns, zip(*block, strict=True), strict=True):
        try:
            read[field.name] = reader(list(texts))
        except ValueError as error:
            found = _problems(field, reader, texts, start)
            if not found and isinstance(error.__cause__, InputError):
                raise error.__cause__ from None  # each cell is good by itself, but not beside the others
            problems.extend(found)
    if problems:
        problems.sort(key=lambda problem: problem.row or 0)
        raise refuse(problems[:MOST_PROBLEMS], where=f"request body, row {problems[0].row}")
    return read


def _problems(
    field: Field, reader: Callable[[list[str]], Array], texts: Sequence[str], start: int
) -> list[Problem]:
    problems: list[Problem] = []
    for row, text in enumerate(texts, start):
        try:
            reader([text])
        except ValueError:
            shown = repr(text if len(text) <= 40 else text[:39] + "…") if text else "empty"
            code = "CL-E105" if text else "CL-E106"
            message = f"`{field.name}` is {shown} in row {row}"
            problems.append(Problem(code, message, field.name, row, describe(field)))
            if len(problems) == MOST_PROBLEMS:
                break
    return problems


def _reader(field: Field) -> Callable[[list[str]], Array]:
    """A function from a column's cells to its array; ValueError where a cell is not what the field takes."""
    dtype = field.numpy_type
    if len(field.shape) > 1:
        return lambda texts: _arrays(field, texts)
    if field.datatype in FLOATS:
        return lambda texts: _floats(texts, dtype, nulls=field.missing)
    if field.datatype in INTEGERS:
        return lambda texts: _integers(texts, dtype)
    if field.datatype == "BOOL":
        return _booleans
    return lambda texts: _strings(texts, nulls=field.missing)


def _floats(texts: list[str], dtype: np.dtype[Any], *, nulls: bool) -> Array:
    _check_digits(texts)
    try:
        wide = np.array(list(map(float, texts)))
    except ValueError:
        if not nulls:
            raise
        wide = np.array([np.nan if text.strip().lower() in _MISSING else float(text) for text in texts])
    with np.errstate(over="ignore"):
        narrow = wide.astype(dtype)
    if np.isinf(narrow).any():
        raise ValueError("too large")
    return narrow


def _integers(texts: list[str], dtype: np.dtype[Any]) -> Array:
    _check_digits(texts)
    try:
        values = list(map(int, texts))
    except ValueError:  # 41.0, as a frame writes whole numbers that had gaps once
        values = list(map(_whole, texts))
    try:
        return np.array(values, dtype)
    except OverflowError:
        raise ValueError("too large") from None


def _whole(text: str) -> int:
    try:
        return int(text)  # exact where a float is not: 2^53 + 1
    except ValueError:
        value = float(text)
        if not value.is_integer():
            raise
        return int(value)


def _check_digits(texts: list[str]) -> None:
    """Python reads 1_000 and digits of any script as numbers; a table has no such."""
    joined = "".join(texts)
    if "_" in joined or not joined.isascii():
        raise ValueError("not plain digits")


def _booleans(texts: list[str]) -> Array:
    try:
        return np.array([_BOOLEANS[text.strip().lower()] for text in texts])
    except KeyError:
        raise ValueError("not a boolean") from None


def _strings(texts: list[str], *, nulls: bool) -> Array:
    column = np.empty(len(texts), object)
    column[:] = [text or None for text in texts] if nulls else texts
    return column


def _arrays(field: Field, texts: list[str]) -> Array:
    try:
        values = [msgspec.json.decode(text) for text in texts]
        return read_values([field], {field.name: values})[field.name]
    except (msgspec.DecodeError, RecursionError, InputError) as error:
        raise ValueError(str(error)) from error


def _to_csv(columns: Columns) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    lists = [column.tolist() if column.ndim == 1 else _as_json(column) for column in columns.values()]
    writer.writerows(zip(*lists, strict=True))
    return out.getvalue().encode()


def _as_json(column: Array) -> list[str]:
    return [msgspec.json.encode(value).decode() for value in column.tolist()]


def _broken(message: str) -> InputError:
    return InputError(
        message, code="CL-E101", where="request body", hint="send UTF-8, commas, and quotes as RFC 4180 has them"
    )
