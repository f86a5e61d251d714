"""How many workers a person wants on a machine, whatever its load; kept until the person wants it no more."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from cloche.store.audit import audit
from cloche.store.database import Store
from cloche.store.events import add_event
from cloche.store.tables import deployments, scales


class Scale:
    """A Scale is the number that a person wants on one machine of a store, where there is one."""

    def __init__(self, store: Store, machine: str) -> None:
        self._store = store
        self._machine = machine

    def get(self) -> int | None:
        """None: as the machine's cloche.toml says."""
        with self._store.read() as connection:
            return self._held(connection)

    def set(self, workers: int | None, who: str) -> int | None:
        """Want so many from now on (None: as cloche.toml says); how many were wanted before."""
        why = "as cloche.toml says" if workers is None else f"{workers} on {self._machine}, whatever the load"
        with self._store.change() as connection:
            before = self._held(connection)
            if before == workers:
                return before
            connection.execute(delete(scales).where(scales.c.machine == self._machine))
            now = self._store.now()
            if workers is not None:
                row = {"machine": self._machine, "workers": workers, "who": who[:200], "since": now}
                connection.execute(insert(scales).values(row))
            for held in connection.execute(select(deployments.c.name, deployments.c.stable)).all():
                add_event(connection, now, held.name, None, who, "scaled", held.stable, f"workers: {why}")
            audit(connection, now, who, "scaled", self._machine, workers=workers)
            return before

    def _held(self, connection: Connection) -> int | None:
        wanted = select(scales.c.workers).where(scales.c.machine == self._machine)
        found = connection.execute(wanted).scalar_one_or_none()
        return None if found is None else int(found)
