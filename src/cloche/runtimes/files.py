"""The files of a bundle, as a runtime gets them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Files(Protocol):
    """Files are those of one bundle; what they give was verified."""

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        ...

    def source(self, name: str) -> AbstractContextManager[bytes | str]:
        """What a library loads a file from: its bytes, or the path of a copy that nothing can change.

        A path is what lets other threads answer meanwhile, and saves memory: ONNX Runtime reads a file without the
        interpreter's lock, and bytes with it.
        """
        ...


class Held:
    """Held are files in memory, of a bundle that is not written yet."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def read(self, name: str) -> bytes:
        return self._files[name]

    def source(self, name: str) -> AbstractContextManager[bytes]:
        return nullcontext(self._files[name])
