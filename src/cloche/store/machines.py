"""Machines that share a store: who leads, by a lease, and what each has seen; times are the database's clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from cloche.core.errors import ConflictError
from cloche.store.database import Database, Store
from cloche.store.tables import leases, machines

LEASE_S = 10.0
#: A machine that said nothing for so long serves nobody, as far as the others know.
LIVE_S = 5.0
_CONTROLLER = "controller"


class MachineReport(msgspec.Struct, frozen=True, kw_only=True):
    """A MachineReport is what one machine says of itself; `revision` is what all of its workers have applied."""

    workers: int
    revision: int
    #: By the number of a rollout.
    seen: Mapping[str, Any] = {}


class Lease:
    """A Lease makes one of several controllers the leader.

    `take` gives true to the leader, who asks again well within LEASE_S seconds. Whoever becomes it gets a fence
    higher than all before; `check` in a change refuses who has been succeeded, however late its change comes.
    """

    def __init__(self, store: Store, holder: str) -> None:
        self._store = store
        self._holder = holder
        self._fence: int | None = None

    def take(self) -> bool:
        """Become or stay the leader, where no other's lease runs."""
        try:
            self._take()
        except IntegrityError:  # another began at the very same moment
            self._fence = None
        return self._fence is not None

    def _take(self) -> None:
        with self._store.note() as connection:
            now = database_now(self._store, connection)
            row = connection.execute(_held(for_update=True)).first()
            until = {"holder": self._holder, "until": now + LEASE_S}
            if row is None:
                connection.execute(insert(leases).values(name=_CONTROLLER, fence=1, **until))
                self._fence = 1
            elif row.holder == self._holder and row.fence == self._fence:
                connection.execute(update(leases).where(leases.c.name == _CONTROLLER).values(until))
            elif row.until <= now or row.holder == self._holder:
                self._fence = int(row.fence) + 1
                fresh = {**until, "fence": self._fence}
                connection.execute(update(leases).where(leases.c.name == _CONTROLLER).values(fresh))
            else:
                self._fence = None

    def give_up(self) -> None:
        """Let another lead at once."""
        if self._fence is None:
            return
        mine = (leases.c.name == _CONTROLLER) & (leases.c.fence == self._fence)
        with self._store.note() as connection:
            connection.execute(update(leases).where(mine).values(until=0.0))
        self._fence = None

    def check(self, connection: Connection) -> None:
        """ConflictError CL-E506 in a change of who is not the leader any more; nothing of it is kept."""
        row = connection.execute(_held(for_update=True)).first()
        if self._fence is None or row is None or row.fence != self._fence:
            raise ConflictError("another controller leads now", code="CL-E506", hint="it goes on by itself")


class Machines:
    """A Machines is the machines of a store, each of which writes its own row."""

    def __init__(self, store: Store, own: str) -> None:
        self._store = store
        self._own = own

    def report(self, report: MachineReport) -> None:
        """Say how this machine stands, which also says that it lives."""
        with self._store.note() as connection:
            values = {"seen": database_now(self._store, connection), "report": msgspec.to_builtins(report)}
            changed = connection.execute(update(machines).where(machines.c.id == self._own).values(values))
            if changed.rowcount == 0:
                connection.execute(insert(machines).values(id=self._own, **values))

    def others(self, within_s: float = LIVE_S) -> dict[str, MachineReport]:
        """What the other machines that live said last, by their ids."""
        with self._store.read() as connection:
            since = database_now(self._store, connection) - within_s
            wanted = select(machines).where(machines.c.seen >= since, machines.c.id != self._own)
            return {row.id: msgspec.convert(row.report, MachineReport) for row in connection.execute(wanted)}


def database_now(store: Database, connection: Connection) -> float:
    """Seconds since 1970 by the clock that all machines of a store share."""
    if connection.dialect.name == "postgresql":
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    return store.now()


@contextmanager
def fenced(store: Store, lease: Lease | None, *, quiet: bool = False) -> Iterator[Connection]:
    """A change (`quiet`: one that no process must see) that only the leader makes, where there is a lease."""
    with store.note() if quiet else store.change() as connection:
        if lease is not None:
            lease.check(connection)
        yield connection


def _held(*, for_update: bool) -> Any:
    wanted = select(leases).where(leases.c.name == _CONTROLLER)
    return wanted.with_for_update() if for_update else wanted
