"""What happened to deployments, by whom and why: append-only."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, insert, select

from cloche.store.database import Store
from cloche.store.tables import events

#: The action of an event that asks a person to look.
PAGE = "page"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An Event is one thing that happened to a deployment; `time` is seconds since 1970, UTC."""

    id: int
    time: float
    deployment: str
    rollout: int | None
    who: str
    action: str
    version: int
    why: str


def add_event(
    connection: Connection,
    time: float,
    deployment: str,
    rollout: int | None,
    who: str,
    action: str,
    version: int,
    why: str,
) -> None:
    """Add to the history within a change."""
    row = {"time": time, "deployment": deployment, "rollout": rollout, "who": who[:200]}
    connection.execute(insert(events).values(**row, action=action, version=version, why=why))


def list_events(store: Store, deployment: str | None = None, *, most: int = 100) -> tuple[Event, ...]:
    """The newest events, at most so many, the oldest of them first."""
    wanted = select(events).order_by(events.c.id.desc()).limit(most)
    if deployment is not None:
        wanted = wanted.where(events.c.deployment == deployment)
    with store.read() as connection:
        rows = connection.execute(wanted).all()
    return tuple(Event(**row._mapping) for row in reversed(rows))
