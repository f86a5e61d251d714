"""Batch runs in the store: who holds which, how far it is, and what it came to."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from cloche.core.errors import ConfigError, ConflictError, NotFoundError
from cloche.store.audit import audit
from cloche.store.database import Store
from cloche.store.machines import database_now
from cloche.store.slots import give_slot
from cloche.store.tables import batch_runs

#: A process that said nothing for so long holds its run no more.
HOLD_S = 15.0
#: `interrupted` is who was stopped before its end, or says nothing any more: it can be resumed.
RunState = Literal["running", "completed", "completed with rejects", "failed", "cancelled", "interrupted"]
#: States that a run can be resumed from.
RESUMABLE = frozenset({"interrupted", "failed", "cancelled"})
_PREFIX = "run_"


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """A RunRow is one batch run as the store has it; times are seconds since 1970, UTC."""

    id: str
    name: str | None
    plan: Mapping[str, Any]
    state: RunState
    #: How many processes have taken it; who writes must have the last number.
    attempt: int
    holder: str
    heartbeat: float
    rows: int
    rejected: int
    total: int | None
    slot: float | None
    started: float
    ended: float | None
    why: str
    report: Mapping[str, Any] | None
    #: Who wants it cancelled.
    cancel: str | None


class Claim(msgspec.Struct, frozen=True):
    """A Claim is a run in the hands of one process."""

    run: str
    attempt: int


def new_run_id() -> str:
    return f"{_PREFIX}{secrets.token_hex(6)}"


class Batches:
    """A Batches is the batch runs of a store; each is written by the process that holds it, and no other."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, plan: Mapping[str, Any], *, name: str | None, holder: str, slot: float | None = None) -> Claim:
        """Keep a new run, which this process holds. Raises ConflictError CL-E520.

        No two runs of one name go on at once, and a slot gets one run, whoever tries.
        """
        with self._store.change() as connection:
            now = database_now(self._store, connection)
            if name is not None:
                self._check_alone(connection, name, now)
            run = str(plan["run"])
            if slot is not None and name is not None:
                give_slot(connection, name, slot, run)
            row = {"id": run, "name": name, "plan": dict(plan), "slot": slot, "started": now}
            row |= {"state": "running", "attempt": 1, "holder": holder[:200], "heartbeat": now}
            connection.execute(insert(batch_runs).values(**row, rows=0, rejected=0, why=""))
            target = name or run
            audit(connection, self._store.now(), self._store.who, "batch run begun", target, run=run)
        return Claim(run, 1)

    def resume(self, run: str, *, holder: str, gone: str | None = None) -> Claim:
        """Take a run that stopped before its end; `gone` names a holder that is known to be dead.

        Raises ConflictError: CL-E520 where another process holds it, CL-E521 where it is over.
        """
        with self._store.change() as connection:
            now = database_now(self._store, connection)
            row = _run(connection, run, now)
            if row.state == "running" and row.holder != gone:
                raise held(row)
            if row.state not in RESUMABLE and row.state != "running":
                raise ConflictError(
                    f"{run} is {row.state}", code="CL-E521", hint="begin another with: cloche batch run"
                )
            if row.name is not None:
                self._check_alone(connection, row.name, now, but=run)
            attempt = row.attempt + 1
            fresh = {"state": "running", "attempt": attempt, "holder": holder[:200], "heartbeat": now}
            connection.execute(
                update(batch_runs).where(batch_runs.c.id == run).values(**fresh, ended=None, why="", cancel=None)
            )
            target = row.name or run
            audit(connection, self._store.now(), self._store.who, "batch run resumed", target, run=run)
        return Claim(run, attempt)

    def beat(self, claim: Claim, rows: int, rejected: int, total: int | None) -> str | None:
        """Say that this process lives and how far it is; who wants the run cancelled, if anybody.

        Raises ConflictError CL-E520 when another process has taken the run.
        """
        with self._store.note() as connection:
            now = database_now(self._store, connection)
            values = {"heartbeat": now, "rows": rows, "rejected": rejected, "total": total}
            self._write(connection, claim, values)
            wanted = select(batch_runs.c.cancel).where(batch_runs.c.id == claim.run)
            found: str | None = connection.execute(wanted).scalar_one()
            return found

    def end(
        self,
        claim: Claim,
        state: RunState,
        *,
        why: str = "",
        rows: int | None = None,
        rejected: int | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        """Say what the run came to. Raises ConflictError CL-E520 when another process has taken it."""
        with self._store.change() as connection:
            now = database_now(self._store, connection)
            values: dict[str, Any] = {"state": state, "why": why, "heartbeat": now, "ended": now}
            told = {"rows": rows, "rejected": rejected, "report": None if report is None else dict(report)}
            self._write(connection, claim, values | {k: v for k, v in told.items() if v is not None})

    def cancel(self, which: str) -> RunRow:
        """Want a run to stop; who holds it does so after its chunk, and one that nobody holds has stopped.

        Raises NotFoundError CL-E320, ConfigError where it is not clear which, ConflictError CL-E521.
        """
        run = self.find(which).id
        with self._store.change() as connection:
            row = _run(connection, run, database_now(self._store, connection))
            if row.state not in ("running", "interrupted"):
                raise ConflictError(f"{run} is {row.state}", code="CL-E521", hint=f"cloche batch show {run}")
            values: dict[str, Any] = {"cancel": self._store.who[:200]}
            if row.state == "interrupted":
                values |= {"state": "cancelled", "ended": self._store.now()}
            connection.execute(update(batch_runs).where(batch_runs.c.id == run).values(values))
            target = row.name or run
            audit(connection, self._store.now(), self._store.who, "batch run cancelled", target, run=run)
        return self.get(run)

    def give_up(self, run: str, why: str, *, gone: str | None = None) -> None:
        """Let a run have failed that nobody holds; `gone` names a holder that is known to be dead."""
        mine = (batch_runs.c.id == run) & batch_runs.c.state.in_(("running", "interrupted"))
        with self._store.change() as connection:
            now = database_now(self._store, connection)
            silent = (batch_runs.c.state == "interrupted") | (batch_runs.c.heartbeat < now - HOLD_S)
            mine &= silent | (batch_runs.c.holder == gone)
            connection.execute(update(batch_runs).where(mine).values(state="failed", why=why, ended=now))

    def get(self, run: str) -> RunRow:
        """The run with this id. Raises NotFoundError CL-E320."""
        with self._store.read() as connection:
            return _run(connection, run, database_now(self._store, connection))

    def find(self, which: str) -> RunRow:
        """The run that an id, the start of one, or a name means; of a name the newest.

        Raises NotFoundError CL-E320, and ConfigError CL-E203 where several ids begin so.
        """
        with self._store.read() as connection:
            now = database_now(self._store, connection)
            newest = select(batch_runs).order_by(batch_runs.c.started.desc(), batch_runs.c.id)
            named = connection.execute(newest.where(batch_runs.c.name == which).limit(1)).first()
            if named is not None:
                return _row(named, now)
            start = which if which.startswith(_PREFIX) else f"{_PREFIX}{which}"
            begins = batch_runs.c.id.startswith(start, autoescape=True)
            found = connection.execute(newest.where(begins).limit(5)).all() if start != _PREFIX else []
        if not found:
            raise NotFoundError(
                f"no batch run has the name or id {which!r}", code="CL-E320", hint="see them with: cloche batch ls"
            )
        if len(found) > 1:
            ids = ", ".join(row.id for row in found)
            raise ConfigError(f"{which!r} may mean {ids}", code="CL-E203", hint="write more of the id")
        return _row(found[0], now)

    def list(self, name: str | None = None, *, most: int = 50) -> tuple[RunRow, ...]:
        """The newest runs, at most so many, the newest first."""
        wanted = select(batch_runs).order_by(batch_runs.c.started.desc(), batch_runs.c.id).limit(most)
        if name is not None:
            wanted = wanted.where(batch_runs.c.name == name)
        with self._store.read() as connection:
            now = database_now(self._store, connection)
            return tuple(_row(row, now) for row in connection.execute(wanted))

    def _check_alone(self, connection: Connection, name: str, now: float, but: str = "") -> None:
        going = select(batch_runs).where(
            batch_runs.c.name == name, batch_runs.c.state == "running", batch_runs.c.id != but
        )
        for found in connection.execute(going):
            row = _row(found, now)
            if row.state == "running":
                raise held(row)

    def _write(self, connection: Connection, claim: Claim, values: Mapping[str, Any]) -> None:
        mine = (batch_runs.c.id == claim.run) & (batch_runs.c.attempt == claim.attempt)
        if connection.execute(update(batch_runs).where(mine).values(values)).rowcount == 0:
            raise ConflictError(
                f"another process goes on with {claim.run}", code="CL-E520", hint=f"cloche batch show {claim.run}"
            )


def held(row: RunRow) -> ConflictError:
    """Another process is at work on this run."""
    named = f" of {row.name}" if row.name else ""
    return ConflictError(
        f"{row.id}{named} is running, held by {row.holder}",
        code="CL-E520",
        hint=f"wait for it, or stop it with: cloche batch cancel {row.id}",
    )


def _run(connection: Connection, run: str, now: float) -> RunRow:
    row = connection.execute(select(batch_runs).where(batch_runs.c.id == run).with_for_update()).first()
    if row is None:
        raise NotFoundError(f"there is no batch run {run}", code="CL-E320", hint="see them with: cloche batch ls")
    return _row(row, now)


def _row(row: Row[Any], now: float) -> RunRow:
    told = dict(row._mapping)
    if told["state"] == "running" and told["heartbeat"] < now - HOLD_S:
        told["state"] = "interrupted"
    return RunRow(**told)
