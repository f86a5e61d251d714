"""The one form of every JSON answer, on the command line and of the admin API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

#: Of every answer; fields are only ever added to it.
VERSION = 1
#: Rows of a list that one answer holds at most.
MOST = 10_000


def body(kind: str, /, **value: Any) -> dict[str, Any]:
    """An answer of this kind: `{"kind": …, "version": 1, …}`."""
    return {"kind": kind, "version": VERSION, **value}


def moment(seconds: float | None) -> str | None:
    """A time in seconds since 1970 as RFC 3339 in UTC."""
    return None if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def bounded(limit: int) -> int:
    """How many rows an answer holds where so many are asked for."""
    return max(1, min(limit, MOST))
