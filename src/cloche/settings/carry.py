"""Settings on their way to another process, which reads neither file nor environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cloche.settings.tree import Settings


def to_json(settings: Settings) -> dict[str, Any]:
    """The tree as JSON values."""
    told: dict[str, Any] = msgspec.to_builtins(settings, enc_hook=str)
    return told


def from_json(told: dict[str, Any]) -> Settings:
    """The tree that `to_json` told."""
    return msgspec.convert(told, Settings, dec_hook=lambda _kind, value: Path(value))
