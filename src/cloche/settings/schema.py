"""The JSON schema of `cloche.toml`, for editors: what may be written, what it means, what is wrong."""

from __future__ import annotations

from typing import Any

from cloche.core.reference import NAME
from cloche.settings.key import Key
from cloche.settings.keys import KEYS

#: The draft that the common TOML extensions read.
_DRAFT = "http://json-schema.org/draft-07/schema#"
_REFERENCE = {"type": "string", "pattern": "^(env|file):."}


def json_schema() -> dict[str, Any]:
    """Every key with its meaning and default; what has no key is refused, as by Cloche itself."""
    whole = _table() | {"$schema": _DRAFT, "title": "cloche.toml"}
    for key in KEYS:
        table = whole
        for name in key.place[:-1]:
            table = _inner(table, name)
        _put(table, key)
    return whole


def _table() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False}


def _inner(table: dict[str, Any], name: str) -> dict[str, Any]:
    """The table of this name, or of any name where it is the user's choice."""
    place = ("patternProperties", f"^{NAME.pattern}$") if name == "*" else ("properties", name)
    found: dict[str, Any] = table.setdefault(place[0], {}).setdefault(place[1], _table())
    found.setdefault("additionalProperties", False)  # of a key that may be a value as well
    return found


def _put(table: dict[str, Any], key: Key) -> None:
    value: dict[str, Any] = {"anyOf": [key.kind.schema, _REFERENCE]} if key.refers else dict(key.kind.schema)
    value["description"] = key.meaning
    if key.default is not None:
        value["default"] = key.default
    name = key.place[-1]
    if name == "*":
        table.setdefault("patternProperties", {})[f"^{NAME.pattern}$"] = value
    else:
        table.setdefault("properties", {})[name] = value
    if key.needed:
        table.setdefault("required", []).append(name)
