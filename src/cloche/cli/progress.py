"""Waits for the end of a rollout and shows how it goes: a tree that is redrawn, or a line for each event."""

from __future__ import annotations

import sys
import time

from cloche.app.project import Project
from cloche.app.standing import look
from cloche.cli.terminal import Terminal
from cloche.cli.tree import plain, tree
from cloche.core.errors import BusyError
from cloche.core.shape import moment
from cloche.store.deployments import Deployments
from cloche.store.events import Event, list_events

_LOOK_S = 0.5


def follow(project: Project, rollout: int, terminal: Terminal, seconds: float) -> int:
    """0 when the candidate is promoted, 1 when it was taken back; BusyError CL-E602 when that takes longer."""
    deployments = Deployments(project.store)
    name = deployments.rollout(rollout).deployment
    screen = Screen(terminal)
    ends = time.monotonic() + seconds
    told = 0
    while True:
        events = [one for one in list_events(project.store, name) if one.rollout == rollout and one.id > told]
        told = max([told, *(one.id for one in events)])
        row = deployments.rollout(rollout)
        screen.show([line for view in look(project, name) for line in tree(view)], events)
        if row.ended is not None:
            return _end(terminal, screen, events)
        if time.monotonic() > ends:
            screen.close()
            raise BusyError(
                f"the rollout of {name} goes on after {seconds:g} s",
                code="CL-E602",
                hint=f"cloche status {name} -w, or give it up: cloche abort {name}",
            )
        time.sleep(_LOOK_S)


def _end(terminal: Terminal, screen: Screen, events: list[Event]) -> int:
    last = events[-1]
    screen.close()
    promoted = last.action == "promoted"
    words = f"{last.deployment}: version {last.version} was {last.action}: {last.why}"
    told = {"deployment": last.deployment, "rollout": last.rollout, "outcome": last.action, "why": last.why}
    terminal.answer("Rollout", told, [words])
    undo = "cloche rollback" if promoted else "cloche history"
    terminal.note(f"{'undo' if promoted else 'next'}  {undo} {last.deployment}")
    return 0 if promoted else 1


class Screen:
    """A Screen redraws lines on a terminal; where there is none it says each event on a line, once."""

    def __init__(self, terminal: Terminal) -> None:
        self._redraws = (
            sys.stderr.isatty()
            and terminal.environ.get("TERM") != "dumb"
            and not terminal.json
            and terminal.verbosity >= 0
        )
        self._terminal = terminal
        self._height = 0

    def show(self, lines: list[str], events: list[Event]) -> None:
        if not self._redraws:
            for one in events:
                self._terminal.note(event_line(one))
            return
        up = f"\x1b[{self._height}A" if self._height else ""
        sys.stderr.write(f"{up}\r\x1b[J" + "".join(f"{line}\n" for line in lines))
        sys.stderr.flush()
        self._height = len(lines)

    def close(self) -> None:
        """Leave what is shown."""
        self._height = 0


def event_line(one: Event) -> str:
    """`2026-11-29T10:00:00Z  fraud:4  began  ada@laptop: canary: …`"""
    return plain(f"{moment(one.time)}  {one.deployment} v{one.version}  {one.action}  ({one.who}) {one.why}")
