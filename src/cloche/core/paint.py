"""Colour for people: red errors, yellow warnings; standard library only, since the supervisor imports it."""

from __future__ import annotations

from collections.abc import Mapping

_COLOURS = {"warning": "33", "error": "1;31", "critical": "1;31"}


def colourful(environ: Mapping[str, str], *, terminal: bool) -> bool:
    """Whether to use colour on a stream, which may be a terminal: NO_COLOR says no, CLICOLOR_FORCE yes."""
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return terminal or bool(environ.get("CLICOLOR_FORCE"))


def paint(text: str, level: str) -> str:
    """The text in the colour of its level ("warning", "error"); as it is when that has none."""
    colour = _COLOURS.get(level)
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def paint_error(text: str) -> str:
    """An error in the one shape, its code in red; other text as it is."""
    if not text.startswith("error["):
        return text
    code, _, rest = text.partition(":")
    return f"{paint(code, 'error')}:{rest}"
