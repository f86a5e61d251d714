"""What differs between Linux and macOS: peers of unix sockets, whether a process lives; and the runtime folder."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import stat
import struct
from pathlib import Path

from cloche.core.errors import RefusedError

#: Linux tells of processes here.
_PROC = Path("/proc/self/stat")


def peer_uid(connection: socket.socket) -> int:
    """The user id at the other end of a unix socket."""
    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return int(uid)
    # macOS: LOCAL_PEERCRED (1) of SOL_LOCAL (0) gives struct xucred {version, uid, ...}
    _, uid = struct.unpack_from("Ii", connection.getsockopt(0, 1, 76))
    return int(uid)


def process_start(pid: int) -> int:
    """A number that tells a process from a later one with the same id; 0 where there is none to be had."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rsplit(")", 1)[1].split()[19])


def is_alive(pid: int, start: int) -> bool:
    """Whether the process that had `start` at `pid` still runs (a zombie does not)."""
    if pid <= 0:
        return False
    if _PROC.exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return False
        return fields[0] not in "ZX" and (start == 0 or int(fields[19]) == start)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def runtime_directory(root: Path, data: Path) -> Path:
    """A 0700 folder of this user's below `root`, for the sockets and the board of one data folder.

    Raises RefusedError when a folder of the way exists and belongs to somebody else or is open to others.
    """
    name = hashlib.blake2b(str(data.resolve()).encode(), digest_size=6).hexdigest()
    for folder in (root, root / name):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise RefusedError(
                f"{folder} is not a private folder of this user's",
                hint="remove it, or set XDG_RUNTIME_DIR to a folder of your own",
            )
    return root / name


def whoami() -> str:
    """The person at this process, as the history names them: `ada@laptop`."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"
