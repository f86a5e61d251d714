"""The bill of materials (CycloneDX 1.6): the model's files and what is needed to run them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

import msgspec

from cloche.bundle.manifest import FileEntry, Manifest

_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", re.ASCII)
#: What each runtime of ours needs beside Cloche.
_RUNTIME_NEEDS = {"onnx": ("numpy", "onnxruntime"), "python": ("numpy",)}


def make_sbom(manifest: Manifest, files: Sequence[FileEntry]) -> bytes:
    """The bytes of `sbom.json`."""
    names = {"cloche", *_RUNTIME_NEEDS.get(manifest.runtime.kind, ())}
    for requirement in manifest.requirements:
        names.add(package_of(requirement))
    content = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": manifest.created,
            "tools": {
                "components": [{"type": "application", "name": "cloche", "version": manifest.lineage.cloche}]
            },
            "component": {
                "type": "machine-learning-model",
                "bom-ref": f"model/{manifest.name}",
                "name": manifest.name,
                "description": f"{manifest.description} ({manifest.framework})",
            },
        },
        "components": [*(_library(name) for name in sorted(names)), *(_file(file) for file in files)],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=1)


def package_of(requirement: str) -> str:
    """The package of a requirement, as the index writes it: `scikit-learn` of `Scikit_Learn[all]>=1.5`."""
    found = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", found[1] if found else requirement).lower()


def _library(name: str) -> dict[str, Any]:
    component: dict[str, Any] = {"type": "library", "name": name, "purl": f"pkg:pypi/{name}"}
    try:
        found = metadata(name)
    except PackageNotFoundError:
        return component | {"bom-ref": component["purl"]}
    component["version"] = found["Version"]
    component["purl"] += f"@{found['Version']}"
    if "License-Expression" in found:
        component["licenses"] = [{"expression": found["License-Expression"]}]
    return component | {"bom-ref": component["purl"]}


def _file(file: FileEntry) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"file/{file.path}",
        "name": file.path,
        "hashes": [{"alg": "SHA-256", "content": file.sha256}],
    }
