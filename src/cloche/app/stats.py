"""What was answered in the last hours or days, as every JSON answer shows it."""

from __future__ import annotations

from typing import Any

import msgspec

from cloche.app.project import Project
from cloche.core.errors import ConfigError
from cloche.core.shape import body, moment
from cloche.core.units import parse_duration
from cloche.monitoring.windows import Window, over, resolution_of
from cloche.store.deployments import Deployments
from cloche.store.increases import DAY
from cloche.store.statistics import Statistics
from cloche.store.watch import WatchStore

_MOST_DAYS = 400


def stats(project: Project, name: str | None, last: str) -> dict[str, Any]:
    """Requests, errors and times of every deployment, or the one of this name (NotFoundError), by time."""
    seconds = parse_duration(last)
    if not 1 <= seconds <= _MOST_DAYS * DAY:
        raise ConfigError(f"{last} is no time to look back", hint=f"from 1s to {_MOST_DAYS}d: 1h, 24h or 7d")
    if name is not None:
        Deployments(project.store).get(name)
    resolution = resolution_of(seconds)
    # opened each time: where nothing was counted yet there is no file, and a moment later there may be
    with WatchStore(project.settings.database, create=False, clock=project.store.now) as watch:
        statistics = Statistics(watch)
        until = statistics.now()
        seen = over(statistics, until - seconds, until, resolution, deployment=name)
    return body(
        "Statistics",
        since=moment(until - seconds),
        until=moment(until),
        resolution_s=resolution,
        items=[_shown(window) for window in seen.windows],
        totals=[_shown(window) for window in seen.totals],
    )


def _shown(window: Window) -> dict[str, Any]:
    shown = msgspec.to_builtins(window)
    start = shown.pop("start")
    return {
        "time": moment(start),
        **shown,
        "per_second": window.requests / window.seconds,
        "error_share": window.errors / window.requests if window.requests else 0.0,
    }
