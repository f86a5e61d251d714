"""The one way to what is optional: a module by name, or words that say what to install."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from cloche.core.errors import MissingExtraError


def load_extra(module: str, doing: str, extra: str) -> Any:
    """The module, imported on first use; MissingExtraError where a package that it needs is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cloche."):
            raise
        raise MissingExtraError(
            f"{doing} needs {error.name}", code="CL-E701", hint=f'pip install "cloche[{extra}]"'
        ) from None
