"""A version as every JSON answer shows it."""

from __future__ import annotations

from typing import Any

from cloche.bundle.bundle import Bundle
from cloche.core.shape import moment
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
