"""Batch runs as every answer shows them, when the next are due, and whether one will be over by then."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cloche.batch.plan import Plan
from cloche.batch.schedule import Past, expected_s
from cloche.core.masked import masked
from cloche.core.shape import moment
from cloche.settings import Batch
from cloche.store.batches import Batches, RunRow

_PASTS = 10


def plan_of(row: RunRow) -> Plan:
    """The plan of a run."""
    return msgspec.convert(row.plan, Plan)


def run_body(row: RunRow) -> dict[str, Any]:
    """A run, without passwords."""
    plan = plan_of(row)
    return {
        "run": row.id,
        "name": row.name,
        "state": row.state,
        "model": plan.ref,
        "digest": plan.digest,
        "source": masked(plan.source),
        "sink": masked(plan.sink),
        "key": plan.key,
        "chunk": plan.chunk,
        "rejects": plan.rejects,
        "rows": row.rows,
        "rejected": row.rejected,
        "total": row.total,
        "attempt": row.attempt,
        "holder": row.holder if row.state == "running" else None,
        "slot": moment(row.slot),
        "started": moment(row.started),
        "ended": moment(row.ended),
        "why": row.why,
        "report": row.report,
    }


def schedule_body(batch: Batch, now: float) -> dict[str, Any]:
    """When a batch run that is described is due next; nulls where only people run it."""
    schedule = batch.schedule
    return {
        "name": batch.name,
        "schedule": None if schedule is None else schedule.cron,
        "timezone": None if schedule is None else schedule.timezone,
        "next": None if schedule is None else moment(schedule.next(now)),
    }


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """An Outlook is how long a run is likely to take, and what it would be late for."""

    seconds: float
    #: When its next slot is, and how far that is away; None without a schedule.
    next: float | None
    until_next_s: float | None
    deadline_s: float | None

    @property
    def is_in_time(self) -> bool:
        return self.seconds < min(self.until_next_s or float("inf"), self.deadline_s or float("inf"))

    def words(self) -> str:
        """In a sentence."""
        takes = f"its last runs say that it takes about {lasting(self.seconds)}"
        if self.deadline_s is not None and self.seconds >= self.deadline_s:
            return f"warning: {takes}, longer than its deadline of {lasting(self.deadline_s)}"
        if self.next is None or self.until_next_s is None:
            return takes
        when = f"its next slot, {moment(self.next)}"
        if self.seconds >= self.until_next_s:
            return f"warning: {takes}: it will not be over before {when}, which waits for it"
        return f"{takes}: it will be over before {when}"


def outlook(batches: Batches, batch: Batch, now: float | None = None) -> Outlook | None:
    """What the last runs of a name say of the next; None where they say nothing."""
    now = time.time() if now is None else now
    seconds = expected_s(pasts(batches.list(batch.name, most=_PASTS)))
    if seconds is None:
        return None
    following = None if batch.schedule is None else batch.schedule.next(now)
    return Outlook(
        seconds=seconds,
        next=following,
        until_next_s=None if following is None else following - now,
        deadline_s=batch.deadline_s,
    )


def pasts(rows: Sequence[RunRow]) -> list[Past]:
    """What those took that were completed in one go."""
    whole = [row for row in rows if row.state.startswith("completed") and row.attempt == 1 and row.report]
    return [Past(rows=row.rows, seconds=float((row.report or {}).get("seconds", 0.0))) for row in whole]


def lasting(seconds: float) -> str:
    """`12 s`, `5 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def shown_sink(plan: Plan) -> str:
    """Where a run writes to, as short as it can be named from here and without a password."""
    if "://" in plan.sink or plan.sink.startswith(("env:", "file:")):
        return masked(plan.sink)
    here = Path.cwd()
    return str(Path(plan.sink).relative_to(here)) if Path(plan.sink).is_relative_to(here) else plan.sink
