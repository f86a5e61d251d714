"""Waits for the end of a rollout and shows how it goes: a tree that is redrawn, or a line for each event."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from cloche.app.standing import DeploymentView
from cloche.cli.place import Place
from cloche.cli.terminal import Terminal, fitting
from cloche.cli.tree import tree
from cloche.core.errors import BusyError
from cloche.core.shape import body

#: As `history --json` shows it.
Event: TypeAlias = Mapping[str, Any]
_LOOK_S = 0.5


def follow(where: Place, rollout: int, terminal: Terminal, seconds: float) -> int:
    """0 when the candidate is promoted, 1 when it was taken back; BusyError CL-E602 when that takes longer."""
    name = where.rollout(rollout)["deployment"]
    screen = Screen(terminal)
    ends = time.monotonic() + seconds
    last = 0
    while True:
        ended = where.rollout(rollout)["ended"]  # first: so its end is among the events
        events = [one for one in where.history(name, 100)["items"] if one["rollout"] == rollout]
        screen.show(drawn(where.status(name)), [one for one in events if one["id"] > last])
        last = max(last, newest(events))
        if ended is not None:
            return _end(terminal, screen, events[-1])
        if time.monotonic() > ends:
            screen.close()
            raise BusyError(
                f"the rollout of {name} goes on after {seconds:g} s",
                code="CL-E602",
                hint=f"cloche status {name} -w, or give it up: cloche abort {name}",
            )
        time.sleep(_LOOK_S)


def drawn(standing: Mapping[str, Any]) -> list[str]:
    """The lines of a DeploymentList."""
    views = msgspec.convert(standing["items"], tuple[DeploymentView, ...])
    return [line for view in views for line in tree(view)]


def newest(events: Sequence[Event]) -> int:
    """The number of the newest event."""
    return max((one["id"] for one in events), default=0)


def _end(terminal: Terminal, screen: Screen, last: Event) -> int:
    screen.close()
    name, promoted = last["deployment"], last["action"] == "promoted"
    told = body("Rollout", deployment=name, rollout=last["rollout"], outcome=last["action"], why=last["why"])
    words = f"{name}: version {last['version']} was {last['action']}: {last['why']}"
    terminal.answer(told["kind"], told, [words])
    undo = "cloche rollback" if promoted else "cloche history"
    terminal.note(f"{'undo' if promoted else 'next'}  {undo} {name}")
    return 0 if promoted or last["action"] == "reported" else 1


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

    def show(self, lines: list[str], events: Sequence[Event]) -> None:
        if not self._redraws:
            for one in events:
                self._terminal.note(event_line(one))
            return
        up = f"\x1b[{self._height}A" if self._height else ""
        sys.stderr.write(f"{up}\r\x1b[J" + "".join(f"{fitting(line, sys.stderr)}\n" for line in lines))
        sys.stderr.flush()
        self._height = len(lines)

    def close(self) -> None:
        """Leave what is shown."""
        self._height = 0


def event_line(one: Event) -> str:
    """`2026-11-29T10:00:00Z  fraud:4  began  ada@laptop: canary: …`"""
    what = f"{one['deployment']} v{one['version']}  {one['action']}"
    return f"{one['time']}  {what}  ({one['who']}) {one['why']}"
