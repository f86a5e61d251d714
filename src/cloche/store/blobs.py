"""Bundles on disk: one folder a digest, complete or not there."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloche.core.errors import BusyError, ConfigError, NotFoundError

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_STAGING = ".staging-"
_UNWRITABLE = {errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS}


class BundleFolder:
    """A BundleFolder keeps bundles under `root/<digest>`, where digest is 64 hex digits."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __contains__(self, digest: str) -> bool:
        return self._place(digest).is_dir()

    def path(self, digest: str) -> Path:
        """The folder of a bundle; NotFoundError when it is not kept here."""
        place = self._place(digest)
        if not place.is_dir():
            raise NotFoundError(
                f"the files of bundle {digest[:12]} are not in {self.root}",
                code="CL-E303",
                hint="import its archive: cloche import FILE",
            )
        return place

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """A new private folder on the same file system to build a bundle in; removed at the end.

        Raises BusyError CL-E606 when there is no room, or no right to write.
        """
        folder = None
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self.root))
            yield folder
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            raise BusyError(
                f"{error.filename or self.root} can't be written: {error.strerror}",
                code="CL-E606",
                hint="check that it is writable and not full, then try again",
            ) from error
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def add(self, bundle: Path, digest: str) -> Path:
        """Keep a copy of a bundle's folder and return where; one that is kept already stays as it is.

        The caller has verified that the folder is that digest's. Links are not followed.
        """
        place = self._place(digest)
        if place.is_dir():
            return place
        with self.stage() as staging:
            copy = staging / digest
            shutil.copytree(bundle, copy, symlinks=True)
            _settle(copy)
            try:
                copy.rename(place)
            except OSError:
                # Another process was first; a folder of this digest holds the same bytes.
                if not place.is_dir():
                    raise
            _sync(self.root)
        return place

    def _place(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ConfigError(f"{digest!r} is not a digest", code="CL-E203", hint="64 hex digits")
        return self.root / digest


def _settle(folder: Path) -> None:
    """Make the files read-only and put all of it on the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = Path(parent, name)
            if not file.is_symlink():
                file.chmod(0o444)
                _sync(file)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
