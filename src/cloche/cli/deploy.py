"""`cloche deploy` and what is done to a rollout under way."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from cloche.app.acts import Acts
from cloche.cli.place import Elsewhere, place
from cloche.cli.progress import follow
from cloche.cli.push import known_there
from cloche.cli.terminal import Terminal
from cloche.core.errors import ConfigError
from cloche.core.units import parse_duration
from cloche.rollout.machine import Command
from cloche.rollout.strategy import Metric

_Terminal = Annotated[Terminal, Parameter(parse=False)]


def deploy(
    reference: str,
    /,
    *,
    deployment: str | None = None,
    strategy: str | None = None,
    steps: str | None = None,
    metric: Metric | None = None,
    now: bool = False,
    breaking: bool = False,
    wait: bool = False,
    timeout: str = "1h",
    elsewhere: Elsewhere | None = None,
    terminal: _Terminal,
) -> int:
    """Send a version out to callers, step by step, and take it back if it harms.

    Parameters
    ----------
    reference
        The version: fraud:4, fraud@champion, or fraud for the highest.
    deployment
        Which deployment of the model, where there are several.
    strategy
        canary (step by step), blue-green (all at once), shadow (copies of requests, for nobody) or ab (a share of
        the callers, compared); as cloche.toml says when not given.
    steps
        The candidate's share, and for how long, as in "5% for 10m, 50% for 10m, 100%"; of a shadow or ab one.
    metric
        End an ab as soon as this differs clearly: errors, latency, or score (the last class's probability).
    now
        All of the traffic at once, and promoted at once, when every worker has it warm.
    breaking
        Go on although callers must change what they send or read.
    wait
        Wait for the end and show how it goes: exit code 0 when it is promoted or its
        report is there, 1 when it was taken back.
    timeout
        Wait no longer than this; exit code 6 then. The rollout goes on.
    """
    seconds = parse_duration(timeout)
    if now and (strategy is not None or steps is not None):
        raise ConfigError("--now is a strategy of its own", hint="leave --strategy and --steps out")
    strategy = "now" if now else strategy
    with place(terminal, elsewhere) as where:
        if not isinstance(where, Acts):
            reference = known_there(terminal, where, reference)
        begun = where.deploy(
            reference,
            deployment=deployment,
            strategy=strategy,
            steps=steps,
            metric=metric or "",
            breaking=breaking,
        )
        for sentence in begun["breaks"]:
            terminal.note(f"warning: callers must change something: {sentence}")
        if wait:
            return follow(where, begun["rollout"], terminal, seconds)
    name = begun["deployment"]
    line = f"{name}: {begun['candidate']} goes out beside {begun['stable']} ({begun['strategy']})"
    terminal.answer(begun["kind"], begun, [line])
    terminal.note(f"next  cloche status {name} -w    undo  cloche abort {name}")
    return 0


def promote(name: str | None = None, /, *, elsewhere: Elsewhere | None = None, terminal: _Terminal) -> None:
    """Give a candidate all of the traffic now; where it has that, make it stable.

    Parameters
    ----------
    name
        The deployment; may be left out where there is only one.
    """
    _order(terminal, elsewhere, name, Command.PROMOTE, "is promoted")


def abort(name: str | None = None, /, *, elsewhere: Elsewhere | None = None, terminal: _Terminal) -> None:
    """Give a rollout up: the stable version has all of the traffic.

    Parameters
    ----------
    name
        The deployment; may be left out where there is only one.
    """
    _order(terminal, elsewhere, name, Command.ABORT, "is given up")


def pause(name: str | None = None, /, *, elsewhere: Elsewhere | None = None, terminal: _Terminal) -> None:
    """Keep a rollout at the step where it is; what harms is taken back all the same.

    Parameters
    ----------
    name
        The deployment; may be left out where there is only one.
    """
    _order(terminal, elsewhere, name, Command.PAUSE, "is paused")


def resume(name: str | None = None, /, *, elsewhere: Elsewhere | None = None, terminal: _Terminal) -> None:
    """Let a paused rollout go on.

    Parameters
    ----------
    name
        The deployment; may be left out where there is only one.
    """
    _order(terminal, elsewhere, name, Command.RESUME, "goes on")


def rollback(
    name: str | None = None,
    version: int | None = None,
    /,
    *,
    why: str = "by hand",
    elsewhere: Elsewhere | None = None,
    terminal: _Terminal,
) -> None:
    """Go back to the version before, at once; the one that had the traffic is blocked until it is cleared.

    Parameters
    ----------
    name
        The deployment; may be left out where there is only one.
    version
        The number of the version to go back to; the one before when not given.
    why
        What to say in the history.
    """
    with place(terminal, elsewhere) as where:
        told = where.rollback(name, version, why)
    terminal.answer(told["kind"], told, [f"{told['deployment']}: {told['stable']} has all of the traffic"])
    terminal.note(f"next  cloche history {told['deployment']}")


def unblock(reference: str, /, *, elsewhere: Elsewhere | None = None, terminal: _Terminal) -> None:
    """Let a version that was taken back be deployed again.

    Parameters
    ----------
    reference
        The version, by number: fraud:4.
    """
    with place(terminal, elsewhere) as where:
        told = where.unblock(reference)
    said = "may be deployed again" if told["was_blocked"] else "was not blocked"
    terminal.answer(told["kind"], told, [f"{told['reference']} {said}"])


def _order(
    terminal: Terminal, elsewhere: Elsewhere | None, name: str | None, command: Command, words: str
) -> None:
    with place(terminal, elsewhere) as where:
        told = where.order(name, command.value)
    terminal.answer(told["kind"], told, [f"{told['deployment']}: the rollout {words}"])
    terminal.note(f"next  cloche status {told['deployment']}")
