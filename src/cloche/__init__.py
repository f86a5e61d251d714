"""Cloche takes a trained model from a laptop to production and keeps it healthy there.

The public names below are loaded on first use, so that `import cloche` costs the standard library only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloche.app.asgi import asgi
    from cloche.app.local import Loaded, alias, load, pack
    from cloche.bundle.bundle import Bundle
    from cloche.client import AsyncClient, Client
    from cloche.core.errors import (
        BusyError,
        ClocheError,
        ConfigError,
        ConflictError,
        ConversionError,
        InputError,
        MissingExtraError,
        ModelError,
        NotFoundError,
        RefusedError,
    )

__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "cloche.client",
    "Bundle": "cloche.bundle.bundle",
    "Client": "cloche.client",
    "Loaded": "cloche.app.local",
    "alias": "cloche.app.local",
    "asgi": "cloche.app.asgi",
    "load": "cloche.app.local",
    "pack": "cloche.app.local",
} | dict.fromkeys(
    (
        "BusyError",
        "ClocheError",
        "ConfigError",
        "ConflictError",
        "ConversionError",
        "InputError",
        "MissingExtraError",
        "ModelError",
        "NotFoundError",
        "RefusedError",
    ),
    "cloche.core.errors",
)

__all__ = [
    "AsyncClient",
    "Bundle",
    "BusyError",
    "Client",
    "ClocheError",
    "ConfigError",
    "ConflictError",
    "ConversionError",
    "InputError",
    "Loaded",
    "MissingExtraError",
    "ModelError",
    "NotFoundError",
    "RefusedError",
    "alias",
    "asgi",
    "load",
    "pack",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cloche' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
