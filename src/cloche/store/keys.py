"""API keys in the store."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, insert, select, update

from cloche.core.errors import ConfigError, ConflictError, NotFoundError
from cloche.core.keys import KeyRecord, MintedKey, mint_key
from cloche.store.audit import audit
from cloche.store.database import Store
from cloche.store.tables import keys


class Keys:
    """A Keys is the API keys of a store; a change reaches workers through `Store.revision`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(
        self, name: str, *, scopes: tuple[str, ...] = ("predict",), expires_in_s: float | None = None
    ) -> MintedKey:
        """A new key, whose text is shown once; ConflictError when an active key has the name."""
        if expires_in_s is not None and expires_in_s <= 0:
            raise ConfigError("a key can't have expired before it is made", hint="write 90d or longer")
        now = self._store.now()
        expires = None if expires_in_s is None else now + expires_in_s
        minted = mint_key(name, scopes=scopes, created=now, expires=expires)
        with self._store.change() as connection:
            rows = connection.execute(select(keys).where(keys.c.name == name))
            if any(_record(row).is_active(now) for row in rows):
                raise ConflictError(
                    f"an active key is named {name!r} already",
                    code="CL-E502",
                    hint=f"choose another name, or first: cloche keys revoke {name}",
                )
            connection.execute(insert(keys).values(_values(minted.record)))
            told = {"name": name, "scopes": list(minted.record.scopes), "expires": expires}
            audit(connection, now, self._store.who, "key created", minted.record.id, **told)
        return minted

    def list(self) -> tuple[KeyRecord, ...]:
        """Every key that ever was, oldest first."""
        with self._store.read() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.created, keys.c.id))
            return tuple(_record(row) for row in rows)

    def load(self) -> tuple[KeyRecord, ...]:
        """The keys that are good now, for a `KeyRing`; one that expires later says so itself."""
        now = self._store.now()
        return tuple(record for record in self.list() if record.is_active(now))

    def revoke(self, which: str) -> KeyRecord:
        """Revoke the active key with this name, id or start of an id (4 letters or more).

        Raises NotFoundError when there is none, ConfigError when more than one id starts so.
        """
        with self._store.change() as connection:
            now = self._store.now()
            records = [_record(row) for row in connection.execute(select(keys))]
            record = _find(which, [record for record in records if record.is_active(now)])
            connection.execute(update(keys).where(keys.c.id == record.id).values(revoked=now))
            audit(connection, now, self._store.who, "key revoked", record.id, name=record.name)
            return _record(connection.execute(select(keys).where(keys.c.id == record.id)).one())


def _find(which: str, active: list[KeyRecord]) -> KeyRecord:
    exact = [record for record in active if which in (record.id, record.name)]
    found = exact or [record for record in active if len(which) >= 4 and record.id.startswith(which)]
    if not found:
        raise NotFoundError(f"no active key has the name or id {which!r}", code="CL-E302", hint="cloche keys ls")
    if len(found) > 1:
        ids = ", ".join(sorted(record.id for record in found))
        raise ConfigError(f"{which!r} may mean more than one key: {ids}", hint="write the whole id")
    return found[0]


def _record(row: Row[Any]) -> KeyRecord:
    return KeyRecord(
        id=row.id,
        name=row.name,
        sha256=row.sha256,
        scopes=tuple(row.scopes),
        created=row.created,
        expires=row.expires,
        revoked=row.revoked,
    )


def _values(record: KeyRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "name": record.name,
        "sha256": record.sha256,
        "scopes": list(record.scopes),
        "created": record.created,
        "expires": record.expires,
        "revoked": record.revoked,
    }
