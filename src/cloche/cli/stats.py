"""`cloche stats`: what deployments answered in the last hours or days."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from cloche.cli.place import Elsewhere, place
from cloche.cli.terminal import Terminal, table
from cloche.core.units import format_duration

_Terminal = Annotated[Terminal, Parameter(parse=False)]
_HEADER = ["TIME", "DEPLOYMENT", "VERSION", "REQUESTS", "REQ/S", "ERRORS", "P50", "P95", "P99"]


def stats(
    name: str | None = None,
    /,
    *,
    last: str = "1h",
    no_header: bool = False,
    elsewhere: Elsewhere | None = None,
    terminal: _Terminal,
) -> None:
    """Show requests, errors and times of the last hours or days, by minute, hour or day; served now or not.

    Errors are answers of 500 and above; what callers did wrong is counted as requests. The lines of "all" are over
    all of the time.

    Parameters
    ----------
    name
        One deployment; all of them when not given.
    last
        How far to look back: 1h, 24h, 7d, at most 400d.
    no_header
        Leave out the line with the columns' names.
    """
    with place(terminal, elsewhere, create=False) as where:
        told = where.stats(name, last)
    rows = [_row(one["time"], one) for one in told["items"]] + [_row("all", one) for one in told["totals"]]
    terminal.answer(told["kind"], told, table(_HEADER, rows, no_header=no_header))
    if not rows:
        terminal.note(
            f"nothing was answered in the last {last}; look further back with --last 7d, or cloche up MODEL"
        )


def _row(time: str, one: Mapping[str, Any]) -> list[object]:
    return [
        time,
        one["deployment"],
        one["version"],
        one["requests"],
        f"{one['per_second']:.1f}",
        f"{100 * one['error_share']:.2f}%",
        *(_took(one[share]) for share in ("p50_ms", "p95_ms", "p99_ms")),
    ]


def _took(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else format_duration(milliseconds / 1000)
