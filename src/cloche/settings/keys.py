"""Every key of `cloche.toml`: what it may hold, its default and its meaning."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec

from cloche.core.errors import ConfigError
from cloche.core.machine import usable_cores
from cloche.core.reference import parse_reference
from cloche.core.units import parse_duration, parse_rate, parse_size, shown
from cloche.settings.tree import Device, OnInvalid, OnMissing

#: The most serving workers of one machine: each process needs a slot of the board.
MAX_WORKERS = 48

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", re.ASCII)
_SQLITE = "sqlite:///"
_POSTGRES = re.compile(r"postgresql(\+psycopg)?://\S+")

#: From what was written, and the folder that relative paths start from, to the value; ConfigError otherwise.
Parse = Callable[[Any, Path], Any]


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A Key is one thing that can be set; `*` in its path stands for a name of the user's choice."""

    path: str
    parse: Parse
    #: As it would be written; None where there is none.
    default: object = None
    meaning: str
    #: Whether `env:NAME` and `file:PATH` stand for a value elsewhere.
    refers: bool = False

    @property
    def place(self) -> tuple[str, ...]:
        return tuple(self.path.split("."))


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


def _within(parse: Callable[[Any], float], low: str, high: str) -> Parse:
    lowest, highest = parse(low), parse(high)

    def bounded(value: object) -> float:
        found = parse(value)
        if lowest <= found <= highest:
            return found
        raise _wrong(f"{shown(value)} is not within {low} and {high}", f"write {low} to {high}")

    return _plain(bounded)


def _duration(low: str, high: str) -> Parse:
    return _within(parse_duration, low, high)


def _size(low: str, high: str) -> Parse:
    return _within(parse_size, low, high)


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


def _on_invalid(value: object) -> str:
    choices = get_args(OnInvalid)
    if isinstance(value, str) and value in choices:
        return value
    raise _wrong(f"{shown(value)} is not a policy", f"write {', '.join(choices)}")


def _columns(value: object) -> tuple[str, ...]:
    names = value if isinstance(value, list) else []
    if names and all(isinstance(one, str) and one for one in names) and len(set(names)) == len(names):
        return tuple(names)
    raise _wrong(f"{shown(value)} is not a list of names", 'write ["age", "income"], each once')


def _on_missing(value: object) -> str:
    choices = get_args(OnMissing)
    if isinstance(value, str) and value in choices:
        return value
    raise _wrong(f"{shown(value)} is not a policy", f"write {' or '.join(choices)}")


def _device(value: object) -> str:
    choices = get_args(Device)
    if isinstance(value, str) and value in choices:
        return value
    raise _wrong(f"{shown(value)} is not a device", f"write {' or '.join(choices)}")


def _version(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value == 1:
        return value
    raise _wrong(f"this Cloche reads version 1 of the file, not {shown(value)}", "write version = 1")


#: Every key there is, in the order of docs/reference/settings.md.
KEYS = (
    Key(
        path="version",
        parse=_plain(_version),
        default=1,
        meaning="The version of this file's shape.",
    ),
    Key(
        path="project.name",
        parse=_plain(_text),
        meaning="What people call this project.",
    ),
    Key(
        path="project.data",
        parse=_path,
        default=".cloche",
        refers=True,
        meaning="The folder for the database, the bundles and the signing key, relative to this file.",
    ),
    Key(
        path="project.database",
        parse=_database,
        refers=True,
        meaning="Another database than `state.db` in the data folder: sqlite:///… or postgresql://…",
    ),
    Key(
        path="serve.host",
        parse=_plain(_host),
        default="127.0.0.1",
        meaning="The address to listen on. Beyond loopback, keys and TLS are demanded.",
    ),
    Key(
        path="serve.port",
        parse=_plain(_port),
        default=8080,
        meaning="The port to listen on, 1 to 65535; 0 takes one that is free.",
    ),
    Key(
        path="serve.workers",
        parse=_plain(_workers),
        default="cores",
        meaning=f'How many processes serve, 1 to {MAX_WORKERS}; "cores" is one for each usable core.',
    ),
    Key(
        path="serve.allow_code",
        parse=_plain(_flag),
        default=False,
        meaning="Whether bundles that carry Python code may run, in processes of their own.",
    ),
    Key(
        path="serve.load_timeout",
        parse=_duration("1s", "1d"),
        default="5m",
        meaning="How long a model may take to load, 1s to 1d.",
    ),
    Key(
        path="serve.lame_duck",
        parse=_duration("0s", "10m"),
        default="1s",
        meaning="How long a worker that stops still accepts connections, 0s to 10m.",
    ),
    Key(
        path="serve.max_body",
        parse=_size("1kB", "2GB"),
        default="64MB",
        meaning="The largest body of a request, 1kB to 2GB.",
    ),
    Key(
        path="serve.tls.cert",
        parse=_path,
        meaning="The file of the certificate and its chain, PEM; read again when it changes.",
    ),
    Key(
        path="serve.tls.key",
        parse=_path,
        meaning="The file of the key to it, PEM, without a password.",
    ),
    Key(
        path="online.*.model",
        parse=_model,
        meaning="Required. `name:3`, `name@champion`, or the path of a bundle or model file (`./m.onnx`).",
    ),
    Key(
        path="online.*.deadline",
        parse=_duration("1ms", "1h"),
        default="1s",
        meaning="How long a caller waits at most, 1ms to 1h; what can't be answered in time is not begun.",
    ),
    Key(
        path="online.*.on_invalid",
        parse=_plain(_on_invalid),
        default="flag",
        meaning="What becomes of unknown categories and numbers out of range: reject, flag or allow.",
    ),
    Key(
        path="online.*.device",
        parse=_plain(_device),
        default="cpu",
        meaning="Where the model is computed: cpu, or cuda where ONNX Runtime has it (the extra `gpu`).",
    ),
    Key(
        path="online.*.cache.size",
        parse=_size("1kB", "64GB"),
        meaning="How many bytes of answers a worker remembers, 1kB to 64GB; without it nothing is.",
    ),
    Key(
        path="online.*.cache.ttl",
        parse=_duration("1ms", "365d"),
        default="10m",
        meaning="How long an answer is remembered, 1ms to 365d.",
    ),
    Key(
        path="online.*.access.keys",
        parse=_plain(_flag),
        default=False,
        meaning="Whether callers need an API key (`cloche keys create`).",
    ),
    Key(
        path="online.*.access.limits.*",
        parse=_plain(parse_rate),
        meaning="How many requests the key of this name may make; `default` is for every other caller.",
    ),
    Key(
        path="online.*.features.source",
        parse=_database,
        refers=True,
        meaning="The database that inputs are read from: sqlite:///… or postgresql://…",
    ),
    Key(
        path="online.*.features.table",
        parse=_plain(_text),
        meaning="The table with a row a key, with its schema where it has one.",
    ),
    Key(
        path="online.*.features.key",
        parse=_plain(_text),
        meaning="The column that callers send, a whole number or a text; it wants an index.",
    ),
    Key(
        path="online.*.features.columns",
        parse=_plain(_columns),
        meaning="The inputs that are read from the columns of the same names.",
    ),
    Key(
        path="online.*.features.ttl",
        parse=_duration("0s", "365d"),
        default="10s",
        meaning="How long a worker remembers what it read, 0s to 365d.",
    ),
    Key(
        path="online.*.features.missing",
        parse=_plain(_on_missing),
        default="reject",
        meaning="What becomes of a key that is not there: reject (422), or null for inputs that may be missing.",
    ),
)
