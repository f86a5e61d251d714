"""Carries a bundle in one file, and reads such a file without believing it.

The file is a plain ustar archive that any `tar` can list, in the one form that `write` gives it:
manifest.json, seal.json, then the manifest's files in its order. The reader knows from the verified manifest
which header must come next, byte for byte, so that links, devices, foreign names, duplicates and padding have
no place to stand; nothing is compressed, so nothing can blow up.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from cloche.bundle.bundle import Bundle, check_bytes
from cloche.bundle.folder import write_file
from cloche.bundle.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SEAL,
    FileEntry,
    decode_manifest,
    digest_of,
)
from cloche.bundle.sign import check_seal
from cloche.core.errors import NotFoundError, RefusedError

BLOCK = 512
SUFFIX = ".cloche"
_MAX_SEAL_BYTES = 64 * 1024


def write(bundle: Bundle, file: Path) -> Path:
    """Write the bundle to one file, whole or not at all; every file is verified on the way."""
    parts = [MANIFEST, SEAL, *(entry.path for entry in bundle.manifest.files)]
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(descriptor, "wb") as out:
            for name in parts:
                data = (bundle.path / name).read_bytes() if name in (MANIFEST, SEAL) else bundle.read(name)
                out.write(_header(name, len(data)) + data + bytes(-len(data) % BLOCK))
            out.write(bytes(2 * BLOCK))
            out.flush()
            os.fsync(descriptor)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return file


def read(file: Path, into: Path, trust: Collection[str] | None) -> Bundle:
    """Unpack an archive into the new folder `into`, verified in every byte, and open it.

    The signer is checked first. Raises NotFoundError CL-E303, RefusedError CL-E404 (a file's bytes), CL-E405
    (the signer) or CL-E408 (the archive's form), each with the name of the file.
    """
    if not file.is_file():
        raise NotFoundError(f"there is no file {file}", code="CL-E303", hint="check the path")
    into.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=into.parent, prefix=".import-"))
    try:
        with file.open("rb") as source:
            digest = _unpack(source, folder, trust, file)
        folder.chmod(0o755)
        folder.rename(into)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Bundle.open(into, trust, digest=digest)


def inspect(file: Path, trust: Collection[str] | None) -> str:
    """Verify an archive in every byte without keeping it; its digest. Raises as `read` does."""
    if not file.is_file():
        raise NotFoundError(f"there is no file {file}", code="CL-E303", hint="check the path")
    with file.open("rb") as source:
        return _unpack(source, None, trust, file)


def signer(file: Path) -> str:
    """The public key that sealed an archive or bundle folder, trusted or not (the seal itself is checked)."""
    if file.is_dir():
        return Bundle.open(file, None).signer
    with file.open("rb") as source:
        manifest = _take_manifest(source, file)
        return check_seal(manifest, _take_unknown(source, SEAL, _MAX_SEAL_BYTES), None, file)


def _unpack(source: BinaryIO, folder: Path | None, trust: Collection[str] | None, file: Path) -> str:
    data = _take_manifest(source, file)
    seal = _take_unknown(source, SEAL, _MAX_SEAL_BYTES)
    check_seal(data, seal, trust, file)
    manifest = decode_manifest(data)
    _put(folder, MANIFEST, data)
    _put(folder, SEAL, seal)
    for entry in manifest.files:
        if source.read(BLOCK) != _header(entry.path, entry.size):
            raise _damaged(entry.path, "its header is not the one that belongs there")
        _put(folder, entry.path, _take(source, entry))
    if source.read(2 * BLOCK + 1) != bytes(2 * BLOCK):
        raise _damaged("the end of the archive", "there is something that no bundle holds")
    return digest_of(data)


def _take_manifest(source: BinaryIO, file: Path) -> bytes:
    try:
        return _take_unknown(source, MANIFEST, MAX_MANIFEST_BYTES)
    except RefusedError as error:  # what every file that is something else runs into: say which
        raise RefusedError(
            f"{file.name}: {error.message}", code=error.code, where=str(file), hint=error.hint
        ) from None


def _take_unknown(source: BinaryIO, name: str, limit: int) -> bytes:
    """The content of the next part, which must have this name; its size is not known beforehand."""
    header = source.read(BLOCK)
    digits = header[124:135]
    size = int(digits, 8) if len(digits) == 11 and digits.strip(b"01234567") == b"" else limit + 1
    if size > limit or header != _header(name, size):
        raise _damaged(name, "it is not a bundle's, or its header was changed")
    data = source.read(size)
    if len(data) != size or source.read(-size % BLOCK) != bytes(-size % BLOCK):
        raise _damaged(name, "it ends too early, or its padding was changed")
    return data


def _take(source: BinaryIO, entry: FileEntry) -> bytes:
    data = source.read(entry.size)
    check_bytes(entry, data)
    if source.read(-entry.size % BLOCK) != bytes(-entry.size % BLOCK):
        raise _damaged(entry.path, "its padding was changed")
    return data


def _put(folder: Path | None, name: str, data: bytes) -> None:
    if folder is not None:
        write_file(folder / name, data)


def _header(name: str, size: int) -> bytes:
    """A ustar header: a regular file of nobody's, 0644, of 1970."""
    fields = (
        name.encode().ljust(100, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,
        b"%011o\0" % size,
        b"00000000000\0",
        b" " * 8,
        b"0".ljust(101, b"\0"),
        b"ustar\x0000".ljust(88, b"\0"),
    )
    block = bytearray(b"".join(fields).ljust(BLOCK, b"\0"))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _damaged(name: str, why: str) -> RefusedError:
    return RefusedError(
        f"{name}: {why}", code="CL-E408", where=name, hint="give an archive as `cloche export` wrote it"
    )
