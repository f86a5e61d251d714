"""Opens the project that a command was started in."""

from __future__ import annotations

from cloche.app.project import Project, open_project
from cloche.cli.terminal import Terminal


def open_here(terminal: Terminal, *, create: bool = False) -> Project:
    """The project of the terminal's folder and settings file; close it. Without `create` nothing is written."""
    return open_project(terminal.directory, config=terminal.config, create=create)
