"""What is set, key by key, and where that was said; a password is never shown."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cloche.core.errors import ConfigError
from cloche.core.masked import masked
from cloche.settings.key import Key
from cloche.settings.keys import KEYS
from cloche.settings.load import read_settings
from cloche.settings.reader import NAMED, Place, Reader, find_key


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A Told is one key: `value` and `default` as they stand in the file, None where there is none.

    `source` says where the value stands: `cloche.toml:4  [serve]`, `variable CLOCHE_SERVE__PORT` or `default`.
    """

    key: str
    value: Any
    source: str | None
    default: Any
    meaning: str


def tell_settings(
    *, directory: Path | None = None, config: Path | None = None, environ: Mapping[str, str]
) -> list[Told]:
    """Every key that has a say here, one deployment after the other. Raises as `load_settings`."""
    _, reader = read_settings(directory, config, environ, {})
    tables: list[Place] = [(), *((kind, name) for kind in NAMED for name in reader.names(kind))]
    return [_told(reader, key, place) for table in tables for key in KEYS for place in _places(reader, key, table)]


def tell_setting(
    path: str, *, directory: Path | None = None, config: Path | None = None, environ: Mapping[str, str]
) -> Told:
    """One key, `online.fraud.deadline`, or `online.X.deadline` where no deployment has such a name.

    Raises as `load_settings`, and ConfigError CL-E202 for what is no key.
    """
    place = tuple(path.split("."))
    key = find_key(place)
    if key is None:
        known = [each.path.replace("*", place[1] if len(place) > 1 else "X", 1) for each in KEYS]
        near = difflib.get_close_matches(path, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "see them with: cloche config show"
        raise ConfigError(f"there is no setting {path!r}", code="CL-E202", hint=hint)
    _, reader = read_settings(directory, config, environ, {})
    return _told(reader, key, place)


def _places(reader: Reader, key: Key, table: Place) -> Iterator[Place]:
    """Where a key stands in the tables of a deployment, or, without `table`, in the others."""
    if not table:
        if "*" not in key.place:
            yield key.place
    elif key.place[-1] == "*":
        yield from ((*table, *key.place[2:-1], name) for name in reader.names(*table, *key.place[2:-1]))
    elif key.place[0] == table[0]:
        yield (*table, *key.place[2:])


def _told(reader: Reader, key: Key, place: Place) -> Told:
    value, source = reader.written(*place) or (None, None)
    if source is None and key.default is not None and _is_there(reader, place):
        value, source = key.default, "default"
    if key.secret and isinstance(value, str):
        value = masked(value)
    return Told(key=".".join(place), value=value, source=source, default=key.default, meaning=key.meaning)


def _is_there(reader: Reader, place: Place) -> bool:
    """Whether a default has a say: where nobody wrote a `cache`, its ttl is nothing that holds."""
    if find_key(place[:-1]) is not None:
        return reader.is_table(*place[:-1])
    if place[0] not in NAMED:
        return not reader.is_table(*place)
    return reader.mentions(*place[:-1]) or (place[2] == "access" and reader.mentions(*place[:2]))
