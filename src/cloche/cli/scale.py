"""`cloche scale`: how many workers a person wants."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from cloche.app.deploy import is_served
from cloche.app.deploy import scale as want
from cloche.cli.here import open_here
from cloche.cli.terminal import Terminal
from cloche.core.errors import ConfigError


def scale(workers: str, /, *, terminal: Annotated[Terminal, Parameter(parse=False)]) -> None:
    """Have so many workers, whatever cloche.toml says, until `cloche scale auto`; a restart keeps it.

    Parameters
    ----------
    workers
        A number, or auto: as cloche.toml says, or as the load wants where that says so.
    """
    if workers != "auto" and not (workers.isascii() and workers.isdigit() and len(workers) < 10):
        raise ConfigError(f"{workers!r} is not a number of workers", hint="write 4, or auto")
    count = None if workers == "auto" else int(workers)
    with open_here(terminal, create=True) as project:
        before = want(project, count)
        serves = is_served(project)
    says = "as cloche.toml says" if count is None else f"{count}, whatever cloche.toml says"
    terminal.answer("Scale", {"workers": count, "before": before, "served": serves}, [f"workers: {says}"])
    terminal.note(
        "next  cloche status" if serves else "nothing is served here now: it holds from the next cloche up on"
    )
