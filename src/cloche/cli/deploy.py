"""`cloche deploy` and what is done to a rollout under way."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from cloche.app.deploy import deploy as begin
from cloche.app.deploy import order, roll_back
from cloche.cli.here import open_here
from cloche.cli.progress import follow
from cloche.cli.terminal import Terminal
from cloche.core.errors import ConfigError
from cloche.core.reference import parse_reference
from cloche.core.units import parse_duration
from cloche.rollout.machine import Command
from cloche.rollout.strategy import Metric
from cloche.store.deployments import Deployments

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
    with open_here(terminal, create=True) as project:
        begun = begin(
            project,
            reference,
            deployment=deployment,
            strategy=strategy,
            steps=steps,
            metric=metric or "",
            breaking=breaking,
        )
        for sentence in begun.breaks:
            terminal.note(f"warning: callers must change something: {sentence}")
        if wait:
            return follow(project, begun.rollout, terminal, seconds)
    told = {
        "deployment": begun.deployment,
        "rollout": begun.rollout,
        "stable": begun.stable,
        "candidate": begun.candidate,
        "strategy": begun.strategy.name,
    }
    line = f"{begun.deployment}: {begun.candidate} goes out beside {begun.stable} ({begun.strategy.name})"
    terminal.answer("Rollout", told, [line])
    terminal.note(f"next  cloche status {begun.deployment} -w    undo  cloche abort {begun.deployment}")
    return 0


def promote(name: str | None = None, /, *, terminal: _Terminal) -> None:
    """Give a candidate all of the traffic now; where it has that, make it stable.

    Parameters
    ----------
    name
        The deployment; may be left out where there is only one.
    """
    _order(terminal, name, Command.PROMOTE, "is promoted")


def abort(name: str | None = None, /, *, terminal: _Terminal) -> None:
    """Give a rollout up: the stable version has all of the traffic.

    Parameters
    ----------
    name
        The deployment; may be left out where there is only one.
    """
    _order(terminal, name, Command.ABORT, "is given up")


def pause(name: str | None = None, /, *, terminal: _Terminal) -> None:
    """Keep a rollout at the step where it is; what harms is taken back all the same.

    Parameters
    ----------
    name
        The deployment; may be left out where there is only one.
    """
    _order(terminal, name, Command.PAUSE, "is paused")


def resume(name: str | None = None, /, *, terminal: _Terminal) -> None:
    """Let a paused rollout go on.

    Parameters
    ----------
    name
        The deployment; may be left out where there is only one.
    """
    _order(terminal, name, Command.RESUME, "goes on")


def rollback(
    name: str | None = None, version: int | None = None, /, *, why: str = "by hand", terminal: _Terminal
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
    with open_here(terminal, create=True) as project:
        row = roll_back(project, name, version, why)
    told = {"deployment": row.name, "stable": f"{row.model}:{row.stable}", "revision": row.revision}
    terminal.answer("Rollback", told, [f"{row.name}: {row.model}:{row.stable} has all of the traffic"])
    terminal.note(f"next  cloche history {row.name}")


def unblock(reference: str, /, *, terminal: _Terminal) -> int:
    """Let a version that was taken back be deployed again.

    Parameters
    ----------
    reference
        The version, by number: fraud:4.
    """
    wanted = parse_reference(reference)
    if wanted.version is None:
        raise ConfigError(f"{reference} may become another version", code="CL-E203", hint=f"{wanted.model}:4")
    with open_here(terminal, create=True) as project:
        project.registry.resolve(wanted)
        was = Deployments(project.store).unblock(wanted.model, wanted.version)
    line = f"{wanted} may be deployed again" if was else f"{wanted} was not blocked"
    terminal.answer("Unblock", {"version": str(wanted), "was_blocked": was}, [line])
    return 0


def _order(terminal: Terminal, name: str | None, command: Command, words: str) -> None:
    with open_here(terminal, create=True) as project:
        row = order(project, name, command)
        goal: dict[str, Any] = {"deployment": row.name, "rollout": row.rollout, "command": command.value}
    terminal.answer("Order", goal, [f"{row.name}: the rollout {words}"])
    terminal.note(f"next  cloche status {row.name}")
