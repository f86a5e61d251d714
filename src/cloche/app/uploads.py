"""Bundles that another host sends here: their files arrive by digest, in parts, and nothing is believed unseen."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

from cloche.app.models import version_body
from cloche.app.project import Project
from cloche.bundle.bundle import Bundle
from cloche.bundle.manifest import MANIFEST, SEAL, FileEntry, Manifest, decode_manifest, digest_of
from cloche.bundle.sign import check_seal
from cloche.core.errors import BusyError, ConflictError, InputError, NotFoundError, RefusedError
from cloche.core.reference import check_name
from cloche.core.shape import body
from cloche.core.units import format_size

#: Bundles under way at a time, and how long one waits for the rest of it.
MOST = 16
KEPT_S = 24 * 3600.0
#: What a bundle may not take of the disk.
_SPARE_BYTES = 256 * 2**20
_PREFIX = ".push-"
_PART = ".part"
_PIECE = 1 << 20
#: Versions of the model whose files are looked at: one that is there already need not be sent.
_LOOKS = 20


class Uploads:
    """An Uploads is the bundles under way to a project: a folder each, with the files that are there in whole."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._bundles = project.bundles

    def begin(self, manifest: bytes, seal: bytes, name: str | None = None) -> dict[str, Any]:
        """What is missing of a bundle, and how far each file of it is.

        Raises RefusedError (CL-E404, CL-E408 the manifest, CL-E405 the signer), BusyError CL-E606 (no room).
        """
        self._check_signer(manifest, seal)
        what = decode_manifest(manifest)
        digest, name = digest_of(manifest), check_name(name or what.name, "name of a model")
        if digest in self._bundles:
            return self._answer(digest, name, [])
        folder = self._folder(digest)
        if not folder.is_dir():
            self._make_room(what)
            folder.mkdir(mode=0o700, parents=True)
        for path, data in ((folder / MANIFEST, manifest), (folder / SEAL, seal)):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(data)
            fresh.replace(path)
        self._borrow(folder, what, name)
        missing = {entry.sha256: entry for entry in what.files if not (folder / entry.sha256).exists()}
        files = [
            {"sha256": one.sha256, "size_bytes": one.size, "offset": _size(folder / f"{one.sha256}{_PART}")}
            for one in missing.values()
        ]
        return self._answer(digest, name, files)

    def open(self, digest: str, sha256: str, offset: int) -> Part:
        """The file to go on with; ConflictError CL-E507 where it is not so far, or another sends it now."""
        folder = self._staged(digest)
        what = decode_manifest((folder / MANIFEST).read_bytes())
        entry = next((one for one in what.files if one.sha256 == sha256), None)
        if entry is None:
            raise NotFoundError(f"the bundle has no file of the digest {sha256[:12]}…", code="CL-E303")
        return Part(folder / sha256, entry, offset)

    def finish(self, digest: str, name: str | None = None) -> dict[str, Any]:
        """Verify everything and register it; the version. Raises as `Bundle.open` and `Bundle.verify`."""
        project = self._project
        if digest in self._bundles:
            kept = Bundle.open(self._bundles.path(digest), project.trusted(), digest=digest)
            kept.verify()
            return self._registered(kept, name)
        folder = self._staged(digest)
        what = decode_manifest((folder / MANIFEST).read_bytes())
        with self._bundles.stage() as staging:
            whole = staging / "bundle"
            whole.mkdir()
            for file in (MANIFEST, SEAL):
                shutil.copyfile(folder / file, whole / file)
            for entry in what.files:
                _place(folder / entry.sha256, whole / entry.path, entry)
            bundle = Bundle.open(whole, project.trusted() | {project.signer.public_key}, digest=digest)
            bundle.verify()
            answer = self._registered(bundle, name)
        shutil.rmtree(folder, ignore_errors=True)
        return answer

    def _registered(self, bundle: Bundle, name: str | None) -> dict[str, Any]:
        kept = self._project.register(bundle, name, how="pushed")
        return body("ModelVersion", **version_body(self._project.registry.resolve(str(kept.reference)), kept))

    def _answer(self, digest: str, name: str, files: list[dict[str, Any]]) -> dict[str, Any]:
        known = [version for version in self._project.registry.list() if version.model == name]
        held = next((str(version) for version in known if version.digest == digest), None)
        return body("Upload", digest=digest, reference=held, files=files)

    def _check_signer(self, manifest: bytes, seal: bytes) -> None:
        project = self._project
        try:
            check_seal(manifest, seal, project.trusted() | {project.signer.public_key}, Path(SEAL))
        except RefusedError as error:
            if error.code != "CL-E405":
                raise
            signer = check_seal(manifest, seal, None, Path(SEAL))
            raise RefusedError(
                f"the bundle is signed by a key that is not trusted on this host: {signer}",
                code="CL-E405",
                hint=f"if you know whose key it is, trust it there, and push again: cloche trust add {signer}",
            ) from None

    def _make_room(self, what: Manifest) -> None:
        """Forget what was left half-way a day ago; BusyError where there are too many, or no room on the disk."""
        root = self._bundles.root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged = [folder for folder in root.iterdir() if folder.name.startswith(_PREFIX)]
        old = [folder for folder in staged if time.time() - _touched(folder) > KEPT_S]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        if len(staged) - len(old) >= MOST:
            raise BusyError(f"{MOST} pushes are under way here already", code="CL-E606", retry_after_s=60.0)
        # twice: what arrived is copied into its place
        needed = 2 * sum(entry.size for entry in what.files) + _SPARE_BYTES
        free = shutil.disk_usage(root).free
        if needed > free:
            raise BusyError(
                f"the bundle needs {format_size(needed)} of that host's disk, and {format_size(free)} is free",
                code="CL-E606",
                hint="make room there",
                retry_after_s=60.0,
            )

    def _borrow(self, folder: Path, what: Manifest, name: str) -> None:
        """Take what other versions of the model have, where it is still what it says."""
        wanted = {entry.sha256: entry for entry in what.files if not (folder / entry.sha256).exists()}
        for version in [one for one in self._project.registry.list() if one.model == name][:_LOOKS]:
            try:
                bundle = self._project.open_version(version)
                for entry in bundle.manifest.files:
                    if entry.sha256 in wanted:
                        del wanted[entry.sha256]
                        with bundle.source(entry.path) as copy:
                            shutil.copyfile(copy, folder / f"{entry.sha256}.new")
                        (folder / f"{entry.sha256}.new").replace(folder / entry.sha256)
            except (NotFoundError, RefusedError):
                continue

    def _folder(self, digest: str) -> Path:
        return self._bundles.root / f"{_PREFIX}{digest}"

    def _staged(self, digest: str) -> Path:
        folder = self._folder(digest)
        if len(digest) != 64 or not digest.isalnum() or not (folder / SEAL).is_file():
            raise NotFoundError("no push of this bundle is under way", code="CL-E303", hint="begin it anew")
        return folder


class Part:
    """A Part is one file on its way, held by whoever sends it; `write` adds to it, `close` lets go of it."""

    def __init__(self, place: Path, entry: FileEntry, offset: int) -> None:
        self._place = place
        self._entry = entry
        self._path = place.with_name(f"{place.name}{_PART}")
        self._file = self._path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ConflictError(
                f"{entry.path} is being sent by another push", code="CL-E507", hint="wait for it"
            ) from None
        self.size = os.fstat(self._file.fileno()).st_size
        if self.size != offset:
            self._file.close()
            raise ConflictError(
                f"{self.size} bytes of {entry.path} are there, not {offset}",
                code="CL-E507",
                hint="ask again how far it is",
            )

    def write(self, piece: bytes) -> None:
        """Add to the file; InputError CL-E114 beyond the size that the manifest claims."""
        if self.size + len(piece) > self._entry.size:
            raise InputError(f"{self._entry.path} has {self._entry.size} bytes by its manifest", code="CL-E114")
        self._file.write(piece)
        self.size += len(piece)

    def close(self) -> dict[str, Any]:
        """How far it is; one that is whole is checked: RefusedError CL-E404, and it must be sent anew."""
        with self._file:
            self._file.flush()
            if self.size < self._entry.size:
                return self._told()
            os.fsync(self._file.fileno())
            with self._path.open("rb") as whole:
                found = hashlib.file_digest(whole, "sha256").hexdigest()
            if found != self._entry.sha256:
                self._path.unlink()
                raise RefusedError(
                    f"{self._entry.path} is not what was packed: its SHA-256 is {found[:12]}…, "
                    f"expected {self._entry.sha256[:12]}…",
                    code="CL-E404",
                    where=self._entry.path,
                    hint="verify it where it comes from: cloche verify",
                )
            self._path.replace(self._place)
        return self._told()

    def abandon(self) -> None:
        """Let go of it as it is."""
        self._file.close()

    def _told(self) -> dict[str, Any]:
        return body("UploadedFile", sha256=self._entry.sha256, size_bytes=self._entry.size, offset=self.size)


def _place(part: Path, target: Path, entry: FileEntry) -> None:
    if not part.exists():
        raise ConflictError(f"{entry.path} is not there yet", code="CL-E507", hint="send it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(part, target)
    except OSError:  # a file system without links
        shutil.copyfile(part, target)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _touched(folder: Path) -> float:
    """When something of it came last."""
    times = [path.stat().st_mtime for path in (folder, *folder.iterdir())]
    return max(times)
