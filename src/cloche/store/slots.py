"""The moments of batch schedules in the store: each is claimed once and gets one run, whoever looks."""

from __future__ import annotations

from typing import Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from cloche.core.errors import ConflictError
from cloche.store.database import Store
from cloche.store.machines import Lease, database_now, fenced
from cloche.store.tables import batch_slots

#: `since`: the schedule holds from here on; `claimed`: somebody is about to run it; `run`: it has its run;
#: `failed`: no run could be begun.
SlotState = Literal["since", "claimed", "run", "failed"]


class SlotRow(msgspec.Struct, frozen=True, kw_only=True):
    """A SlotRow is one moment of a schedule; `slot` is seconds since 1970, UTC."""

    name: str
    slot: float
    schedule: str
    state: SlotState
    #: When that was, by the database's clock, and how long ago that is.
    claimed: float
    age_s: float
    run: str | None
    why: str


class Slots:
    """A Slots is the moments of all schedules of a store; `lease` is that of the controller who runs them."""

    def __init__(self, store: Store, lease: Lease | None = None) -> None:
        self._store = store
        self._lease = lease

    def last(self, name: str) -> SlotRow | None:
        """The latest moment of a schedule."""
        wanted = select(batch_slots).where(batch_slots.c.name == name).order_by(batch_slots.c.slot.desc()).limit(1)
        with self._store.read() as connection:
            now = database_now(self._store, connection)
            row = connection.execute(wanted).first()
        return None if row is None else SlotRow(**row._mapping, age_s=now - row.claimed)

    def since(self, name: str, schedule: str, moment: float) -> None:
        """Say that a schedule holds from a moment on: what would have been before is not caught up with."""
        self._add(name, moment, schedule, "since")

    def claim(self, name: str, slot: float, schedule: str) -> bool:
        """Take a slot, to run it; false where somebody else has. Raises ConflictError CL-E506."""
        return self._add(name, slot, schedule, "claimed")

    def fail(self, name: str, slot: float, why: str) -> None:
        """Say why a slot that has no run gets none."""
        with self._store.note() as connection:
            values = {"state": "failed", "why": why}
            connection.execute(update(batch_slots).where(_open(name, slot)).values(values))

    def _add(self, name: str, slot: float, schedule: str, state: SlotState) -> bool:
        try:
            with fenced(self._store, self._lease, quiet=True) as connection:
                now = database_now(self._store, connection)
                row = {"name": name, "slot": slot, "schedule": schedule, "state": state}
                connection.execute(insert(batch_slots).values(**row, claimed=now, why=""))
        except IntegrityError:
            return False
        return True


def give_slot(connection: Connection, name: str, slot: float, run: str) -> None:
    """Give a claimed slot its run, within a change. Raises ConflictError CL-E520 where it has one."""
    values = {"state": "run", "run": run}
    if connection.execute(update(batch_slots).where(_open(name, slot)).values(values)).rowcount == 0:
        raise ConflictError(
            f"the slot of {name} has its run already", code="CL-E520", hint=f"cloche batch show {name}"
        )


def _open(name: str, slot: float) -> ColumnElement[bool]:
    return (batch_slots.c.name == name) & (batch_slots.c.slot == slot) & (batch_slots.c.run.is_(None))
