"""Places that rows come from and go to, as they are written: files, a glob of them, a table or a query."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from cloche.batch.sources import kind_of_source
from cloche.core.errors import ConfigError, NotFoundError

_MAGIC = frozenset("*?[")
_TABLES = "name it: sqlite:///shop.db?table=orders or postgresql://host/shop?table=orders"


class TablePlace(msgspec.Struct, frozen=True, kw_only=True):
    """A TablePlace is a table or a query of a database."""

    kind: Literal["sqlite", "postgresql"]
    #: The path of SQLite's file, or PostgreSQL's address with the password.
    database: str
    #: The place without password, for people.
    shown: str
    table: str | None = None
    query: str | None = None
    key: str | None = None


def find(place: str, look_up: Callable[[str], str]) -> str:
    """The place itself, where it is written as `env:NAME` or `file:PATH`."""
    return look_up(place) if place.startswith(("env:", "file:")) else place


def as_table(place: str) -> TablePlace | None:
    """The table or query that a place is; None where it is files. Raises ConfigError CL-E209."""
    scheme, separator, _ = place.partition("://")
    if not separator:
        return None
    kind = scheme.partition("+")[0].replace("postgres", "postgresql").replace("postgresqlql", "postgresql")
    if kind not in ("sqlite", "postgresql"):
        raise _misplaced(
            f"{scheme}:// is no place of rows", "give files, sqlite:///FILE or postgresql://HOST/NAME"
        )
    try:
        url = make_url(place)
    except (ArgumentError, ValueError):
        raise _misplaced("the address of the database can't be read", _TABLES) from None
    words = {name: value for name, value in url.query.items() if isinstance(value, str)}
    ours = {name: words.pop(name, None) for name in ("table", "query", "key")}
    if (ours["table"] is None) == (ours["query"] is None):
        raise _misplaced("the address of a database names one table or one query", _TABLES)
    if kind == "sqlite" and not url.database:
        raise _misplaced("the address names no file of SQLite's", _TABLES)
    plain = url.set(drivername="postgresql", query=words)
    return TablePlace(
        kind="sqlite" if kind == "sqlite" else "postgresql",
        database=str(url.database) if kind == "sqlite" else plain.render_as_string(hide_password=False),
        shown=url.set(password=None).render_as_string(),
        **ours,
    )


def files_of(place: str) -> list[Path]:
    """The files of a path or glob, sorted and of one kind; NotFoundError CL-E303, ConfigError CL-E206."""
    path = Path(place)
    if _MAGIC.isdisjoint(place) or path.exists():
        if not path.is_file():
            raise NotFoundError(f"there is no file {place}", code="CL-E303", hint="check the path")
        found = [path]
    else:
        root = Path(path.anchor) if path.is_absolute() else Path()
        pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else place
        found = sorted(file for file in root.glob(pattern) if file.is_file())
        if not found:
            raise NotFoundError(f"no file is called {place}", code="CL-E303", hint="check the pattern")
    kinds = {kind_of_source(file): file for file in found}
    if len(kinds) > 1:
        some = " and ".join(str(file) for file in kinds.values())
        raise ConfigError(
            f"{place} means files of several kinds: {some}", code="CL-E206", hint="name those of one kind"
        )
    return found


def _misplaced(message: str, hint: str) -> ConfigError:
    return ConfigError(message, code="CL-E209", hint=hint)
