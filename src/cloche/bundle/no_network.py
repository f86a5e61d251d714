"""A program that leaves network and disk behind for another module: python -m cloche.bundle.no_network MODULE.

Linux only; the standard library only, since a user namespace can't be entered from a process with threads.
Exits 97 where the kernel does not allow it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

CANNOT = 97

_NEW_USER = 0x10000000
_NEW_NETWORK = 0x40000000
_NEW_PROCESSES = 0x20000000
_NEW_MOUNTS = 0x00020000
_NO_NEW_PRIVILEGES = 38

#: mount_setattr(2), of Linux 5.12: every mount below / becomes read-only, for this process's view only.
_MOUNT_SETATTR = 442
_HERE = -100
_RECURSIVE = 0x8000
_READ_ONLY = 0x1
_PRIVATE = 1 << 18


def leave_network() -> bool:
    """Moves this process into a network of its own that has no way out; False where that is not allowed."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    before = Path("/proc/self/ns/net").readlink()
    # A user namespace takes root's powers away as well; without one, only root may do it.
    for flags in (_NEW_USER, 0):
        if libc.unshare(flags | _NEW_NETWORK | _NEW_PROCESSES | _NEW_MOUNTS) == 0:
            # Where the kernel is too old for it, the limits below still keep files from growing.
            attributes = (ctypes.c_uint64 * 4)(_READ_ONLY, 0, _PRIVATE, 0)
            size = ctypes.sizeof(attributes)
            libc.syscall(_MOUNT_SETATTR, _HERE, b"/", _RECURSIVE, ctypes.byref(attributes), size)
            return Path("/proc/self/ns/net").readlink() != before
    return False


def limit_harm() -> None:
    """No file can grow by this process's hand, and it leaves no core behind."""
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))


def main() -> None:
    if not leave_network():
        sys.exit(CANNOT)
    limit_harm()
    # The child is the first process of a space of its own: what it starts dies with it.
    child = os.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-I", "-B", "-m", sys.argv[1]])
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        # To the one who waits, it should look as if this process had died so.
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
