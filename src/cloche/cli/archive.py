"""`cloche export`, `import` and `verify`: bundles on their way to another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cloche.app.archives import export_bundle, import_bundle, verify_bundle
from cloche.app.models import version_body
from cloche.cli.here import open_here
from cloche.cli.terminal import Terminal
from cloche.core.units import format_size

_Terminal = Annotated[Terminal, Parameter(parse=False)]


def export(reference: str, file: Path | None = None, /, *, terminal: _Terminal) -> None:
    """Write a bundle into one archive file.

    Parameters
    ----------
    reference
        The version, as in fraud:3.
    file
        Where to; fraud-3.cloche in this folder when not given.
    """
    with open_here(terminal) as project:
        written = export_bundle(project, reference, file)
    size = written.stat().st_size
    value = {"reference": reference, "file": written, "size_bytes": size}
    terminal.answer("Archive", value, [f"{written}  {format_size(size)}"])
    terminal.note(f"next  cloche import {written.name}  on the other machine")


def import_(file: Path, /, *, name: str | None = None, terminal: _Terminal) -> None:
    """Check an archive file and register its bundle.

    Parameters
    ----------
    file
        What export wrote.
    name
        Register it as a version of this model, not of the one that it was packed as.
    """
    with open_here(terminal, create=True) as project:
        known = {(version.model, version.digest) for version in project.registry.list()}
        bundle = import_bundle(project, file, name)
        version = project.registry.resolve(str(bundle.reference))
    said = "already there as" if (version.model, version.digest) in known else "imported as"
    terminal.answer("ModelVersion", version_body(version, bundle), [f"{said} {version}"])
    terminal.note(f"next  cloche up {version}")


def verify(what: str, /, *, trust: str | None = None, terminal: _Terminal) -> None:
    """Check every byte and the signature of a bundle.

    Parameters
    ----------
    what
        An archive file, a bundle's folder, or a version, as in fraud:3.
    trust
        The public key that must have signed it (64 hex digits); it is trusted from then on.
    """
    with open_here(terminal, create=trust is not None) as project:
        digest = verify_bundle(project, what, trust=trust)
    value = {"what": what, "digest": digest, "trusted": trust}
    terminal.answer("Verification", value, [f"{what} is what was packed: sha256 {digest}"])
