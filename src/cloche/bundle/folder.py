"""Writes a bundle's folder: the files, the manifest that lists them, and the seal over it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cloche.bundle.bundle import Bundle
from cloche.bundle.manifest import MANIFEST, SEAL, FileEntry, Manifest, decode_manifest, digest_of
from cloche.bundle.sign import Signer
from cloche.core.errors import ConflictError


def write_folder(folder: Path, manifest: Manifest, files: Mapping[str, bytes], signer: Signer) -> Bundle:
    """Write the new folder, whole or not at all, and open it; the manifest's own list of files is replaced.

    Raises ConflictError CL-E502 when the folder exists.
    """
    data = msgspec.structs.replace(manifest, files=list_files(files)).encode()
    decode_manifest(data)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        raise ConflictError(f"{folder} exists already", code="CL-E502", hint="name another folder")
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".pack-"))
    try:
        for name, content in {**files, MANIFEST: data, SEAL: signer.seal(data)}.items():
            write_file(temporary / name, content)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return Bundle.open(folder, {signer.public_key}, digest=digest_of(data))


def list_files(files: Mapping[str, bytes]) -> tuple[FileEntry, ...]:
    """What the manifest says of these files, sorted by path."""
    return tuple(
        FileEntry(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for path, content in sorted(files.items())
    )


def write_file(path: Path, content: bytes) -> None:
    """Write a file that must not exist, and its folders; `store.blobs` puts them through to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        out.write(content)
