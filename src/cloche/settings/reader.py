"""Values with the place they came from: file, variables and flags, in order of precedence."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cloche.core.errors import ConfigError
from cloche.core.reference import check_name
from cloche.core.toml_lines import find_lines
from cloche.settings.key import Key
from cloche.settings.keys import KEYS

Place = tuple[str, ...]

#: Tables of tables, each with a name of the user's choice, and what that is a name of.
NAMED = {"online": "a deployment", "batch": "a batch run"}
PREFIX = "CLOCHE_"
DATA_VARIABLE = "CLOCHE_DATA"
#: Variables that are no keys of the file: CLOCHE_DEBUG is the CLI's, CLOCHE_KEY the caller's (see the banner).
_OTHERS = (DATA_VARIABLE, "CLOCHE_DEBUG", "CLOCHE_KEY")


class Where(msgspec.Struct, frozen=True):
    """A Where is the place that a value was given at; the line is the file's, None for others."""

    text: str
    line: int | None = None


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A Problem is one thing that is wrong with what was given for a key, and where that stands."""

    code: str
    key: str
    where: str
    line: int | None
    message: str
    hint: str | None


class Reader:
    """A Reader collects what is given for each key, the later call winning, and all that is wrong with it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._environ = environ
        self._values: dict[Place, Any] = {}
        #: As it was written, before references were followed.
        self._written: dict[Place, object] = {}
        #: Where each key and table was given, with the tables that hold it.
        self._where: dict[Place, Where] = {}

    def read_file(self, text: str, shown: str, base: Path) -> None:
        """Take all of a TOML text; ValueError (and RecursionError) when it is not TOML."""
        content = tomllib.loads(text)
        lines = find_lines(text)

        def where(place: Place) -> Where:
            line = next(lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines)
            table = f"  [{'.'.join(place[:-1])}]" if place[1:] else ""
            return Where(f"{shown}:{line}{table}", line)

        self._walk((), content, where, base)

    def read_environment(self, base: Path) -> None:
        """Take every CLOCHE_… variable; one that means nothing is a problem, as in the file."""
        named = {_variable(place): place for place in self._where}
        for variable in sorted(self._environ):
            if not variable.startswith(PREFIX) or variable in _OTHERS:
                continue
            parts = variable.removeprefix(PREFIX).split("__")
            place: Place = ()
            for length in range(1, len(parts) + 1):
                known = named.get(PREFIX + "__".join(parts[:length]))
                place = known if known is not None else (*place, parts[length - 1].lower())
            self._take_text(place, self._environ[variable], Where(f"variable {variable}"), base)
        if data := self._environ.get(DATA_VARIABLE):
            self._take_text(("project", "data"), data, Where(f"variable {DATA_VARIABLE}"), base)

    def read_flags(self, flags: Mapping[str, object], base: Path) -> None:
        """Take what was said on the command line, by path of key; None is nothing said."""
        where = Where("command line")
        for path, value in flags.items():
            if isinstance(value, str):
                self._take_text(tuple(path.split(".")), value, where, base)
            elif value is not None:
                self._walk(tuple(path.split(".")), value, lambda _: where, base)

    def value(self, *place: str) -> Any:
        """What was given, else the default, parsed; None where there is neither."""
        if place in self._values:
            return self._values[place]
        key = find_key(place)
        if key is None or key.default is None:
            return None
        return key.parse(key.default, Path("/"))

    def written(self, *place: str) -> tuple[object, str] | None:
        """What was given as it was written, and where; None where nothing was."""
        return (self._written[place], self._where[place].text) if place in self._written else None

    def given(self, *table: str) -> dict[str, Any]:
        """The well-formed keys that were given directly within a table."""
        depth = len(table)
        return {p[depth]: v for p, v in self._values.items() if p[:depth] == table and len(p) == depth + 1}

    def names(self, *table: str) -> list[str]:
        """The names that stand directly within a table, in order."""
        depth = len(table)
        return list(dict.fromkeys(p[depth] for p in self._where if p[:depth] == table and len(p) > depth))

    def is_table(self, *place: str) -> bool:
        """Whether what was given last for a key that may be a table as well is one."""
        return place in self._where and place not in self._values

    def mentions(self, *place: str) -> bool:
        """Whether a key or table was given, well or not."""
        return place in self._where

    def blame(self, place: Place, message: str, hint: str | None, *, code: str = "CL-E201") -> None:
        """Note a problem at the place, or at the nearest table around it that was given."""
        around = next((place[:n] for n in range(len(place), 0, -1) if place[:n] in self._where), ())
        where = self._where.get(around, Where(""))
        self._problem(place, where, message, hint, code)

    def _walk(self, place: Place, value: object, where: Callable[[Place], Where], base: Path) -> None:
        key = find_key(place)
        if key is not None and not (isinstance(value, dict) and _is_table(place)):
            self._take(place, key, value, where(place), base)
        elif not _is_table(place):
            self._unknown(place, where(place))
        elif not isinstance(value, dict):
            self._problem(place, where(place), "this is a table, not a value", f"write [{'.'.join(place)}]")
        elif self._accepts_name(place, where):
            if place:
                self._forget(place)
                self._note(place, where(place))
            for name, inner in value.items():
                self._walk((*place, name), inner, where, base)

    def _accepts_name(self, place: Place, where: Callable[[Place], Where]) -> bool:
        if len(place) != 2 or place[0] not in NAMED:
            return True
        try:
            check_name(place[1], f"name of {NAMED[place[0]]}")
        except ConfigError as error:
            self._problem(place, where(place), error.message, error.hint)
            return False
        return True

    def _take_text(self, place: Place, text: str, where: Where, base: Path) -> None:
        """Take a value that was written where all is text: `9000` and `true` may be meant as such."""
        key = find_key(place)
        if key is None:
            self._walk(place, text, lambda _: where, base)
            return
        meant: object = text
        if self._refused(key, text, base) is not None:
            meant = {"true": True, "false": False}.get(text, text)
            if text.isascii() and text.isdigit() and len(text) < 19:
                meant = int(text)
        self._take(place, key, meant, where, base)

    def _forget(self, place: Place) -> None:
        """What was said before of a key as a value has no say where it is a table now, and the other way round."""
        around = [place[:length] for length in range(1, len(place)) if find_key(place[:length])]
        within = [other for other in self._where if other[: len(place)] == place] if find_key(place) else []
        for other in (*around, *within):
            for known in (self._values, self._written):
                known.pop(other, None)

    def _refused(self, key: Key, value: object, base: Path) -> ConfigError | None:
        try:
            key.parse(self._followed(key, value, base), base)
        except ConfigError as error:
            return error
        return None

    def _take(self, place: Place, key: Key, value: object, where: Where, base: Path) -> None:
        self._forget(place)
        self._note(place, where)
        self._written[place] = value
        try:
            if place[-2:-1] == ("limits",):
                check_name(place[-1], "name of a key")
            self._values[place] = key.parse(self._followed(key, value, base), base)
        except ConfigError as error:
            self._problem(place, where, error.message, error.hint)

    def _followed(self, key: Key, value: object, base: Path) -> object:
        """What `env:NAME` and `file:PATH` stand for; other values as they are."""
        if not (key.refers and isinstance(value, str)):
            return value
        kind, colon, target = value.partition(":")
        if colon and kind == "env":
            if not self._environ.get(target):
                raise ConfigError(f"the variable {target!r} is not set", hint="set it, or write the value here")
            return self._environ[target]
        if colon and kind == "file":
            try:
                return (base / target).read_text("utf-8").strip()
            except (OSError, ValueError):
                raise ConfigError(f"the file {target!r} can't be read", hint="check its path") from None
        return value

    def _unknown(self, place: Place, where: Where) -> None:
        table = next((place[:n] for n in range(len(place) - 1, -1, -1) if _is_table(place[:n])), ())
        wrong = place[len(table)]
        is_within_value = find_key(place[: len(table) + 1]) is not None
        known = {key.place[len(table)] for key in KEYS if _fits(table, key.place) and len(key.place) > len(table)}
        near = difflib.get_close_matches(wrong, sorted(known - {"*"}), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        if is_within_value:
            hint = f"{'.'.join(place[: len(table) + 1])} is a value, not a table"
        blamed = place if is_within_value else place[: len(table) + 1]
        self._problem(blamed, where, "there is no such setting", hint, "CL-E202")

    def _note(self, place: Place, where: Where) -> None:
        for length in range(1, len(place)):
            self._where.setdefault(place[:length], where)
        self._where[place] = where

    def _problem(self, place: Place, where: Where, message: str, hint: str | None, code: str = "CL-E201") -> None:
        key = ".".join(place)
        self.problems.append(
            Problem(code=code, key=key, where=where.text, line=where.line, message=message, hint=hint)
        )


def find_key(place: Place) -> Key | None:
    """The key that a place is one of, if any."""
    return next((key for key in KEYS if len(key.place) == len(place) and _fits(place, key.place)), None)


def _is_table(place: Place) -> bool:
    return any(len(key.place) > len(place) and _fits(place, key.place) for key in KEYS)


def _fits(place: Place, pattern: Place) -> bool:
    return all(part in ("*", name) for name, part in zip(place, pattern, strict=False))


def _variable(place: Place) -> str:
    parts = (part.upper().replace("-", "_").replace(".", "_") for part in place)
    return PREFIX + "__".join(parts)
