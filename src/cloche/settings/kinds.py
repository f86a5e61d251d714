"""What may be written for a key of `cloche.toml`: parsers, each with a JSON schema for editors."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from cloche.batch.schedule import CatchUp, check_cron
from cloche.core.errors import ConfigError
from cloche.core.machine import usable_cores
from cloche.core.reference import parse_reference
from cloche.core.units import parse_duration, parse_rate, parse_share, parse_size, shown
from cloche.rollout.strategy import parse_step
from cloche.settings.tree import Device, OnInvalid, OnMissing, StrategyName

#: The most serving workers of one machine: each process needs a slot of the board.
MAX_WORKERS = 48
#: The most rows between two checkpoints of a batch run.
MAX_CHUNK = 1_000_000

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", re.ASCII)
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}", re.ASCII)
_SQLITE = "sqlite:///"
_POSTGRESQL = ("postgresql://", "postgresql+psycopg://", "postgres://")
_POSTGRES = re.compile(r"postgresql(\+psycopg)?://\S+")

#: From what was written, and the folder that relative paths start from, to the value; ConfigError otherwise.
Parse = Callable[[Any, Path], Any]


class Kind(msgspec.Struct, frozen=True):
    """A Kind is what may be written for a key: the parser that decides, and a JSON schema for editors.

    What the parser takes the schema takes as well; it may take a little more, as it can't look at files.
    """

    parse: Parse
    schema: dict[str, Any]


def looks_like_path(model: str) -> bool:
    """Whether a model is given as a file or folder (`./m.onnx`, `a/b.onnx`), not as a reference."""
    return "/" in model or model.startswith(".")


def _wrong(said: str, hint: str) -> ConfigError:
    return ConfigError(said, code="CL-E201", hint=hint)


def _plain(parse: Callable[[Any], Any]) -> Parse:
    return lambda value, _base: parse(value)


def _text(value: object) -> str:
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise _wrong(f"{shown(value)} is not a text", "write it in quotes, on one line")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise _wrong(f"{shown(value)} is neither true nor false", "write true or false, without quotes")


def _whole(value: object, low: int, high: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        raise _wrong(f"must be from {low} to {high}, not {shown(value)}", f"write {low} to {high}")
    raise _wrong(f"{shown(value)} is not a whole number from {low} to {high}", f"write {low} to {high}")


def _port(value: object) -> int:
    return _whole(value, 0, 65535)


def _workers(value: object) -> int:
    if value == "cores":
        return min(usable_cores(), MAX_WORKERS)
    if isinstance(value, str):
        raise _wrong(f"{shown(value)} is not a number of workers", f'write 1 to {MAX_WORKERS}, or "cores"')
    return _whole(value, 1, MAX_WORKERS)


def _within(parse: Callable[[Any], float], low: str, high: str, units: str) -> Kind:
    lowest, highest = parse(low), parse(high)

    def bounded(value: object) -> float:
        found = parse(value)
        if lowest <= found <= highest:
            return found
        raise _wrong(f"{shown(value)} is not within {low} and {high}", f"write {low} to {high}")

    words = {"type": "string", "pattern": rf"^\s*[0-9]{{1,15}}(\.[0-9]{{1,15}})?\s*({units})\s*$"}
    number = {"type": "number", "minimum": lowest, "maximum": highest}
    return Kind(_plain(bounded), {"anyOf": [words, number]})


def duration(low: str, high: str) -> Kind:
    return _within(parse_duration, low, high, "us|ms|s|m|h|d")


def size(low: str, high: str) -> Kind:
    return _within(parse_size, low, high, "B|kB|MB|GB|KiB|MiB|GiB")


def share(low: str, high: str) -> Kind:
    lowest, highest = parse_share(low), parse_share(high)

    def bounded(value: object) -> float:
        found = parse_share(value)
        if lowest <= found <= highest:
            return found
        raise _wrong(f"{shown(value)} is not within {low} and {high}", f"write {low} to {high}")

    return Kind(_plain(bounded), {"type": "string", "pattern": r"^\s*[0-9]{1,3}(\.[0-9]{1,6})?\s*%\s*$"})


def _one_of(choices: tuple[str, ...], what: str) -> Kind:
    def parse(value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise _wrong(f"{shown(value)} is not a {what}", f"write {', '.join(choices[:-1])} or {choices[-1]}")

    return Kind(_plain(parse), {"enum": list(choices)})


def _host(value: object) -> str:
    text = _text(value)
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if _HOST.fullmatch(text) and not text.replace(".", "").isdigit():
            return text
    raise _wrong(f"{shown(value)} is not an address", "write 127.0.0.1, 0.0.0.0, ::1 or the name of a host")


def _absolute(text: str, base: Path) -> str:
    if text.startswith("~"):
        raise _wrong(f"{shown(text)} begins with ~, which is not expanded here", "write the whole path")
    # Not resolve(): a link that the user made should stay the name of the place.
    return os.path.normpath(base / text)


def _path(value: object, base: Path) -> Path:
    return Path(_absolute(_text(value), base))


def _database(value: object, base: Path) -> str:
    if isinstance(value, str) and value.isprintable():
        if _POSTGRES.fullmatch(value):
            return value
        if value.startswith(_SQLITE) and len(value) > len(_SQLITE) and not set(value) & set("?#"):
            return _SQLITE + _absolute(value.removeprefix(_SQLITE), base)
    # The value is not repeated: it may hold a password.
    raise _wrong("this is not the URL of a database", "write sqlite:///state.db or postgresql://user@host/name")


def _model(value: object, base: Path) -> str:
    text = _text(value)
    if looks_like_path(text):
        return _absolute(text, base)
    try:
        return str(parse_reference(text))
    except ConfigError:
        hint = "write name:3 or name@champion; a file begins with ./"
        raise _wrong(f"{shown(text)} is not a reference to a version", hint) from None


def _columns(value: object) -> tuple[str, ...]:
    names = value if isinstance(value, list) else []
    if names and all(isinstance(one, str) and one for one in names) and len(set(names)) == len(names):
        return tuple(names)
    raise _wrong(f"{shown(value)} is not a list of names", 'write ["age", "income"], each once')


def _steps(value: object) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else []
    if not texts or not all(isinstance(one, str) for one in texts):
        raise _wrong(f"{shown(value)} is not a list of steps", 'write ["5% for 10m", "50% for 10m", "100%"]')
    for text in texts:
        parse_step(text)
    return tuple(texts)


def _header(value: object) -> str:
    text = _text(value)
    if _HEADER.fullmatch(text):
        return text
    raise _wrong(f"{shown(text)} is not the name of a header", "write x-user-id, or another header's name")


def _reference(value: object) -> str:
    text = _text(value)
    try:
        return str(parse_reference(text))
    except ConfigError:
        hint = "write name:3 or name@champion; a file is packed first: cloche pack"
        raise _wrong(f"{shown(text)} is not a reference to a version", hint) from None


def _rows(value: object, base: Path) -> str:
    """Files or the URL of a table; a reference to one stays as it is, to be followed by who runs it."""
    if not isinstance(value, str) or not value or not value.isprintable():
        # the value is not repeated: it may hold a password
        raise _wrong("this is not a text", "write a path, or the URL of a table, in quotes")
    if value.startswith(_POSTGRESQL) or (value.startswith("env:") and value != "env:"):
        return value
    if value.startswith("file:") and value != "file:":
        return f"file:{_absolute(value.removeprefix('file:'), base)}"
    if value.startswith(_SQLITE):
        path, question, rest = value.removeprefix(_SQLITE).partition("?")
        return f"{_SQLITE}{_absolute(path, base)}{question}{rest}"
    if "://" in value:
        raise _wrong("this is no place that Cloche knows", "write a path, sqlite:///… or postgresql://…")
    return _absolute(value, base) + ("/" if value.endswith("/") else "")


def _timezone(value: object) -> str:
    text = _text(value)
    try:
        return ZoneInfo(text).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _wrong(f"{shown(text)} is not a time zone", "write Europe/Berlin, America/New_York or UTC") from None


def _version(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value == 1:
        return value
    raise _wrong(f"this Cloche reads version 1 of the file, not {shown(value)}", "write version = 1")


TEXT = Kind(_plain(_text), {"type": "string", "minLength": 1})
FLAG = Kind(_plain(_flag), {"type": "boolean"})
PATH = Kind(_path, {"type": "string", "minLength": 1})
DATABASE = Kind(_database, {"type": "string", "pattern": "^(sqlite:///|postgresql(\\+psycopg)?://|env:|file:)."})
COLUMNS = Kind(
    _plain(_columns),
    {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "uniqueItems": True},
)
STEPS = Kind(
    _plain(_steps), {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 20}
)
HEADER = Kind(_plain(_header), {"type": "string", "pattern": "^[A-Za-z0-9-]{1,100}$"})
STRATEGY = _one_of(get_args(StrategyName), "strategy")
RATE = Kind(_plain(parse_rate), {"type": "string", "pattern": r"^\s*[0-9]{1,10}\s*/\s*(s|m|h)\s*$"})
_COUNT = {"type": "integer", "minimum": 1, "maximum": MAX_WORKERS}
LEAST_WORKERS = Kind(_plain(lambda value: _whole(value, 1, MAX_WORKERS)), _COUNT)
MOST_WORKERS = Kind(_plain(_workers), {"anyOf": [{"const": "cores"}, _COUNT]})
#: A table of the two as well.
WORKERS = Kind(_plain(_workers), {"anyOf": [{"const": "cores"}, _COUNT, {"type": "object"}]})
VERSION = Kind(_plain(_version), {"const": 1})
HOST = Kind(_plain(_host), {"type": "string", "minLength": 1})
PORT = Kind(_plain(_port), {"type": "integer", "minimum": 0, "maximum": 65535})
MODEL = Kind(_model, {"type": "string", "minLength": 1})
ON_INVALID = _one_of(get_args(OnInvalid), "policy")
ON_MISSING = _one_of(get_args(OnMissing), "policy")
DEVICE = _one_of(get_args(Device), "device")
REFERENCE = Kind(_plain(_reference), {"type": "string", "minLength": 1})
ROWS = Kind(_rows, {"type": "string", "minLength": 1})
SCHEDULE = Kind(
    _plain(lambda value: check_cron(_text(value))),
    {"type": "string", "pattern": r"^\s*(\S+\s+){4}\S+\s*$"},
)
TIMEZONE = Kind(_plain(_timezone), {"type": "string", "minLength": 1})
CATCH_UP = _one_of(get_args(CatchUp), "policy")
CHUNK = Kind(
    _plain(lambda value: _whole(value, 1, MAX_CHUNK)), {"type": "integer", "minimum": 1, "maximum": MAX_CHUNK}
)
