"""Help without boxes, the same for a person and a pipe."""

from __future__ import annotations

import textwrap
from functools import cached_property
from typing import Any


class PlainHelp:
    """A PlainHelp is cyclopts' plain formatter, imported when help is shown: a command that runs shows none."""

    @cached_property
    def _formatter(self) -> Any:
        from cyclopts.help import PlainFormatter

        made: Any = PlainFormatter()
        made._print_plain = _print_wrapped
        return made

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        self._formatter(console, options, panel)

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:
        self._formatter.render_usage(console, options, usage)

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        self._formatter.render_description(console, options, description)


def _print_wrapped(console: Any, text: str) -> None:
    """Each paragraph filled to the width, whatever its own breaks; an entry's further lines are indented."""
    for number, paragraph in enumerate(text.split("\n\n")):
        indent = " " * (len(paragraph) - len(paragraph.lstrip(" ")))
        lines = textwrap.wrap(
            " ".join(paragraph.split()),
            console.width,
            initial_indent=indent,
            subsequent_indent=f"{indent}    " if indent else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        blank = [""] if number else []
        console.print("\n".join([*blank, *lines]), highlight=False, markup=False, soft_wrap=True)
