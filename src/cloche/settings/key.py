"""What a key of `cloche.toml` is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cloche.settings.kinds import Kind


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A Key is one thing that can be set; `*` in its path stands for a name of the user's choice."""

    path: str
    kind: Kind
    #: As it would be written; None where there is none.
    default: object = None
    meaning: str
    #: Whether a table that is there must have it.
    needed: bool = False
    #: Whether `env:NAME` and `file:PATH` stand for a value elsewhere.
    refers: bool = False
    #: Whether a value may hold a password, which is never shown.
    secret: bool = False

    @property
    def place(self) -> tuple[str, ...]:
        return tuple(self.path.split("."))

    def parse(self, value: Any, base: Path) -> Any:
        """What was written, as the tree holds it; ConfigError otherwise."""
        return self.kind.parse(value, base)
