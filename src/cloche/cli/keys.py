"""`cloche keys`: make, list and revoke API keys."""

from __future__ import annotations

import time
from typing import Annotated, Any

from cyclopts import Parameter

from cloche.cli.here import open_here
from cloche.cli.terminal import Terminal, table
from cloche.core.keys import KeyRecord
from cloche.core.shape import moment
from cloche.core.units import parse_duration
from cloche.store.keys import Keys

_Terminal = Annotated[Terminal, Parameter(parse=False)]


def create(
    name: str,
    /,
    *,
    scope: list[str] | None = None,
    expires: str | None = None,
    terminal: _Terminal,
) -> None:
    """Make an API key; it is shown once.

    Parameters
    ----------
    name
        Who will use it; its rate limit in cloche.toml goes by this name.
    scope
        What it may do: predict (the default) or metrics; read, deploy or admin on the admin port; may be given
        several times.
    expires
        When it ends by itself, as in 90d.
    """
    expires_in_s = None if expires is None else parse_duration(expires)
    with open_here(terminal, create=True) as project:
        minted = Keys(project.store).create(name, scopes=tuple(scope or ["predict"]), expires_in_s=expires_in_s)
    terminal.answer("ApiKey", {**_shown(minted.record), "key": minted.text}, [minted.text])
    terminal.note(f"keep it now, it is not shown again; undo it with  cloche keys revoke {name}")


def ls(*, no_header: bool = False, terminal: _Terminal) -> None:
    """List the API keys.

    Parameters
    ----------
    no_header
        Leave out the line with the columns' names.
    """
    with open_here(terminal) as project:
        records = Keys(project.store).list()
    now = time.time()
    rows = [
        [
            record.id,
            record.name,
            ",".join(record.scopes),
            _state(record, now),
            moment(record.created),
            _end(record),
        ]
        for record in records
    ]
    header = ["ID", "NAME", "SCOPES", "STATE", "CREATED", "EXPIRES"]
    items = [{**_shown(record), "state": _state(record, now)} for record in records]
    terminal.answer("ApiKeyList", {"items": items}, table(header, rows, no_header=no_header))
    if not records:
        terminal.note("no keys yet; make one with  cloche keys create NAME")


def revoke(which: str, /, *, yes: Annotated[bool, Parameter(["-y", "--yes"])] = False, terminal: _Terminal) -> int:
    """Revoke an API key; workers refuse it within a second.

    Parameters
    ----------
    which
        The key's name, its id or the start of its id.
    yes
        Don't ask.
    """
    if not terminal.confirm(f"whoever uses the key {which!r} will be refused within a second", yes=yes):
        return 1
    with open_here(terminal, create=True) as project:
        record = Keys(project.store).revoke(which)
    terminal.answer("ApiKey", _shown(record), [f"revoked {record.id} ({record.name})"])
    return 0


def _end(record: KeyRecord) -> str:
    return moment(record.expires) or "never"


def _state(record: KeyRecord, now: float) -> str:
    if record.revoked is not None:
        return "revoked"
    return "active" if record.is_active(now) else "expired"


def _shown(record: KeyRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "scopes": record.scopes,
        "created": moment(record.created),
        "expires": moment(record.expires),
        "revoked": moment(record.revoked),
    }
