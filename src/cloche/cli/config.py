"""`cloche config`: what is set and where, what a key means, and the schema that editors read."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec
from cyclopts import Parameter

from cloche.cli.terminal import Terminal, pairs, table
from cloche.settings import json_schema, tell_setting, tell_settings

_Terminal = Annotated[Terminal, Parameter(parse=False)]


def show(*, no_header: bool = False, terminal: _Terminal) -> None:
    """Show what is set, and where that was said.

    Parameters
    ----------
    no_header
        Leave out the line with the columns' names.
    """
    found = tell_settings(directory=terminal.directory, config=terminal.config, environ=terminal.environ)
    rows = [[one.key, _toml(one.value), one.source] for one in found if one.source is not None]
    items = [msgspec.to_builtins(one) for one in found]
    terminal.answer("SettingList", {"items": items}, table(["KEY", "VALUE", "FROM"], rows, no_header=no_header))


def explain(key: str, /, *, terminal: _Terminal) -> None:
    """Say what a key of cloche.toml means, and what it is here.

    Parameters
    ----------
    key
        Its path, as in online.fraud.cache.ttl.
    """
    found = tell_setting(key, directory=terminal.directory, config=terminal.config, environ=terminal.environ)
    here = "not set" if found.source is None else f"{_toml(found.value)}, from {found.source}"
    facts = {
        "meaning": found.meaning,
        "default": "none" if found.default is None else _toml(found.default),
        "here": "the default" if found.source == "default" else here,
    }
    lines = [found.key, *(f"  {line}" for line in pairs(facts))]
    terminal.answer("Setting", msgspec.to_builtins(found), lines)


def schema(*, terminal: _Terminal) -> None:
    """Print the JSON schema of cloche.toml, for editors."""
    found = json_schema()
    terminal.answer(
        "SettingsSchema", {"schema": found}, [msgspec.json.format(msgspec.json.encode(found)).decode()]
    )


def _toml(value: object) -> str:
    """As it would be written: texts, numbers, booleans and lists of them look in TOML as in JSON."""
    return json.dumps(value, ensure_ascii=False)
