"""How a command speaks: the answer on stdout, everything else on stderr, JSON when asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from cloche.core.codes import CODES
from cloche.core.errors import BusyError, ClocheError, ConfigError
from cloche.core.paint import colourful, paint_error
from cloche.core.shape import body

#: What stands for signs that a terminal lacks.
_PLAIN = str.maketrans(
    {"●": "*", "◐": "+", "○": "-", "├": "|", "└": "`", "─": "-", "│": "|", "█": "#", "░": ".", "⟳": "~",
     "→": ">", "·": "|", "…": "..."}
)  # fmt: skip


class Terminal(msgspec.Struct, frozen=True, kw_only=True):
    """A Terminal is what the flags that all commands share ask for, and the two ways out."""

    directory: Path
    environ: Mapping[str, str]
    config: Path | None = None
    json: bool = False
    #: -1 with `-q`, 1 with `-v`, 2 with `-vv`.
    verbosity: int = 0
    no_color: bool = False

    def answer(self, kind: str, value: Mapping[str, Any], lines: Iterable[str]) -> None:
        """Print the answer: `lines` for people, or one JSON object of `kind` that holds `value`."""
        if self.json:
            _write(sys.stdout, msgspec.json.encode(body(kind) | dict(value), enc_hook=_plain).decode())
        else:
            _write(sys.stdout, *lines)

    def note(self, text: str) -> None:
        """Say something that is not the answer; `-q` hears only errors."""
        if self.verbosity >= 0 and not self.json:
            _write(sys.stderr, text)

    def confirm(self, loss: str, *, yes: bool) -> bool:
        """Ask before something is lost; without a person to ask, `--yes` is needed (ConfigError)."""
        if yes:
            return True
        if self.json or not sys.stdin.isatty():
            raise ConfigError(f"this needs your word: {loss}", hint="add --yes")
        sys.stderr.write(f"{loss}; go on? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return True
        self.note("nothing was changed")
        return False

    def report(self, error: ClocheError) -> None:
        """Show an error in the one shape that errors have, or as a problem object with `--json`."""
        if self.json:
            _write(sys.stderr, msgspec.json.encode(problem(error), enc_hook=_plain).decode())
        else:
            text = paint_error(error.render()) if self.is_colourful() else error.render()
            details = [f"  - {_inline(each)}" for each in error.details] if self.verbosity > 0 else []
            _write(sys.stderr, text, *details)

    def is_colourful(self) -> bool:
        """Whether what is said on stderr is coloured."""
        return not self.no_color and colourful(self.environ, terminal=sys.stderr.isatty())


def problem(error: ClocheError) -> dict[str, Any]:
    """The problem object of an error: the members that the HTTP API's problems have as well."""
    found: dict[str, Any] = {"title": CODES[error.code][0], "detail": error.message, "code": error.code}
    if error.where:
        found["where"] = error.where
    if error.hint:
        found["hint"] = error.hint
    if error.details:
        found["errors"] = [dict(each) for each in error.details]
    if isinstance(error, BusyError):
        found["retry_after_s"] = error.retry_after_s
    return found


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, no_header: bool = False) -> list[str]:
    """Aligned columns, one row a line, no boxes: for people as well as for grep and awk."""
    cells = [list(header), *([_on_one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    ]
    return lines[1:] if no_header else lines


def pairs(found: Mapping[str, object]) -> list[str]:
    """One `name  value` a line, values aligned."""
    width = max((len(name) for name in found), default=0)
    return [f"{name.ljust(width)}  {_on_one_line(value)}".rstrip() for name, value in found.items()]


def _on_one_line(value: object) -> str:
    """The value as text that does not steer a terminal: names and notes may be somebody else's."""
    text = str(value)
    return text if text.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in text)


def fitting(text: str, stream: IO[str]) -> str:
    """The text in signs that the stream has."""
    encoding: str = getattr(stream, "encoding", None) or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    return text


def _write(stream: IO[str], *lines: str) -> None:
    for line in lines:
        stream.write(f"{fitting(line, stream)}\n")
    stream.flush()


def _inline(detail: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in detail.items() if value is not None)


def _plain(value: object) -> object:
    """What msgspec does not know: paths as text, numbers of numpy as Python's own."""
    if isinstance(value, Path):
        return str(value)
    to_list = getattr(value, "tolist", None)
    if to_list is None:
        raise TypeError(f"{type(value).__name__} can't stand in an answer")
    return to_list()
