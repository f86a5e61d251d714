"""`cloche trust`: whose bundles are believed here."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from cloche.app.archives import trust_key
from cloche.cli.here import open_here
from cloche.cli.terminal import Terminal, table
from cloche.core.shape import moment

_Terminal = Annotated[Terminal, Parameter(parse=False)]


def add(public_key: str, /, *, name: str = "", terminal: _Terminal) -> None:
    """Believe what this key has signed.

    Parameters
    ----------
    public_key
        64 hex digits: whoever packs sees them with  cloche models show.
    name
        Whose it is.
    """
    with open_here(terminal, create=True) as project:
        added = trust_key(project, public_key, name)
    value = {"public_key": added.public_key, "name": added.name, "added": moment(added.added)}
    terminal.answer("TrustedKey", value, [f"{added.public_key} is trusted"])
    terminal.note(f"undo it with  cloche trust remove {added.public_key}")


def remove(public_key: str, /, *, terminal: _Terminal) -> None:
    """Believe a key no longer: what it has signed is not served from the next start or load on.

    Parameters
    ----------
    public_key
        64 hex digits, as  cloche trust ls  shows them.
    """
    with open_here(terminal, create=True) as project:
        project.trust.remove(public_key)
    terminal.answer("TrustedKey", {"public_key": public_key}, [f"{public_key} is trusted no more"])


def ls(*, no_header: bool = False, terminal: _Terminal) -> None:
    """List the keys whose bundles are believed; the first is this data folder's own.

    Parameters
    ----------
    no_header
        Leave out the line with the columns' names.
    """
    with open_here(terminal) as project:
        keys = project.trust.list()
    rows = [[key.public_key, key.name, moment(key.added)] for key in keys]
    items = [{"public_key": key.public_key, "name": key.name, "added": moment(key.added)} for key in keys]
    terminal.answer("TrustedKeyList", {"items": items}, table(["KEY", "NAME", "ADDED"], rows, no_header=no_header))
