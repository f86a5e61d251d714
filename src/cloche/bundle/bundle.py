"""Opens a packed model and hands out its files, each verified as it is read."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import msgspec

from cloche.bundle.golden import Golden, decode_golden
from cloche.bundle.html import bundle_html
from cloche.bundle.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SEAL,
    FileEntry,
    Manifest,
    decode_manifest,
    digest_of,
    parents,
)
from cloche.bundle.profile import Profile, decode_profile
from cloche.bundle.sign import check_seal
from cloche.core.errors import NotFoundError, RefusedError
from cloche.core.sealed import sealed
from cloche.core.signature import Signature
from cloche.core.units import format_duration, format_size

GOLDEN = "golden.json"
PROFILE = "profile.json"
CARD = "card.md"
SBOM = "sbom.json"

#: Bytes read at a time of a file that may be large.
_PIECE = 1 << 20


class Bundle:
    """A Bundle is one immutable packed model in a folder, known by its digest.

    Opening it checks the manifest and the seal; a file's bytes are checked when they are read.
    """

    def __init__(self, path: Path, manifest: Manifest, digest: str, signer: str) -> None:
        self.path = path
        self.manifest = manifest
        #: 64 hex digits: the SHA-256 of manifest.json.
        self.digest = digest
        #: The public key that sealed it, 64 hex digits.
        self.signer = signer
        #: What the registry calls it ("fraud:1"), where it was asked.
        self.reference: str | None = None
        self._entries = {entry.path: entry for entry in manifest.files}

    @classmethod
    def open(cls, path: Path, trust: Collection[str] | None, *, digest: str | None = None) -> Bundle:
        """The bundle in a folder; `trust` are the public keys that may have sealed it (None: any).

        With `digest`, it must be just that bundle. Raises NotFoundError CL-E303 when there is none,
        RefusedError CL-E404 when something does not fit and CL-E405 when the signer is unknown.
        """
        if not path.is_dir():
            raise NotFoundError(
                f"there is no bundle at {path}", code="CL-E303", hint="list them with: cloche models ls"
            )
        data = _read_file(path, MANIFEST, MAX_MANIFEST_BYTES)
        found = digest_of(data)
        if digest is not None and found != digest:
            raise _changed(MANIFEST, f"its digest is {found}, expected {digest}")
        signer = check_seal(data, _read_file(path, SEAL, MAX_MANIFEST_BYTES), trust, path)
        return cls(path, decode_manifest(data), found, signer)

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def signature(self) -> Signature:
        return self.manifest.signature

    def read(self, name: str) -> bytes:
        """The bytes of a file, read once and verified; RefusedError CL-E404 when they are others."""
        entry = self._entry(name)
        data = _read_file(self.path, name, entry.size)
        check_bytes(entry, data)
        return data

    def source(self, name: str) -> AbstractContextManager[str]:
        """The path of a copy of a file, read once and verified, that nothing can change. Raises as `read`."""
        return sealed(functools.partial(self._copy, self._entry(name)))

    def _copy(self, entry: FileEntry, into: BinaryIO) -> None:
        size, digest = 0, hashlib.sha256()
        with open_file(self.path, entry.path) as file:
            while piece := file.read(min(_PIECE, entry.size + 1 - size)):
                size += len(piece)
                digest.update(piece)
                into.write(piece)
        _check(entry, size, digest.hexdigest())

    def _entry(self, name: str) -> FileEntry:
        entry = self._entries.get(name)
        if entry is None:
            raise NotFoundError(f"the bundle has no file {name}", code="CL-E303", hint="see manifest.json")
        return entry

    def verify(self) -> None:
        """Read every file, and see that nothing else lies in the folder; RefusedError otherwise."""
        for entry in self.manifest.files:
            self.read(entry.path)
        allowed = {*self._entries, MANIFEST, SEAL}
        folders = {parent for path in allowed for parent in parents(path)}
        for folder, names, files in os.walk(self.path):
            for name in files + names:
                found = (Path(folder) / name).relative_to(self.path).as_posix()
                if found not in (folders if name in names else allowed):
                    raise RefusedError(
                        f"{found} does not belong to the bundle", code="CL-E404", where=str(self.path / found)
                    )

    def repeats(self, other: Bundle) -> bool:
        """Whether both were made of the same: nothing differs but when that was, and what was timed."""
        return _made_of(self.manifest) == _made_of(other.manifest)

    def golden(self) -> Golden:
        """The examples and what the model answered to them when it was packed."""
        return decode_golden(self.read(GOLDEN), self.signature)

    def profile(self) -> Profile | None:
        """What the held-out rows looked like; None when it was packed without rows."""
        return decode_profile(self.read(PROFILE)) if PROFILE in self._entries else None

    def __repr__(self) -> str:
        what = self.manifest
        size = format_size(sum(entry.size for entry in what.files))
        count = len(self.signature.inputs)
        return (
            f"<Bundle {self.reference or self.name} sha256:{self.digest[:12]} {what.description}\n"
            f" {what.framework} as {what.runtime.kind}, {count} input{'s' * (count != 1)}, {size}\n"
            f" {'; '.join(_proof(what))}>"
        )

    def _repr_html_(self) -> str:
        return bundle_html(self)


def _proof(what: Manifest) -> list[str]:
    """What packing found out, in words: parity, speed, quality, and what whoever uses it should know."""
    same = "answers through its own process equal" if what.runtime.kind == "python" else "same answers"
    found = [] if what.parity is None else [f"{same} on {what.parity.rows:,} rows"]
    if what.measured is not None:
        found.append(f"{format_duration(what.measured.row_p50_s)} a row")
    found += [f"{name} {value:.4g}" for name, value in list((what.quality or {}).items())[:1]]
    return [*found, *what.notes]


def _made_of(what: Manifest) -> Manifest:
    """The manifest without the time, what was timed, and the files that tell of both."""
    return msgspec.structs.replace(
        what,
        created="",
        measured=None,
        runtime=msgspec.structs.replace(what.runtime, threads=1, bulk_threads=1),
        files=tuple(entry for entry in what.files if entry.path not in (CARD, SBOM)),
    )


def check_bytes(entry: FileEntry, data: bytes) -> None:
    """RefusedError CL-E404, which names the file, when these are not its bytes."""
    _check(entry, len(data), hashlib.sha256(data).hexdigest())


def _check(entry: FileEntry, size: int, found: str) -> None:
    if size != entry.size:
        raise _changed(entry.path, f"it has {size} bytes, expected {entry.size}")
    if found != entry.sha256:
        raise _changed(entry.path, f"its SHA-256 is {found[:12]}…, expected {entry.sha256[:12]}…")


def _changed(name: str, why: str) -> RefusedError:
    return RefusedError(
        f"{name} is not what was packed: {why}", code="CL-E404", where=name, hint="get the bundle anew"
    )


def _read_file(root: Path, name: str, limit: int) -> bytes:
    """Up to `limit` + 1 bytes of a regular file below `root`."""
    with open_file(root, name) as file:
        return file.read(limit + 1)


def open_file(root: Path, name: str) -> BinaryIO:
    """A regular file below `root`, its bytes not verified yet; no link is followed on the way."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = -1
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for folder in name.split("/")[:-1]:
            inner = os.open(folder, flags | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        # Not to wait where somebody put a pipe in the file's place.
        file = os.open(name.rsplit("/", 1)[-1], flags | os.O_NONBLOCK, dir_fd=descriptor)
    except OSError as error:
        raise _changed(name, f"it can't be opened ({error.strerror})") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _changed(name, "it is not a regular file")
    return os.fdopen(file, "rb")
