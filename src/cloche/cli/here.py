"""Opens the project that a command was started in."""

from __future__ import annotations

from collections.abc import Mapping

from cloche.app.project import Project, open_project
from cloche.cli.terminal import Terminal


def open_here(
    terminal: Terminal, *, create: bool = False, overrides: Mapping[str, object] | None = None
) -> Project:
    """The project of the terminal's folder and settings file; close it. Without `create` nothing is written."""
    return open_project(terminal.directory, config=terminal.config, overrides=overrides, create=create)
