"""A copy of a file that nothing can change any more, at a path."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO


@contextlib.contextmanager
def sealed(fill: Callable[[BinaryIO], None]) -> Iterator[str]:
    """The path of what `fill` wrote, as long as the context lasts; no other process knows it.

    It is in memory and sealed where the system can (Linux), else in a file that only its user reads.
    """
    if sys.platform != "linux":
        with tempfile.NamedTemporaryFile(prefix="cloche-") as file:
            fill(file)
            file.flush()
            yield file.name
        return
    with os.fdopen(os.memfd_create("cloche", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb") as file:
        fill(file)
        file.flush()
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
        yield f"/proc/self/fd/{file.fileno()}"
