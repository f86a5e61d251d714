"""`cloche apply`: take over what cloche.toml says now."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from cloche.app.acts import Acts
from cloche.app.apply import apply as take_over
from cloche.cli.here import open_here
from cloche.cli.progress import follow
from cloche.cli.terminal import Terminal, table
from cloche.core.units import parse_duration


def apply(
    *,
    dry_run: Annotated[bool, Parameter(["-n", "--dry-run"])] = False,
    wait: bool = False,
    timeout: str = "1h",
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> int:
    """Take over what cloche.toml says now, without a restart; a file that has not changed changes nothing.

    Parameters
    ----------
    dry_run
        Only show the plan.
    wait
        Wait for the end of the rollouts that it begins: exit code 1 when one was taken back.
    timeout
        Wait no longer than this for each.
    """
    seconds = parse_duration(timeout)
    with open_here(terminal, create=True) as project:
        changes, begun = take_over(project, dry_run=dry_run)
        items = [msgspec.to_builtins(one) for one in changes]
        rows = [[one.deployment, one.what, one.before or "-", one.after or "-", one.how] for one in changes]
        lines = table(["DEPLOYMENT", "WHAT", "NOW", "THEN", "HOW"], rows) if rows else ["nothing to change"]
        terminal.answer("Plan", {"items": items, "rollouts": begun, "dry_run": dry_run}, lines)
        if not wait:
            return 0
        return max([0, *(follow(Acts(project), number, terminal, seconds) for number in begun)])
