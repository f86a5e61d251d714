"""The memory of a process: what it holds, the most that it held, and what it can give back."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path

#: Tells Linux to forget the most that a process ever held (proc_pid_clear_refs(5)).
_FORGET_PEAK = "5"


def give_back_memory() -> None:
    """Return what was freed to the system, where the C library can (glibc).

    After a model was loaded that is as much as the model itself, and the next allocation would tidy it up while it
    holds the interpreter's lock; this does not hold it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_bytes(pid: int | None = None) -> int:
    """Bytes of memory that a process (this one by default) holds; on macOS the most that this one ever held."""
    try:
        pages = int(Path(f"/proc/{pid or os.getpid()}/statm").read_text().split()[1])
    except OSError:
        return _most_ever()
    return pages * resource.getpagesize()


def forget_peak() -> bool:
    """Let `peak_bytes` of this process tell of what comes; False where it goes on to tell of its whole life."""
    try:
        Path("/proc/self/clear_refs").write_text(_FORGET_PEAK)
    except OSError:  # macOS, and containers that may not write there
        return False
    return True


def peak_bytes(pid: int | None = None) -> int:
    """The most bytes of memory that a process (this one by default) held, on macOS this one."""
    try:
        status = Path(f"/proc/{pid or os.getpid()}/status").read_text().split()
    except OSError:
        return _most_ever()
    return int(status[status.index("VmHWM:") + 1]) * 1024


def _most_ever() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
