"""What the registry holds, as every JSON answer shows it."""

from __future__ import annotations

from typing import Any

from cloche.app.project import Project
from cloche.bundle.bundle import Bundle
from cloche.core.shape import body, moment
from cloche.registry import ModelVersion


def version_body(version: ModelVersion, bundle: Bundle | None = None) -> dict[str, Any]:
    """A version as every answer shows it; with its bundle, also the signer and the manifest."""
    found = {
        "reference": str(version),
        "model": version.model,
        "number": version.version,
        "digest": version.digest,
        "framework": version.framework,
        "size_bytes": version.size_bytes,
        "quality": version.metrics,
        "aliases": version.aliases,
        "created": moment(version.created),
    }
    return found if bundle is None else found | {"signer": bundle.signer, "manifest": bundle.manifest}


def move_alias(project: Project, reference: str, name: str) -> dict[str, Any]:
    """Point an alias at a version; what it names now, and what it named before."""
    version = project.registry.resolve(reference)
    before = project.registry.set_alias(reference, name)
    was = None if before is None else str(before)
    return body("Alias", alias=f"{version.model}@{name}", now=str(version), before=was)
