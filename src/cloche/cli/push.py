"""`cloche push`: a version goes to another host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cloche.app.project import Project
from cloche.app.push import push as send
from cloche.cli.here import open_here
from cloche.cli.place import Elsewhere, connect
from cloche.cli.terminal import Terminal
from cloche.cli.ticker import ticking
from cloche.core.errors import ConfigError, NotFoundError
from cloche.registry import ModelVersion

if TYPE_CHECKING:
    from cloche.client.admin import Admin


def push(
    reference: str,
    /,
    *,
    name: str | None = None,
    elsewhere: Elsewhere | None = None,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> None:
    """Send a version to another host, which verifies it; a push that broke off goes on where it was.

    Parameters
    ----------
    reference
        The version here, as in fraud:3.
    name
        Register it there as a version of this model, not of the one that it is of here.
    """
    where = elsewhere or Elsewhere()
    if where.host is None:
        raise ConfigError("where to is not said", hint="add --host https://other:8082")
    with connect(terminal, where.host, where) as there, open_here(terminal) as project:
        version = project.registry.resolve(reference)
        sent = _send(terminal, project, version, there, name)
    here = "" if sent["reference"] == str(version) else f" (here {version})"
    terminal.answer(sent["kind"], sent, [f"{sent['reference']}{here} is at {there.url}"])
    terminal.note(f"next  cloche deploy {version} --host {there.url}")


def known_there(terminal: Terminal, there: Admin, reference: str) -> str:
    """What a version here is called there, pushed first; what is not here is meant as it is there."""
    with open_here(terminal) as project:
        try:
            version = project.registry.resolve(reference)
        except NotFoundError:
            terminal.note(f"{reference} is not here: taken for what {there.url} calls so")
            return reference
        return str(_send(terminal, project, version, there)["reference"])


def _send(
    terminal: Terminal, project: Project, version: ModelVersion, there: Admin, name: str | None = None
) -> dict[str, Any]:
    with ticking(terminal, in_bytes=True) as ticker:
        return send(project, version, there, name=name, tell=ticker)
