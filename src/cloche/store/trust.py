"""Public signing keys that are trusted, in the store."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, select

from cloche.core.errors import ConfigError, NotFoundError
from cloche.store.audit import audit
from cloche.store.database import Store
from cloche.store.tables import trusted


class TrustedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A TrustedKey is a public key whose seals are believed; `added` is seconds since 1970, UTC."""

    public_key: str
    name: str
    added: float


class TrustedKeys:
    """A TrustedKeys is the public signing keys that a store believes, in the text form of `bundle.sign`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, public_key: str, *, name: str = "") -> TrustedKey:
        """Trust a key; one that is trusted already stays as it is."""
        if not (public_key.isascii() and public_key.isprintable() and 16 <= len(public_key) <= 200):
            raise ConfigError("this is not a public signing key", hint="copy it whole, as its owner gave it")
        held = select(trusted).where(trusted.c.public_key == public_key)
        with self._store.change() as connection:
            if connection.execute(held).first() is None:
                now, name = self._store.now(), name[:200]
                connection.execute(insert(trusted).values(public_key=public_key, name=name, added=now))
                audit(connection, now, self._store.who, "trusted", public_key, name=name)
            return _trusted(connection.execute(held).one())

    def remove(self, public_key: str) -> None:
        """Trust a key no longer; NotFoundError when it was not trusted."""
        with self._store.change() as connection:
            gone = connection.execute(delete(trusted).where(trusted.c.public_key == public_key))
            if gone.rowcount == 0:
                raise NotFoundError("this signing key is not among the trusted ones", code="CL-E302")
            audit(connection, self._store.now(), self._store.who, "trusted no more", public_key)

    def list(self) -> tuple[TrustedKey, ...]:
        """The trusted keys; the first is this data folder's own."""
        with self._store.read() as connection:
            rows = connection.execute(select(trusted).order_by(trusted.c.added, trusted.c.public_key))
            return tuple(_trusted(row) for row in rows)

    def public_keys(self) -> tuple[str, ...]:
        return tuple(key.public_key for key in self.list())


def _trusted(row: Row[Any]) -> TrustedKey:
    return TrustedKey(public_key=row.public_key, name=row.name, added=row.added)
