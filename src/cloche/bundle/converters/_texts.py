"""Rows of one text each, as people hold them: a list, a series, or the one column of strings of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cloche.bundle.rows import is_frame, to_columns
from cloche.core.errors import ConfigError, InputError
from cloche.core.signature import Array
from cloche.core.words import listed

#: The name of the input where the rows don't give it one.
TEXT = "text"

#: Where no rows are given, and beside those that are: what tells tokenisers from each other.
HARD = (
    "",
    " ",
    "a",
    "Never seen before: qzxv 12345 snake_case 3.14",
    "ÀÉÎ straße ﬁne naïve İstanbul ǅ",
    "don't stop-believing,it's  two\tspaces\nand a line",
    "日本語のテキスト и кириллица عربى",
    "e\u0301 combining, emoji 👍🏽, zero\u200bwidth",
)


class Texts(NamedTuple):
    """Texts are a named column of strings."""

    name: str
    column: Array
    #: Columns that were given beside it.
    unused: tuple[str, ...] = ()


def read_texts(rows: object) -> Texts:
    """The one column of strings of these rows; of several, the one called `text`.

    Raises InputError for anything else and for a text that is missing, ConfigError for no rows.
    """
    if isinstance(rows, str):
        raise InputError("these rows are one string", code="CL-E110", hint="give a list of texts")
    if isinstance(rows, Mapping) or is_frame(rows) or _holds_mappings(rows):
        texts = _only_text(rows)
    else:
        name = getattr(rows, "name", None)  # of a series
        texts = Texts(name if isinstance(name, str) and name else TEXT, _column(rows))
    if not len(texts.column):
        raise ConfigError("there are no rows", code="CL-E204", hint="give at least one text")
    for row, value in enumerate(texts.column):
        if not isinstance(value, str):
            raise InputError(
                f"`{texts.name}` is {type(value).__name__} in row {row}",
                code="CL-E105",
                hint="give a string in each row, and leave out the rows that have none",
            )
    return texts


def _column(rows: Any) -> Array:
    try:
        items = list(rows)
    except TypeError:
        raise InputError("these rows are no list of texts", code="CL-E110", hint="give a list of texts") from None
    column = np.empty(len(items), dtype=object)
    column[:] = items
    return column


def _holds_mappings(rows: object) -> bool:
    return isinstance(rows, (list, tuple)) and bool(rows) and all(isinstance(row, Mapping) for row in rows)


def _only_text(rows: object) -> Texts:
    columns = to_columns(rows)
    strings = [name for name, column in columns.items() if column.dtype == object and column.ndim == 1]
    if len(strings) != 1 and TEXT not in strings:
        raise InputError(
            f"{len(strings)} columns of the rows hold strings: {listed(strings)}"
            if strings
            else "no column of the rows holds strings",
            code="CL-E105",
            hint=f"give the one column that the model takes, or call it {TEXT!r}",
        )
    name = strings[0] if len(strings) == 1 else TEXT
    return Texts(name, columns[name], tuple(each for each in columns if each != name))
