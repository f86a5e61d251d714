"""The code of a Python bundle: its files in a private folder, and the class imported from there."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import ModuleType, TracebackType

from cloche.core.errors import ConfigError

#: Where a bundle keeps its code.
FOLDER = "code"
_PREFIX = "cloche-code-"
_LOCK = ".lock"


class CodeFolder:
    """A CodeFolder is a 0700 folder with a bundle's code, for as long as it is open.

    A process that is killed leaves its folder behind: whoever makes the next one removes it, which the lock in
    it allows as soon as its process is gone.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """`files` are the bundle's: `code/sentiment.py` -> bytes, already verified."""
        _sweep()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        new = self.path / f"{_LOCK}.new"
        self._lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(self.path / _LOCK)  # locked before anybody can find it
        for name, content in files.items():
            target = self.path / inner_path(name)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            target.write_bytes(content)

    def close(self) -> None:
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> CodeFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def inner_path(name: str) -> str:
    """`sentiment.py` for the bundle's `code/sentiment.py`. Raises ConfigError for another place."""
    path = PurePosixPath(name)
    if len(path.parts) < 2 or path.parts[0] != FOLDER or ".." in path.parts or path.name.startswith(_LOCK):
        raise ConfigError(f"{name!r} is no file of a bundle's code")
    return str(path.relative_to(FOLDER))


def _sweep() -> None:
    """Remove the folders of this user's whose process is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another process sweeps too, or is about to lock its own
            if folder.lstat().st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def split_entry(entry: str) -> tuple[str, str]:
    """File and class of `code/sentiment.py:Sentiment`. Raises ConfigError."""
    file, colon, name = entry.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise ConfigError(f"{entry!r} names no class", hint="write file.py:Class")
    return file, name


def import_class(folder: Path, entry: str) -> type:
    """The class of `sentiment.py:Sentiment` in the folder, which goes to the front of the import path.

    Raises ConfigError when the file holds no such class; what its code raises comes through.
    """
    file, name = split_entry(entry)
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))
    module = _import(folder, PurePosixPath(file))
    found = getattr(module, name, None)
    if not isinstance(found, type):
        raise ConfigError(f"{file} holds no class {name!r}", hint="write file.py:Class")
    return found


def _import(folder: Path, file: PurePosixPath) -> ModuleType:
    parts = file.with_suffix("").parts
    if len(parts) > 1 and all(part.isidentifier() for part in parts):
        return importlib.import_module(".".join(parts))
    # by its path, since a file may be called as a module that is loaded already
    name = parts[-1] if parts[-1] not in sys.modules else f"cloche_model_{parts[-1]}"
    spec = importlib.util.spec_from_file_location(name, folder / file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} can't be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
