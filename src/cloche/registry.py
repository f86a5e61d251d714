"""The registry: models, their versions and movable aliases, kept in the store."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, insert, select, update

from cloche.core.errors import ConfigError, NotFoundError
from cloche.core.reference import LATEST, Reference, check_name, parse_reference
from cloche.store.audit import audit
from cloche.store.blobs import BundleFolder
from cloche.store.database import Store
from cloche.store.tables import aliases, models, versions

#: The alias that the first version of a model gets.
CHAMPION = "champion"


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A ModelVersion is the n-th bundle of a model; `created` is seconds since 1970, UTC."""

    model: str
    version: int
    digest: str
    created: float
    framework: str = ""
    size_bytes: int = 0
    metrics: Mapping[str, float] = {}
    aliases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.model}:{self.version}"


class Registry:
    """A Registry is the versions and aliases of a store, and `folder`, where their bundles are kept."""

    def __init__(self, store: Store, folder: BundleFolder) -> None:
        self.store = store
        self.folder = folder

    def register(
        self,
        digest: str,
        name: str,
        *,
        framework: str = "",
        size_bytes: int = 0,
        metrics: Mapping[str, float] | None = None,
        how: str = "registered",
    ) -> ModelVersion:
        """The next version of a model; the first is also its champion. `how` it came stands in the audit log.

        A bundle that the model has already is not registered again: its version is returned.
        Raises NotFoundError when the bundle's files are not in the folder.
        """
        check_name(name, "name of a model")
        self.folder.path(digest)
        now = self.store.now()
        with self.store.change() as connection:
            if known := _find(connection, name, versions.c.digest == digest):
                return known
            highest = _highest(connection, name)
            if highest is None:
                connection.execute(insert(models).values(name=name, created=now))
            row = {
                "model": name,
                "version": (highest or 0) + 1,
                "digest": digest,
                "created": now,
                "framework": framework[:200],
                "size_bytes": size_bytes,
                "metrics": dict(metrics or {}),
            }
            connection.execute(insert(versions).values(row))
            if highest is None:
                first = {"model": name, "alias": CHAMPION, "version": 1, "moved": now}
                connection.execute(insert(aliases).values(first))
            target = f"{name}:{row['version']}"
            audit(connection, now, self.store.who, how, target, digest=digest)
            return _require(connection, Reference(model=name, version=(highest or 0) + 1))

    def resolve(self, reference: Reference | str) -> ModelVersion:
        """The version that a reference names now; NotFoundError, with what may have been meant, otherwise."""
        wanted = parse_reference(reference) if isinstance(reference, str) else reference
        with self.store.read() as connection:
            return _require(connection, wanted)

    def models(self) -> tuple[str, ...]:
        """The names of all models."""
        with self.store.read() as connection:
            return _names(connection)

    def list(self, model: str | None = None) -> tuple[ModelVersion, ...]:
        """All versions, or those of one model (NotFoundError when there is none), the newest first."""
        with self.store.read() as connection:
            if model is not None:
                _require(connection, Reference(model=model, alias=LATEST))
            wanted = select(versions).order_by(versions.c.model, versions.c.version.desc())
            if model is not None:
                wanted = wanted.where(versions.c.model == model)
            flags = _flags(connection, model)
            return tuple(_version(row, flags) for row in connection.execute(wanted))

    def aliases(self, model: str) -> dict[str, int]:
        """Alias -> version, `latest` among them; NotFoundError when there is no such model."""
        with self.store.read() as connection:
            highest = _require(connection, Reference(model=model, alias=LATEST)).version
            rows = connection.execute(
                select(aliases.c.alias, aliases.c.version)
                .where(aliases.c.model == model)
                .order_by(aliases.c.alias)
            )
            return {row.alias: row.version for row in rows} | {LATEST: highest}

    def set_alias(self, reference: Reference | str, alias: str) -> ModelVersion | None:
        """Move an alias to the version that a reference names; returns the version that had it before."""
        check_name(alias, "alias")
        if alias == LATEST:
            raise ConfigError(
                f"{LATEST!r} always names the highest version and can't be moved",
                code="CL-E203",
                hint=f"choose another alias, such as {CHAMPION}",
            )
        wanted = parse_reference(reference) if isinstance(reference, str) else reference
        with self.store.change() as connection:
            target = _require(connection, wanted)
            here = (aliases.c.model == target.model) & (aliases.c.alias == alias)
            held = connection.execute(select(aliases.c.version).where(here)).scalar_one_or_none()
            if held == target.version:
                return target
            moved = {"version": target.version, "moved": self.store.now()}
            told = {"before": held, "version": target.version}
            audit(connection, moved["moved"], self.store.who, "alias moved", f"{target.model}@{alias}", **told)
            if held is None:
                connection.execute(insert(aliases).values(model=target.model, alias=alias, **moved))
                return None
            connection.execute(update(aliases).where(here).values(**moved))
            return _require(connection, Reference(model=target.model, version=held))


def _require(connection: Connection, wanted: Reference) -> ModelVersion:
    number = wanted.version
    if number is None:
        number = _aliased(connection, wanted.model, wanted.alias or LATEST)
    if found := _find(connection, wanted.model, versions.c.version == number):
        return found
    highest = _highest(connection, wanted.model)
    if highest is None:
        raise _missing(f"there is no model {wanted.model!r}", wanted.model, _names(connection))
    raise _missing(f"{wanted.model} has no version {number}; its highest is {highest}", "", ())


def _aliased(connection: Connection, model: str, alias: str) -> int:
    highest = _highest(connection, model)
    if highest is None:
        raise _missing(f"there is no model {model!r}", model, _names(connection))
    if alias == LATEST:
        return highest
    rows = connection.execute(select(aliases.c.alias, aliases.c.version).where(aliases.c.model == model))
    known = {row.alias: int(row.version) for row in rows}
    if alias not in known:
        raise _missing(f"{model} has no alias {alias!r}", alias, (*known, LATEST))
    return known[alias]


def _missing(said: str, wanted: str, known: tuple[str, ...]) -> NotFoundError:
    near = difflib.get_close_matches(wanted, known, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return NotFoundError(said, code="CL-E301", hint=f"{meant}see what there is: cloche models ls")


def _find(connection: Connection, model: str, which: Any) -> ModelVersion | None:
    row = connection.execute(select(versions).where((versions.c.model == model) & which)).one_or_none()
    return None if row is None else _version(row, _flags(connection, model))


def _names(connection: Connection) -> tuple[str, ...]:
    return tuple(connection.execute(select(models.c.name).order_by(models.c.name)).scalars())


def _highest(connection: Connection, model: str) -> int | None:
    wanted = select(func.max(versions.c.version)).where(versions.c.model == model)
    found = connection.execute(wanted).scalar_one()
    return None if found is None else int(found)


def _flags(connection: Connection, model: str | None) -> dict[tuple[str, int], tuple[str, ...]]:
    wanted = select(aliases.c.model, aliases.c.version, aliases.c.alias).order_by(aliases.c.alias)
    if model is not None:
        wanted = wanted.where(aliases.c.model == model)
    flags: dict[tuple[str, int], tuple[str, ...]] = {}
    for row in connection.execute(wanted):
        place = (row.model, row.version)
        flags[place] = (*flags.get(place, ()), row.alias)
    return flags


def _version(row: Row[Any], flags: Mapping[tuple[str, int], tuple[str, ...]]) -> ModelVersion:
    return ModelVersion(
        model=row.model,
        version=row.version,
        digest=row.digest,
        created=row.created,
        framework=row.framework,
        size_bytes=int(row.size_bytes),
        metrics=row.metrics,
        aliases=flags.get((row.model, row.version), ()),
    )
