"""`cloche models`, `alias` and `diff`: what the registry holds, and moving a name in it."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from cloche.app.models import move_alias, version_body
from cloche.bundle.diff import diff as compare
from cloche.cli.here import open_here
from cloche.cli.portrait import describe, difference, signature_table
from cloche.cli.terminal import Terminal, pairs, table
from cloche.core.shape import moment
from cloche.core.units import format_size

_Terminal = Annotated[Terminal, Parameter(parse=False)]


def ls(model: str | None = None, /, *, no_header: bool = False, terminal: _Terminal) -> None:
    """List models and their versions.

    Parameters
    ----------
    model
        Only the versions of this one.
    no_header
        Leave out the line with the columns' names.
    """
    with open_here(terminal) as project:
        versions = project.registry.list(model)
    rows = [
        [
            version,
            version.framework,
            format_size(version.size_bytes),
            ",".join(version.aliases),
            moment(version.created),
        ]
        for version in versions
    ]
    header = ["VERSION", "FRAMEWORK", "SIZE", "ALIASES", "CREATED"]
    items = [version_body(version) for version in versions]
    terminal.answer("ModelVersionList", {"items": items}, table(header, rows, no_header=no_header))
    if not versions:
        terminal.note("nothing is packed yet; begin with  cloche pack MODEL --name NAME")


def show(reference: str, /, *, terminal: _Terminal) -> None:
    """Show one version: signature, quality, size, speed.

    Parameters
    ----------
    reference
        fraud:3, fraud@champion, or fraud for its highest version.
    """
    with open_here(terminal) as project:
        version = project.registry.resolve(reference)
        bundle = project.open_version(version)
    facts = {
        "model": version,
        "aliases": ", ".join(version.aliases) or "none",
        "digest": bundle.digest,
        "signer": bundle.signer,
    }
    terminal.answer(
        "ModelVersion",
        version_body(version, bundle),
        [*pairs(facts | describe(bundle.manifest)), "", *signature_table(bundle.signature)],
    )


def alias(reference: str, name: str, /, *, terminal: _Terminal) -> None:
    """Point an alias at a version.

    Parameters
    ----------
    reference
        The version, as in fraud:3.
    name
        The alias, as in champion.
    """
    with open_here(terminal, create=True) as project:
        moved = move_alias(project, reference, name)
    now, before = moved["now"], moved["before"]
    was = "" if before is None else f" (was {before}; undo it with  cloche alias {before} {name})"
    said = f"is now {now}{was}" if before != now else f"is {now} already; nothing was changed"
    terminal.answer(moved["kind"], moved, [f"{moved['alias']} {said}"])
    if before != now:
        terminal.note("a server that runs keeps the version it began with, until it is started again")


def diff(before: str, after: str, /, *, terminal: _Terminal) -> None:
    """Compare two versions: signature, quality, profile, size, speed.

    Parameters
    ----------
    before
        A version, as in fraud:2.
    after
        Another, as in fraud:3.
    """
    with open_here(terminal) as project:
        old, new = (project.open(which) for which in (before, after))
    found = compare(old, new)
    terminal.answer("Diff", {"diff": found}, difference(found))
