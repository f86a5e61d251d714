"""Lists of names as a message repeats them: never without end."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str], most: int = 12) -> str:
    """The first of these names, with … where there are more."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
