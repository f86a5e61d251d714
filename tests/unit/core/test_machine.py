"""What a machine or a container has to give, read from trees of files as Linux shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloche.core.machine import free_memory, usable_cores

GIB = 1 << 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "proc/meminfo", "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n")
    return tmp_path


def write(root: Path, name: str, text: object) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def test_without_groups_the_machine_says_what_is_free(root: Path) -> None:
    assert free_memory(root) == 8 * GIB


def test_where_nobody_tells_nothing_is_known(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None


def test_the_tightest_group_decides_and_files_in_memory_count_as_free(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/shop/api")
    for group, limit in (("shop", 3 * GIB), ("shop/api", "max")):
        write(root, f"sys/fs/cgroup/{group}/memory.max", limit)
        write(root, f"sys/fs/cgroup/{group}/memory.current", 2 * GIB)
        write(root, f"sys/fs/cgroup/{group}/memory.stat", f"anon {GIB}\ninactive_file {GIB // 2}")
    assert free_memory(root) == GIB + GIB // 2


def test_groups_of_the_first_version_are_read_too_and_the_container_may_see_its_own_as_the_root(
    root: Path,
) -> None:
    write(root, "proc/self/cgroup", "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/")
    write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", GIB)
    write(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", GIB // 4)
    write(root, "sys/fs/cgroup/memory/memory.stat", "total_inactive_file 0")
    assert free_memory(root) == 3 * GIB // 4


def test_a_group_that_is_over_its_limit_has_nothing_free(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/")
    write(root, "sys/fs/cgroup/memory.max", GIB)
    write(root, "sys/fs/cgroup/memory.current", 2 * GIB)
    assert free_memory(root) == 0


def test_a_quota_of_processor_time_is_worth_so_many_cores(root: Path) -> None:
    cores = usable_cores(root)
    assert 1 <= cores <= (os.cpu_count() or 1)
    write(root, "proc/self/cgroup", "0::/")
    write(root, "sys/fs/cgroup/cpu.max", "max 100000")
    assert usable_cores(root) == cores
    write(root, "sys/fs/cgroup/cpu.max", "50000 100000")
    assert usable_cores(root) == 1
    write(root, "sys/fs/cgroup/cpu.max", "6400000 100000")
    assert usable_cores(root) == cores


def test_a_quota_of_the_first_version_counts_as_well(root: Path) -> None:
    write(root, "proc/self/cgroup", "1:cpu:/")
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", 100_000)
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", -1)
    cores = usable_cores(root)
    assert cores == usable_cores(Path("/nowhere"))
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", 90_000)
    assert usable_cores(root) == 1


def test_this_machine_has_something_to_give() -> None:
    assert usable_cores() >= 1
    free = free_memory()
    assert free is None or free > 0
