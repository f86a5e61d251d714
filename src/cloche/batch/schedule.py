"""When a batch run is due: slots of a cron expression in a time zone, each known by its instant in UTC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from cloche.core.errors import ConfigError

#: What becomes of slots that passed while nobody could run them: the latest is made up for, each is, or none.
CatchUp = Literal["latest", "all", "none"]
#: A slot that is no older was not missed.
PUNCTUAL_S = 60.0
_DAY_S = 86_400.0
#: How far back the latest slot is looked for; in steps, so that a slot a minute costs no more than one a year.
_WINDOWS_S = (3_600.0, _DAY_S, 32 * _DAY_S, 367 * _DAY_S, 5 * 366 * _DAY_S)
#: From how many of the last runs the speed is told.
_PASTS = 5


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A Schedule is a cron expression (Debian's rules), the zone whose clock it means, and how it catches up.

    On the day a clock is put forward, what falls into the hour that is not there runs right after it; on the day
    it is put back, what names an hour runs once, and what runs each hour or minute runs in both.
    """

    cron: str
    timezone: str = "UTC"
    catch_up: CatchUp = "latest"

    def __str__(self) -> str:
        return f"{self.cron} {self.timezone}"

    def after(self, moment: float) -> Iterator[float]:
        """The slots later than a moment, in order, in seconds since 1970."""
        start = datetime.fromtimestamp(moment, ZoneInfo(self.timezone))
        for slot in CronSim(self.cron, start):
            at = slot.astimezone(UTC).timestamp()
            if at > moment:  # in an hour that comes twice, cron's clock alone does not say which
                yield at

    def next(self, moment: float) -> float | None:
        """The first slot later than a moment; None where there is none in fifty years."""
        return next(self.after(moment), None)

    def latest(self, since: float, now: float) -> float | None:
        """The last slot later than `since` that is not later than `now`."""
        for window in _WINDOWS_S:
            found = None
            for slot in self.after(max(since, now - window)):
                if slot > now:
                    break
                found = slot
            if found is not None or now - window <= since:
                return found
        return None


def due(schedule: Schedule, last: float, now: float) -> float | None:
    """The slot to run now, where `last` is the last one that was run, or when the schedule began to hold.

    A batch that still runs has no due slot: what passes meanwhile is missed, and then caught up with or not.
    """
    if schedule.catch_up == "all":
        slot = schedule.next(last)
        return slot if slot is not None and slot <= now else None
    slot = schedule.latest(last, now)
    if slot is None or (schedule.catch_up == "none" and now - slot > PUNCTUAL_S):
        return None
    return slot


def check_cron(text: str) -> str:
    """The expression with single blanks; ConfigError CL-E201 says what is wrong with it."""
    fields = text.split()
    hint = 'write minute, hour, day, month and weekday: "0 2 * * *" is each night at two'
    if len(fields) != 5:
        raise ConfigError(f"{text!r} has {len(fields)} fields, a schedule five", code="CL-E201", hint=hint)
    try:
        never = next(CronSim(" ".join(fields), datetime(2024, 1, 1, tzinfo=UTC)), None) is None
    except (CronSimError, ValueError) as error:
        said = str(error).replace("Bad ", "the ") or "a field"
        raise ConfigError(f"{said} of {text!r} can't be read", code="CL-E201", hint=hint) from None
    if never:
        raise ConfigError(f"{text!r} never comes", code="CL-E201", hint=hint)
    return " ".join(fields)


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """A Past is what an earlier run of the same batch took."""

    rows: int
    seconds: float


def expected_s(pasts: Sequence[Past], rows: int | None = None) -> float | None:
    """How long a run of so many rows (None: as many as last time) is likely to take; the newest run comes first.

    None where no earlier run says anything.
    """
    known = [past for past in pasts if past.rows > 0 and past.seconds > 0][:_PASTS]
    if not known:
        return None
    speed = median(past.rows / past.seconds for past in known)
    return (known[0].rows if rows is None else rows) / speed
