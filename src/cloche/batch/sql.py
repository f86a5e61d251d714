"""What a column of a sink's table is, and what its cells are, whatever the values come as."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime
from typing import Any, Literal

import msgspec
import numpy as np

from cloche.batch.checkpoint import STAMPS
from cloche.batch.sinks import listed
from cloche.batch.values import is_arrow
from cloche.core.errors import ConfigError

SqlKind = Literal["whole", "float", "real", "bool", "text", "time", "day", "other"]
LEDGER = "cloche_chunks"
_ARROW: tuple[tuple[str, SqlKind], ...] = (
    ("int", "whole"), ("uint", "whole"), ("float", "real"), ("halffloat", "real"), ("double", "float"),
    ("bool", "bool"), ("string", "text"), ("large_string", "text"), ("null", "text"), ("timestamp", "time"),
    ("date", "day"),
)  # fmt: skip
_PYTHON: Mapping[type, SqlKind] = {
    int: "whole", float: "float", bool: "bool", str: "text", datetime: "time", date: "day",
}  # fmt: skip
_NUMPY: Mapping[str, SqlKind] = {"i": "whole", "u": "whole", "f": "float", "b": "bool"}


def kind_of_column(values: Any) -> SqlKind:
    """What the column is, by its type or by the first value that there is."""
    if is_arrow(values):
        name = str(values.type).partition("[")[0].rstrip("0123456789")
        return dict(_ARROW).get(name, "other")
    if isinstance(values, np.ndarray) and values.dtype.kind in _NUMPY and values.ndim == 1:
        return "real" if values.dtype == np.float32 else _NUMPY[values.dtype.kind]
    first = next((value for value in values if value is not None), "")
    return _PYTHON.get(type(first), "other")


def cells(values: Any, kind: SqlKind) -> list[Any]:
    """The values as a database without types for times and lists takes them."""
    found = listed(values)
    if kind in ("time", "day"):
        return [value.isoformat() if isinstance(value, date) else value for value in found]
    return [_cell(value) for value in found] if kind in ("other", "text") else found


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, (str, bytes, int, float)):
        return value
    return value.isoformat() if isinstance(value, date) else msgspec.json.encode(value).decode()


def check_columns(table: str, there: Collection[str], wanted: Collection[str]) -> None:
    """Raises ConfigError CL-E210 where a sink's table lacks columns of the rows."""
    missing = [name for name in wanted if name not in there]
    if missing:
        raise ConfigError(
            f"the table {table} has no column {', '.join(repr(name) for name in missing[:5])}",
            code="CL-E210",
            hint="add it, name another table, or choose what is carried over with --keep; every row has "
            f"{', '.join(STAMPS)} besides",
        )


def no_unique_key(table: str, key: str, make: Callable[[str], str]) -> ConfigError:
    return ConfigError(
        f"the table {table} can't have one row a key: nothing makes {key!r} unique",
        code="CL-E210",
        hint=f"CREATE UNIQUE INDEX ON {make(table)} ({make(key)}), or name another table",
    )
