"""`cloche audit`: who changed what, and whether the log of it holds."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from cloche.app.audit import list_audit, verify_audit
from cloche.cli.here import open_here
from cloche.cli.terminal import Terminal, table

_Terminal = Annotated[Terminal, Parameter(parse=False)]


def ls(*, limit: int = 50, no_header: bool = False, terminal: _Terminal) -> None:
    """List who changed what, and when; the newest last.

    Parameters
    ----------
    limit
        How many, the newest.
    no_header
        Leave out the line with the columns' names.
    """
    with open_here(terminal) as project:
        told = list_audit(project, limit)
    columns = ("id", "time", "who", "action", "target")
    rows = [[*(row[column] for column in columns), _inline(row["details"])] for row in told["items"]]
    header = ["ID", "TIME", "WHO", "WHAT", "TARGET", "DETAILS"]
    terminal.answer(told["kind"], told, table(header, rows, no_header=no_header))


def verify(*, terminal: _Terminal) -> int:
    """Check that no row of the audit log was changed or taken out: exit code 1 where one was."""
    with open_here(terminal) as project:
        told = verify_audit(project)
    count = told["rows"]
    line = f"{count} row{'s' * (count != 1)} hold{'s' * (count == 1)}; the newest is {told['hash']}"
    if not told["holds"]:
        line = f"row {told['broken']} does not hold: {told['why']}; {count} before it do"
    terminal.answer(told["kind"], told, [line])
    return 0 if told["holds"] else 1


def _inline(details: dict[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in details.items() if value not in (None, ""))
