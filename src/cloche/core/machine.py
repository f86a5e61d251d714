"""What this machine, or the container around this process, has to give: free memory and cores.

A container's limits stand in the control groups of the process (Linux, versions 1 and 2).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
#: Files of a group: the limit, what is used, and which part of that are files that can be let go of.
_MEMORY = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_memory(root: Path = _ROOT) -> int | None:
    """Bytes that can be taken before something is killed for it; None where nobody tells (macOS)."""
    free = [size for size in (_machine_has(root), *_groups_have(root)) if size is not None]
    return max(0, min(free)) if free else None


def usable_cores(root: Path = _ROOT) -> int:
    """The cores that this process may run on, and as many of them as its groups' quota is worth."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for _, folder in _groups(root, "cpu"):
        quota = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(quota) == 2 and quota[0].isdigit() and int(quota[1]) > 0:  # else "max", or -1
            cores = min(cores, max(1, math.ceil(int(quota[0]) / int(quota[1]))))
    return cores


def _machine_has(root: Path) -> int | None:
    words = _words(root / "proc/meminfo")
    return int(words[words.index("MemAvailable:") + 1]) * 1024 if "MemAvailable:" in words else None


def _groups_have(root: Path) -> Iterator[int]:
    for kind, folder in _groups(root, "memory"):
        limit_name, used_name, cached_name = _MEMORY[kind]
        limit, used = _words(folder / limit_name), _words(folder / used_name)
        if limit and used and limit[0].isdigit():
            stat = _words(folder / "memory.stat")
            cached = int(stat[stat.index(cached_name) + 1]) if cached_name in stat else 0
            yield int(limit[0]) - int(used[0]) + cached


def _groups(root: Path, controller: str) -> Iterator[tuple[str, Path]]:
    """The folders of this process's groups and of those around them, of either version ("" is 2)."""
    mounted = root / "sys/fs/cgroup"
    for line in _words(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds and controller not in kinds.split(","):
            continue
        kind = controller if kinds else ""
        inner = Path(path.lstrip("/"))
        for group in (inner, *inner.parents):  # within a container the first may not be there
            yield kind, mounted / kind / group


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
