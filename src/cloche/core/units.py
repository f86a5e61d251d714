"""Words with units: `100ms`, `5m`, `64MB`, `1%`, `100/s`."""

from __future__ import annotations

import re
from datetime import timedelta

import msgspec

from cloche.core.errors import ConfigError

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_LONGEST = 80
_WORD = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z]+)\s*", re.ASCII)
_SHARE = re.compile(r"\s*([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%\s*", re.ASCII)
_RATE = re.compile(r"\s*([0-9]{1,10})\s*/\s*(s|m|h)\s*", re.ASCII)


class Rate(msgspec.Struct, frozen=True):
    """A Rate is at most `count` requests in `window_s` seconds."""

    count: int
    window_s: int


def shown(value: object) -> str:
    """A value as a message repeats it: on one line, and not without end."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def parse_duration(value: str | float | timedelta) -> float:
    """Seconds of `"100ms"`, `"5m"`, a number of seconds or a timedelta; ConfigError otherwise."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    if isinstance(value, str) and (match := _WORD.fullmatch(value)) and match[2] in _SECONDS:
        return float(match[1]) * _SECONDS[match[2]]
    raise ConfigError(f"{shown(value)} is not a duration", code="CL-E201", hint="write 100ms, 5s, 2m, 1h or 7d")


def parse_size(value: str | int) -> int:
    """Bytes of `"64MB"`, `"2GiB"` or a number of bytes; ConfigError otherwise."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := _WORD.fullmatch(value)) and match[2] in _BYTES:
        return int(float(match[1]) * _BYTES[match[2]])
    raise ConfigError(f"{shown(value)} is not a size", code="CL-E201", hint="write 512kB, 64MB or 2GB")


def parse_rate(value: str) -> Rate:
    """`"100/s"`, `"600/m"` or `"1000/h"`; ConfigError otherwise."""
    if isinstance(value, str) and (match := _RATE.fullmatch(value)) and 0 < int(match[1]) <= 10**9:
        return Rate(int(match[1]), int(_SECONDS[match[2]]))
    raise ConfigError(f"{shown(value)} is not a rate", code="CL-E201", hint="write 100/s, 600/m or 1000/h")


def format_size(size: float) -> str:
    """`1.2 MB`, as people read it."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def format_duration(seconds: float) -> str:
    """`21 µs`, `4.1 ms` or `1.8 s`, as people read it."""
    for unit, scale in (("µs", 1e6), ("ms", 1e3)):
        if seconds * scale < 999.5:
            number = seconds * scale
            return f"{number:.0f} {unit}" if number >= 99.5 or unit == "µs" else f"{number:.1f} {unit}"
    return f"{seconds:.1f} s"


def parse_share(value: object) -> float:
    """A share as in "1%" or "0.05%", as a number from 0 to 1; ConfigError CL-E201 otherwise."""
    match = _SHARE.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) > 100:
        raise ConfigError(f"{shown(value)} is not a share", code="CL-E201", hint="write 1% or 0.05%")
    return float(match[1]) / 100
