"""`cloche status` and `cloche history`: how deployments stand, and what happened to them."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cloche.app.acts import Acts
from cloche.app.deploy import find_deployment
from cloche.cli.place import Elsewhere, Place, place
from cloche.cli.progress import Screen, drawn, newest
from cloche.cli.terminal import Terminal, table
from cloche.core.errors import ConfigError

_Terminal = Annotated[Terminal, Parameter(parse=False)]
_LOOK_S = 1.0


def status(
    name: str | None = None,
    /,
    *,
    watch: Annotated[bool, Parameter(["-w", "--watch"])] = False,
    html: Path | None = None,
    elsewhere: Elsewhere | None = None,
    terminal: _Terminal,
) -> int:
    """Show which versions have the traffic, and how a rollout goes.

    Parameters
    ----------
    name
        One deployment; all of them when not given.
    watch
        Go on until Ctrl-C.
    html
        Write the newest rollout of the deployment as a page to this file.
    """
    with place(terminal, elsewhere, create=False) as where:
        if html is not None:
            _write_page(html, where, name)
            terminal.answer("RolloutPage", {"path": html}, [str(html)])
            return 0
        if watch:
            _watch(where, name, terminal)
        told = where.status(name)
    terminal.answer(told["kind"], told, drawn(told))
    if not told["items"]:
        terminal.note("nothing was ever served here; start with  cloche up MODEL")
    return 0


def _write_page(path: Path, where: Place, name: str | None) -> None:
    if not isinstance(where, Acts):
        raise ConfigError("a page is written where the deployment is", hint="leave --host out, there")
    # what makes pages is of no use to who only looks
    rollout_page = import_module("cloche.app.rollout_page").rollout_page
    page = rollout_page(where.project.store, find_deployment(where.project, None, name).name)
    try:
        path.write_text(page, "utf-8")
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}", hint="name another file") from None


def _watch(where: Place, name: str | None, terminal: Terminal) -> None:
    screen = Screen(terminal)
    last = newest(where.history(name)["items"])
    while True:
        events = [one for one in where.history(name)["items"] if one["id"] > last]
        last = max(last, newest(events))
        screen.show(drawn(where.status(name)), events)
        time.sleep(_LOOK_S)


def history(
    name: str | None = None,
    /,
    *,
    limit: int = 50,
    no_header: bool = False,
    elsewhere: Elsewhere | None = None,
    terminal: _Terminal,
) -> None:
    """Say what happened to deployments: who, what, when and why; the newest last.

    Parameters
    ----------
    name
        One deployment; all of them when not given.
    limit
        How many, the newest.
    no_header
        Leave out the line with the columns' names.
    """
    with place(terminal, elsewhere, create=False) as where:
        told = where.history(name, limit)
    columns = ("time", "deployment", "version", "action", "who", "why")
    rows = [[one[column] for column in columns] for one in told["items"]]
    header = ["TIME", "DEPLOYMENT", "VERSION", "WHAT", "WHO", "WHY"]
    terminal.answer(told["kind"], told, table(header, rows, no_header=no_header))
