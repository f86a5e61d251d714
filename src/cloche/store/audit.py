"""What people changed, by whom and when: append-only, each row sealed by a hash over itself and the one before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from cloche.store.database import Store
from cloche.store.tables import audit as rows

#: What stands before the first row.
START = "0" * 64
_encode = msgspec.json.Encoder(order="sorted").encode
_AT_ONCE = 1_000


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """An AuditRow is one thing that somebody did; `time` is seconds since 1970, UTC."""

    id: int
    time: float
    who: str
    action: str
    target: str
    details: dict[str, Any]
    previous: str
    hash: str

    def expected(self) -> str:
        """The hash that these values have: SHA-256 over their canonical JSON, the hash before among them."""
        told = {name: value for name, value in msgspec.to_builtins(self).items() if name != "hash"}
        return hashlib.sha256(_encode(told)).hexdigest()


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """A Chain is how many rows hold from the first on, the newest hash of them, and the row that does not."""

    rows: int
    hash: str
    broken: int | None = None
    why: str = ""


def audit(connection: Connection, time: float, who: str, action: str, target: str, **details: Any) -> None:
    """Add a row within a `Store.change`, whose lock keeps two writers from the same end of the chain."""
    last = connection.execute(select(rows.c.id, rows.c.hash).order_by(rows.c.id.desc()).limit(1)).first()
    row = AuditRow(
        id=1 if last is None else last.id + 1,
        time=time,
        who=who[:200],
        action=action,
        target=target[:200],
        details=details,
        previous=START if last is None else last.hash,
        hash="",
    )
    sealed = msgspec.structs.replace(row, hash=row.expected())
    connection.execute(insert(rows).values(msgspec.to_builtins(sealed)))


def list_audit(store: Store, *, most: int = 100) -> tuple[AuditRow, ...]:
    """The newest rows, at most so many, the oldest of them first."""
    with store.read() as connection:
        found = connection.execute(select(rows).order_by(rows.c.id.desc()).limit(most)).all()
    return tuple(AuditRow(**row._mapping) for row in reversed(found))


def verify_audit(store: Store) -> Chain:
    """Follow the chain from its first row on, as far as it holds."""
    held, last = 0, START
    for row in _all(store):
        why = ""
        if row.id != held + 1:
            why = f"row {held + 1} is missing"
        elif row.previous != last:
            why = "it does not follow the row before it"
        elif row.hash != row.expected():
            why = "it was changed after it was written"
        if why:
            return Chain(rows=held, hash=last, broken=row.id, why=why)
        held, last = row.id, row.hash
    return Chain(rows=held, hash=last)


def _all(store: Store) -> Iterator[AuditRow]:
    """Every row in order, in one view."""
    with store.read() as connection:
        seen = None
        while True:
            wanted = select(rows).order_by(rows.c.id).limit(_AT_ONCE)
            part = connection.execute(wanted if seen is None else wanted.where(rows.c.id > seen)).all()
            if not part:
                return
            for row in part:
                yield AuditRow(**row._mapping)
            seen = part[-1].id
