"""`cloche audit`: who changed what, and whether the log of it holds."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from cloche.cli.here import open_here
from cloche.cli.terminal import Terminal, table
from cloche.core.shape import moment
from cloche.store.audit import list_audit, verify_audit

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
        rows = list_audit(project.store, most=max(1, min(limit, 10_000)))
    told = [[row.id, moment(row.time), row.who, row.action, row.target, _inline(row.details)] for row in rows]
    header = ["ID", "TIME", "WHO", "WHAT", "TARGET", "DETAILS"]
    items = [{**msgspec.to_builtins(row), "time": moment(row.time)} for row in rows]
    terminal.answer("AuditList", {"items": items}, table(header, told, no_header=no_header))


def verify(*, terminal: _Terminal) -> int:
    """Check that no row of the audit log was changed or taken out: exit code 1 where one was."""
    with open_here(terminal) as project:
        chain = verify_audit(project.store)
    holds = chain.broken is None
    line = f"{chain.rows} row{'s' * (chain.rows != 1)} hold{'s' * (chain.rows == 1)}; the newest is {chain.hash}"
    if not holds:
        line = f"row {chain.broken} does not hold: {chain.why}; {chain.rows} before it do"
    terminal.answer("AuditChain", {"holds": holds, **msgspec.to_builtins(chain)}, [line])
    return 0 if holds else 1


def _inline(details: dict[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in details.items() if value not in (None, ""))
