"""At which line a key of a TOML text stands, since `tomllib` does not say."""

from __future__ import annotations

import re
import tomllib

#: A string of any of the four kinds; the long ones first.
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SKIP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
_BLANKS = re.compile(r"[ \t]*")
#: What a value that is no string, array or table consists of (numbers, booleans, times).
_SCALAR = re.compile(r"[^,\]\}\r\n#]+")

Path = tuple[str, ...]


def find_lines(text: str) -> dict[Path, int]:
    """The line, from 1, of each table and key: `{("serve",): 3, ("serve", "port"): 4}`.

    `text` must be valid TOML, newlines as they are in the file. Keys of tables within arrays are given
    the line of the array.
    """
    return _Scanner(text).scan()


class _Scanner:
    """A _Scanner walks over a valid text once; it knows keys, strings and brackets, and no more."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        self._skip(_SKIP)
        while self._at < len(self._text):
            if self._peek() == "[":
                start = self._at
                self._at += 2 if self._text.startswith("[[", self._at) else 1
                table = self._key()
                self._note(table, start)
                self._at = self._text.index("]", self._at)
                self._at += 2 if self._text.startswith("]]", self._at) else 1
            else:
                self._pair(table)
            self._skip(_SKIP)
        return self._lines

    def _pair(self, table: Path) -> None:
        start = self._at
        path = table + self._key()
        self._note(path, start)
        self._at = self._text.index("=", self._at) + 1
        self._skip(_BLANKS)
        self._value(path)

    def _key(self) -> Path:
        parts = []
        while True:
            self._skip(_BLANKS)
            match = _STRING.match(self._text, self._at) or _BARE.match(self._text, self._at)
            if match is None:
                raise ValueError(f"the text is not TOML at character {self._at}")
            self._at = match.end()
            quoted = match[0][0] in "\"'"
            parts.append(tomllib.loads(f"k = {match[0]}")["k"] if quoted else match[0])
            self._skip(_BLANKS)
            if self._peek() != ".":
                return tuple(parts)
            self._at += 1

    def _value(self, path: Path | None) -> None:
        first = self._peek()
        if first == "[":
            self._sequence("]", None)
        elif first == "{":
            self._sequence("}", path)
        else:
            match = _STRING.match(self._text, self._at) or _SCALAR.match(self._text, self._at)
            if match is None:
                raise ValueError(f"the text is not TOML at character {self._at}")
            self._at = match.end()

    def _sequence(self, closing: str, path: Path | None) -> None:
        """An array, or an inline table; `path` is None within an array, where keys get no line."""
        self._at += 1
        while True:
            self._skip(_SKIP)
            if self._peek() == ",":
                self._at += 1
            elif self._peek() == closing:
                self._at += 1
                return
            elif closing == "]":
                self._value(None)
            else:
                self._inline_pair(path)

    def _inline_pair(self, path: Path | None) -> None:
        if path is not None:
            self._pair(path)
            return
        self._key()
        self._at = self._text.index("=", self._at) + 1
        self._skip(_BLANKS)
        self._value(None)

    def _note(self, path: Path, at: int) -> None:
        line = self._text.count("\n", 0, at) + 1
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], line)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if match := pattern.match(self._text, self._at):
            self._at = match.end()
