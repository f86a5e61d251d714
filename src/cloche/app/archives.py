"""Bundles on their way: export to one file, import from one, verify both."""

from __future__ import annotations

import re
from pathlib import Path

from cloche.app.project import Project
from cloche.bundle import archive
from cloche.bundle.bundle import Bundle
from cloche.core.errors import ConfigError, NotFoundError, RefusedError
from cloche.settings.kinds import looks_like_path
from cloche.store.trust import TrustedKey


def export_bundle(project: Project, reference: str, file: Path | None = None) -> Path:
    """Write a version's archive (default: `fraud-3.cloche` in the current folder); returns where."""
    bundle = project.open(reference)
    target = file or Path(f"{(bundle.reference or bundle.name).replace(':', '-')}{archive.SUFFIX}")
    if not target.parent.is_dir():
        raise NotFoundError(f"there is no folder {target.parent}", code="CL-E303", hint="make it first")
    return archive.write(bundle, target)


def import_bundle(project: Project, file: Path, name: str | None = None) -> Bundle:
    """Unpack an archive, verified in every byte, and register it as the next version of its model.

    Raises RefusedError: CL-E404 or CL-E408 for a damaged file, CL-E405 for an unknown signer.
    """
    trusted = project.trusted() | {project.signer.public_key}
    with project.bundles.stage() as staging:
        return project.register(archive.read(file, staging / "bundle", trusted), name, how="imported")


def verify_bundle(project: Project, what: str, *, trust: str | None = None) -> str:
    """Verify a version, a bundle's folder or an archive in every byte; returns its digest.

    With `trust`, a public key that must be the one that sealed it, that key is trusted from now on, once
    everything else fits. Raises ConfigError CL-E201 when it is no key, NotFoundError, RefusedError.
    """
    expected = None if trust is None else _public_key(trust)
    path = Path(what)
    if path.suffix == archive.SUFFIX and not path.exists():
        raise NotFoundError(f"there is no file {what}", code="CL-E303", hint="check the path")
    if not looks_like_path(what) and not path.is_file():
        path = project.bundles.path(project.registry.resolve(what).digest)
    trusted = project.trusted()
    if expected is not None:
        _check_signer(path, expected)
        trusted |= {expected}
    if path.is_file():
        digest = archive.inspect(path, trusted)
    else:
        bundle = Bundle.open(path, trusted)
        bundle.verify()
        digest = bundle.digest
    if expected is not None:
        trust_key(project, expected, path.name)
    return digest


def trust_key(project: Project, text: str, name: str = "") -> TrustedKey:
    """Believe what this key has signed from now on. Raises ConfigError CL-E201 when it is no key."""
    key = _public_key(text)
    # first the folder's own, so that it stays the first of the list
    own = project.signer.public_key
    return project.trust.add(key, name="this data folder" if key == own else name)


def _public_key(text: str) -> str:
    key = text.lower()
    if not re.fullmatch(r"[0-9a-f]{64}", key):
        raise ConfigError(
            f"{text[:80]!r} is not a public key",
            code="CL-E201",
            hint="write its 64 hex digits: whoever packed it sees them with  cloche models show",
        )
    return key


def _check_signer(path: Path, expected: str) -> None:
    found = archive.signer(path)
    if found != expected:
        # The key that was found is not offered: whoever swapped the bundle would have put it there.
        raise RefusedError(
            f"you expected {expected}, it is signed by {found}",
            code="CL-E405",
            where=str(path),
            hint="do not use it unless whoever packed it tells you, by a way that you trust, that the key is new",
        )
