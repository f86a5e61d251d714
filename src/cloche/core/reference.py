"""References to versions: `fraud`, `fraud:4`, `fraud@champion`."""

from __future__ import annotations

import re

import msgspec

from cloche.core.errors import ConfigError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
LATEST = "latest"


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A Reference names a version by number or by alias; a bare name means `latest`, the highest version."""

    model: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.model}:{self.version}"
        return f"{self.model}@{self.alias or LATEST}"


def check_name(name: str, what: str = "name") -> str:
    """The name itself; ConfigError when it is not lower-case letters, digits, `.`, `_` and `-`.

    An alias is no number either: `fraud@2` would look like `fraud:2` and could be another version.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} can't be {'an' if what == 'alias' else 'a'} {what}",
            code="CL-E203",
            hint="1 to 63 lower-case letters, digits, '.', '_' or '-', a letter or digit first",
        )
    if what == "alias" and name.isdigit():
        raise ConfigError(
            f"{name!r} can't be an alias: numbers are versions",
            code="CL-E203",
            hint=f"a version is written with a colon, as in fraud:{name}; choose a word for an alias",
        )
    return name


def parse_reference(text: str) -> Reference:
    """`fraud`, `fraud:4` or `fraud@champion`; ConfigError otherwise."""
    model, colon, version = text.partition(":")
    if colon:
        if not (version.isascii() and version.isdigit() and 1 <= len(version) <= 9 and int(version) > 0):
            raise ConfigError(
                f"{text!r} is not a reference: the version must be a number from 1",
                code="CL-E203",
                hint=f"write {model}:3 or {model}@champion",
            )
        return Reference(model=check_name(model), version=int(version))
    model, at, alias = text.partition("@")
    return Reference(model=check_name(model), alias=check_name(alias, "alias") if at else LATEST)
