"""`cloche status` and `cloche history`: how deployments stand, and what happened to them."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from cyclopts import Parameter

from cloche.app.standing import look
from cloche.cli.here import open_here
from cloche.cli.progress import Screen
from cloche.cli.terminal import Terminal, table
from cloche.cli.tree import tree
from cloche.core.shape import moment
from cloche.store.deployments import Deployments
from cloche.store.events import list_events

_Terminal = Annotated[Terminal, Parameter(parse=False)]
_LOOK_S = 1.0


def status(
    name: str | None = None,
    /,
    *,
    watch: Annotated[bool, Parameter(["-w", "--watch"])] = False,
    terminal: _Terminal,
) -> int:
    """Show which versions have the traffic, and how a rollout goes.

    Parameters
    ----------
    name
        One deployment; all of them when not given.
    watch
        Go on until Ctrl-C; exit code 0 then.
    """
    with open_here(terminal) as project:
        if watch:
            screen = Screen(terminal)
            told = max([0, *(one.id for one in list_events(project.store, name))])
            while True:
                events = [one for one in list_events(project.store, name) if one.id > told]
                told = max([told, *(one.id for one in events)])
                screen.show([line for view in look(project, name) for line in tree(view)], events)
                time.sleep(_LOOK_S)
        views = look(project, name)
    lines = [line for view in views for line in tree(view)]
    terminal.answer("DeploymentList", {"items": [msgspec.to_builtins(view) for view in views]}, lines)
    if not views:
        terminal.note("nothing was ever served here; start with  cloche up MODEL")
    return 0


def history(name: str | None = None, /, *, limit: int = 50, no_header: bool = False, terminal: _Terminal) -> None:
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
    with open_here(terminal) as project:
        if name is not None:
            Deployments(project.store).get(name)
        events = list_events(project.store, name, most=max(1, min(limit, 10_000)))
    rows = [[moment(one.time), one.deployment, one.version, one.action, one.who, one.why] for one in events]
    header = ["TIME", "DEPLOYMENT", "VERSION", "WHAT", "WHO", "WHY"]
    items = [{**msgspec.to_builtins(one), "time": moment(one.time)} for one in events]
    terminal.answer("EventList", {"items": items}, table(header, rows, no_header=no_header))
