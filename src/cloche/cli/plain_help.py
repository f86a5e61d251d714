"""Help without boxes, the same for a person and a pipe."""

from __future__ import annotations

from functools import cached_property
from typing import Any


class PlainHelp:
    """A PlainHelp is cyclopts' plain formatter, imported when help is shown: a command that runs shows none."""

    @cached_property
    def _formatter(self) -> Any:
        from cyclopts.help import PlainFormatter

        return PlainFormatter()

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        self._formatter(console, options, panel)

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:
        self._formatter.render_usage(console, options, usage)

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        self._formatter.render_description(console, options, description)
