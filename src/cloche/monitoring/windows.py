"""What a deployment's versions answered by time: requests, errors and how long it took, from the statistics."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import msgspec

from cloche.monitoring.latency import BOUNDS, DURATION, milliseconds, quantile
from cloche.store.increases import DAY, HOUR, MINUTE, SECOND, merge
from cloche.store.statistics import Statistics

REQUESTS = "cloche_requests_total"
ERRORS = "cloche_errors_total"


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A Window is what one version answered in the `seconds` from `start` (since 1970) on.

    `errors` are answers of 500 and above, `refused` those of 400 to 498, which are the caller's to mend; `reasons`
    are the codes of both. Times are milliseconds, None where nothing was answered.
    """

    start: float
    seconds: float
    deployment: str
    version: int
    requests: int
    errors: int
    refused: int
    codes: dict[str, int]
    reasons: dict[str, int]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A Seen is what was answered in a time: by window, the oldest first, and over all of it, each by version."""

    windows: tuple[Window, ...]
    totals: tuple[Window, ...]


def resolution_of(seconds: float) -> int:
    """How long a window is, so that so much time is a table that fits a screen or two."""
    for step, most_s in ((SECOND, MINUTE), (MINUTE, 2 * HOUR), (HOUR, 3 * DAY)):
        if seconds <= most_s:
            return step
    return DAY


def over(
    statistics: Statistics,
    since: float,
    until: float,
    resolution: int,
    *,
    deployment: str | None = None,
    version: int | None = None,
) -> Seen:
    """What was answered from `since` to `until`, in windows of `resolution` seconds.

    The first one holds `since` and is whole. What is kept in longer stretches stands in windows as long as those.
    """
    begin = int(since - since % resolution)
    wanted = {"deployment": deployment, "version": version}
    named = {label: str(value) for label, value in wanted.items() if value is not None}
    labels, grown = statistics.read(begin, int(until) + 1, (REQUESTS, ERRORS, DURATION), **named)
    stretches: dict[int, list[Mapping[int, int]]] = {}
    lengths: dict[int, int] = {}
    for one in grown:
        start = one.start - one.start % resolution
        stretches.setdefault(start, []).append(one.increases)
        lengths[start] = max(lengths.get(start, resolution), one.step)
    merged = {start: merge(many) for start, many in sorted(stretches.items())}
    windows = (
        _windows(start, min(lengths[start], until - start), increases, labels)
        for start, increases in merged.items()
    )
    first = min(merged, default=begin)
    return Seen(
        windows=tuple(chain.from_iterable(windows)),
        totals=tuple(_windows(first, until - first, merge(merged.values()), labels)),
    )


def _windows(
    start: int, seconds: float, increases: Mapping[int, int], labels: Mapping[int, Mapping[str, str]]
) -> list[Window]:
    """What each version answered."""
    versions: dict[tuple[str, int], dict[str, dict[str, int]]] = {}
    for number, value in increases.items():
        one = labels[number]
        key = one.get("code") or one.get("reason") or one.get("le")
        if key is None:  # the sum of a histogram
            continue
        by_name = versions.setdefault((one["deployment"], int(one["version"])), {})
        counts = by_name.setdefault(one["name"], {})
        counts[key] = counts.get(key, 0) + value
    return [
        _window(start, seconds, deployment, version, by_name)
        for (deployment, version), by_name in sorted(versions.items())
    ]


def _window(
    start: int, seconds: float, deployment: str, version: int, by_name: Mapping[str, Mapping[str, int]]
) -> Window:
    codes = by_name.get(REQUESTS, {})
    took = by_name.get(DURATION, {})
    buckets = [took.get(bound, 0) for bound in BOUNDS]
    return Window(
        start=start,
        seconds=seconds,
        deployment=deployment,
        version=version,
        requests=sum(codes.values()),
        errors=sum(count for code, count in codes.items() if int(code) >= 500),
        refused=sum(count for code, count in codes.items() if 400 <= int(code) < 499),
        codes=dict(sorted(codes.items())),
        reasons=dict(sorted(by_name.get(ERRORS, {}).items())),
        p50_ms=milliseconds(quantile(buckets, 0.5)),
        p95_ms=milliseconds(quantile(buckets, 0.95)),
        p99_ms=milliseconds(quantile(buckets, 0.99)),
    )
