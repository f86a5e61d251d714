"""Sends a version to another host: what is missing there, by digest, from where the last try left off."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cloche.app.project import Project
from cloche.bundle.bundle import Bundle, open_file
from cloche.bundle.manifest import MANIFEST, SEAL, FileEntry, digest_of
from cloche.core.errors import BusyError, RefusedError
from cloche.registry import ModelVersion

if TYPE_CHECKING:
    from cloche.client.admin import Admin

#: What one request carries.
CHUNK_BYTES = 4 * 2**20

Tell = Callable[[str, int, int], None]


def push(
    project: Project, version: ModelVersion, there: Admin, *, name: str | None = None, tell: Tell | None = None
) -> dict[str, Any]:
    """The version that it is there: of the model `name`, else of the one that it is of here.

    `tell` hears how many bytes are sent, and of how many. Raises as the other host did; BusyError where the
    connection broke: the next push goes on from there.
    """
    bundle = project.open_version(version)
    manifest = (bundle.path / MANIFEST).read_bytes()
    if digest_of(manifest) != bundle.digest:
        raise RefusedError(f"{MANIFEST} is not what was packed", code="CL-E404", where=str(bundle.path))
    name = name or version.model
    begun = there.begin(manifest, (bundle.path / SEAL).read_bytes(), name)
    offsets = {one["sha256"]: int(one["offset"]) for one in begun["files"]}
    missing = {entry.sha256: entry for entry in bundle.manifest.files if entry.sha256 in offsets}
    total = sum(entry.size - offsets[entry.sha256] for entry in missing.values())
    sent = 0
    try:
        for entry in missing.values():
            sent = _send(bundle, entry, offsets[entry.sha256], there, lambda done: _told(tell, done, total), sent)
        if tell is not None:
            tell("verifying there", 0, 0)
        return there.finish(bundle.digest, name)
    except BusyError as error:
        raise BusyError(
            error.message,
            code=error.code,
            where=error.where,
            hint="do it again: it goes on where it broke off",
            retry_after_s=error.retry_after_s,
        ) from error


def _send(
    bundle: Bundle, entry: FileEntry, offset: int, there: Admin, told: Callable[[int], None], sent: int
) -> int:
    """Send a file from `offset` on; how many bytes are sent then, of all files."""
    with open_file(bundle.path, entry.path) as file:
        file.seek(offset)
        while True:
            told(sent)
            piece = file.read(min(CHUNK_BYTES, entry.size - offset))
            if len(piece) < min(CHUNK_BYTES, entry.size - offset):
                raise RefusedError(
                    f"{entry.path} is not what was packed: it ends too early",
                    code="CL-E404",
                    where=entry.path,
                    hint="get the bundle anew",
                )
            there.add(bundle.digest, entry.sha256, offset, piece)
            offset, sent = offset + len(piece), sent + len(piece)
            if offset == entry.size:
                return sent


def _told(tell: Tell | None, done: int, total: int) -> None:
    if tell is not None:
        tell("pushing", done, total)
