"""`cloche batch ls`, `show` and `cancel`: what ran, what runs and what is due."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

from cyclopts import Parameter

from cloche.app.batch_view import run_body, schedule_body
from cloche.cli.batch_shown import answer_lines, facts
from cloche.cli.here import open_here
from cloche.cli.terminal import Terminal, pairs, table
from cloche.core.shape import bounded
from cloche.store.batches import Batches

_Terminal = Annotated[Terminal, Parameter(parse=False)]


def ls(name: str | None = None, /, *, limit: int = 20, no_header: bool = False, terminal: _Terminal) -> None:
    """List batch runs, the newest first, and when the next are due.

    Parameters
    ----------
    name
        Only the runs of this name.
    limit
        How many at most.
    no_header
        Leave out the lines with the columns' names.
    """
    with open_here(terminal) as project:
        items = [run_body(row) for row in Batches(project.store).list(name, most=bounded(limit))]
        wanted = [one for one in project.settings.batch if name in (None, one.name)]
    schedules = [schedule_body(one, time.time()) for one in wanted]
    rows = [[one["run"], one["name"] or "-", one["model"], one["state"], one["rows"], one["rejected"],
             one["started"]] for one in items]  # fmt: skip
    header = ["RUN", "NAME", "MODEL", "STATE", "ROWS", "REJECTED", "STARTED"]
    lines = table(header, rows, no_header=no_header) if rows else []
    lines += ["", *_schedule_lines(schedules, no_header=no_header)] if schedules else []
    terminal.answer("BatchRunList", {"items": items, "schedules": schedules}, lines)
    if not items:
        terminal.note("nothing has run yet; begin with  cloche batch run MODEL --source … --sink …")


def show(which: str, /, *, terminal: _Terminal) -> None:
    """Show one batch run: what it read, wrote and answered.

    Parameters
    ----------
    which
        Its id, the start of that, or the name whose newest run is meant.
    """
    with open_here(terminal) as project:
        found = run_body(Batches(project.store).find(which))
    terminal.answer("BatchRun", found, [*pairs(facts(found)), *answer_lines(found)])


def cancel(which: str, /, *, terminal: _Terminal) -> None:
    """Stop a batch run after its chunk.

    Parameters
    ----------
    which
        Its id, the start of that, or the name whose newest run is meant.
    """
    with open_here(terminal, create=True) as project:
        found = run_body(Batches(project.store).cancel(which))
    said = "is cancelled" if found["state"] == "cancelled" else "stops after its chunk"
    terminal.answer("BatchRun", found, [f"{found['run']} {said}"])
    terminal.note(f"undo  cloche batch resume {found['run']}")


def _schedule_lines(schedules: list[dict[str, Any]], *, no_header: bool) -> Iterator[str]:
    rows = [[one["name"], one["next"] or "-", one["schedule"] or "-", one["timezone"] or "-"] for one in schedules]
    yield from table(["NAME", "NEXT", "SCHEDULE", "TIMEZONE"], rows, no_header=no_header)
