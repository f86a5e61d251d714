"""`cloche.toml` and the environment become one frozen tree here; nothing else reads either."""

from __future__ import annotations

from cloche.settings.load import default_online, described_batch, load_settings
from cloche.settings.schema import json_schema
from cloche.settings.told import Told, tell_setting, tell_settings
from cloche.settings.tree import Access, Batch, Cache, OnInvalid, Online, Serve, Settings

__all__ = [
    "Access",
    "Batch",
    "Cache",
    "OnInvalid",
    "Online",
    "Serve",
    "Settings",
    "Told",
    "default_online",
    "described_batch",
    "json_schema",
    "load_settings",
    "tell_setting",
    "tell_settings",
]
