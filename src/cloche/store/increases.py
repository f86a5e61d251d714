"""By how much series grew, by their numbers, in few bytes; and which of it is folded when. Pure.

Seconds become minutes, minutes hours, hours days, by addition. What is folded is moved: nothing stands in two
places, so that any time is the sum of all that lies in it, however much of that was folded.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import NamedTuple

import msgspec

SECOND, MINUTE, HOUR, DAY = 1, 60, 3600, 86400
#: How long what was counted in so many seconds is kept so, and what it is folded into then.
KEPT: tuple[tuple[int, int, int | None], ...] = (
    (SECOND, 10 * MINUTE, MINUTE),
    (MINUTE, DAY, HOUR),
    (HOUR, 35 * DAY, DAY),
    (DAY, 400 * DAY, None),
)
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(tuple[list[int], list[int]])

Increases = Mapping[int, int]


class Fold(NamedTuple):
    """A Fold is what is to be made one: all of `step` seconds from `start` to before `end`; None: dropped."""

    step: int
    start: int
    end: int
    into: int | None


def pack(increases: Increases) -> bytes:
    """Numbers as steps from one to the next, then values: those of one model lie in a row, so most steps are 1."""
    numbers = sorted(increases)
    steps = [number - before for number, before in zip(numbers, [0, *numbers], strict=False)]
    return zlib.compress(_encode((steps, [increases[number] for number in numbers])), 1)


def unpack(packed: bytes) -> dict[int, int]:
    """What was packed."""
    steps, values = _decoder.decode(zlib.decompress(packed))
    return dict(zip(accumulate(steps), values, strict=True))


def merge(many: Iterable[Increases]) -> dict[int, int]:
    """The sum of all, without what comes to nothing."""
    total: dict[int, int] = {}
    for one in many:
        for number, value in one.items():
            total[number] = total.get(number, 0) + value
    return {number: value for number, value in total.items() if value}


def since(before: Increases, now: Increases) -> dict[int, int]:
    """By how much series grew since sums were so."""
    return {
        number: value - before.get(number, 0) for number, value in now.items() if value != before.get(number, 0)
    }


def due(oldest: Mapping[int, int], now: float) -> Fold | None:
    """What is folded next, where the oldest of each step began then; at most what becomes one row."""
    for step, kept_s, into in KEPT:
        if step not in oldest:
            continue
        start = oldest[step] - oldest[step] % (into or step)
        end = start + (into or step)
        if end + kept_s <= now:
            return Fold(step, start, end, into)
    return None
