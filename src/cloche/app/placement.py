"""Where a version runs: in every worker, or in hosts that the workers share; and what that takes of memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from cloche.bundle.manifest import Manifest

#: Runtime hosts of a bundle with code: one answers, one is a warm spare.
CODE_HOSTS = 2
#: Of one that is large: a spare would take as much again.
LARGE_HOSTS = 1
#: So many hosts a machine has room for, while it serves with as many workers as there can be.
HOST_SEATS = 14
#: Beyond what is served at the start: for the versions that come.
_SPARE_SEATS = 4
#: The folders of a bundle whose files a load reads.
_LOADED = ("model/", "code/")


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A HostConfig is what one runtime host is told: the bundle that it runs, and the socket it listens on."""

    socket: str
    digest: str
    bundle: str
    #: The keys that may have sealed the bundle.
    trusted: tuple[str, ...]
    #: Who is to blame, should it end while it loads or runs.
    deployment: str = ""
    version: int = 0
    device: str = "cpu"


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """A Need is the memory that models take while they load: so much in each worker, so much in the hosts."""

    workers: int
    worker_bytes: int = 0
    hosts: int = 0
    hosts_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.workers * self.worker_bytes + self.hosts_bytes


def load_bytes(manifest: Manifest) -> int:
    """The most memory that a load takes, as it was measured; the bytes of what is loaded where it was not."""
    if manifest.measured is not None:
        return manifest.measured.load_bytes
    return sum(entry.size for entry in manifest.files if entry.path.startswith(_LOADED))


def host_count(manifest: Manifest, isolate_above: int) -> int:
    """How many hosts run the bundle; 0 where it lives in the workers."""
    if manifest.runtime.kind == "python":
        return CODE_HOSTS
    return LARGE_HOSTS if load_bytes(manifest) > isolate_above else 0


def host_sockets(runtime: Path, digest: str, device: str, count: int) -> tuple[str, ...]:
    """Where the hosts of a bundle listen: the same whoever asks, so that its version may change its role."""
    name = digest[:8] if device == "cpu" else f"{digest[:8]}{device}"
    return tuple(str(runtime / f"{name}-{number}.sock") for number in range(count))


def host_seats(hosts: int) -> int:
    """How many hosts there is to be room for, where so many run from the start."""
    return max(HOST_SEATS, hosts + _SPARE_SEATS)


def need(models: Sequence[tuple[str, Manifest]], workers: int, isolate_above: int) -> Need:
    """What models take, each given with its digest: who has the same shares hosts, and nothing else.

    A worker loads one model after the other.
    """
    inside = [manifest for _, manifest in models if not host_count(manifest, isolate_above)]
    hosted = [(host_count(manifest, isolate_above), load_bytes(manifest)) for manifest in dict(models).values()]
    kept = [one.measured.memory_bytes if one.measured is not None else load_bytes(one) for one in inside]
    more = [load_bytes(one) - stays for one, stays in zip(inside, kept, strict=True)]
    return Need(
        workers=workers,
        worker_bytes=sum(kept) + max(more, default=0),
        hosts=sum(count for count, _ in hosted),
        hosts_bytes=sum(count * size for count, size in hosted),
    )
