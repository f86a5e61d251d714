"""What the workers of a machine are to serve, as its controller last read it from the store: one small file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

import msgspec

from cloche.app.features import FeaturesConfig
from cloche.app.placement import HostConfig
from cloche.core.units import Rate
from cloche.engine.validate import OnInvalid
from cloche.rollout.analysis import Policy

#: In the runtime folder.
FILE = "desired.json"


class CacheConfig(msgspec.Struct, frozen=True):
    """A CacheConfig is the size and the time to live of a deployment's cache."""

    bytes: int
    ttl_s: float | None = None


class DeploymentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A DeploymentConfig is one deployment, and a version that answers for it."""

    deployment: str
    model: str
    version: int
    digest: str
    bundle: str
    deadline_s: float
    on_invalid: OnInvalid
    keys_required: bool
    device: str = "cpu"
    cache: CacheConfig | None = None
    limits: dict[str, Rate] = {}
    #: The sockets of the runtime hosts that run it; () where it lives in the workers.
    hosts: tuple[str, ...] = ()
    #: What points at the version.
    aliases: tuple[str, ...] = ()
    features: FeaturesConfig | None = None

    @property
    def ref(self) -> str:
        return f"{self.model}:{self.version}"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A Trial is a candidate beside the stable version, and how it is judged."""

    candidate: DeploymentConfig
    #: The number of its rollout.
    rollout: int
    #: Its share of the traffic, in hundredths of a percent.
    weight: int
    policy: Policy
    #: Answers that take longer are bad.
    slow_s: float
    #: The header whose value says who is asked for, so that one caller stays with one version.
    sticky: str | None = None
    #: "shadow" or "ab", where it is to end with a report.
    kind: Literal["", "shadow", "ab"] = ""


class Wished(msgspec.Struct, frozen=True, kw_only=True):
    """A Wished is the versions of one deployment; `previous` is kept warm for a rollback."""

    stable: DeploymentConfig
    trial: Trial | None = None
    previous: DeploymentConfig | None = None

    @property
    def versions(self) -> tuple[DeploymentConfig, ...]:
        trial = () if self.trial is None else (self.trial.candidate,)
        return (self.stable, *trial, *(() if self.previous is None else (self.previous,)))


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """A Desired is every deployment of a machine, at least one, as of a revision of the store."""

    revision: int
    deployments: tuple[Wished, ...]
    #: The keys whose bundles may be loaded from now on.
    trusted: tuple[str, ...] = ()

    @property
    def needs_keys(self) -> bool:
        """Whether any deployment must know who calls."""
        return any(one.stable.keys_required or one.stable.limits for one in self.deployments)

    @property
    def deadline_s(self) -> float:
        return max(one.stable.deadline_s for one in self.deployments)

    def hosts(self) -> tuple[HostConfig, ...]:
        """What is to run in hosts, one for each socket."""
        versions = [version for one in self.deployments for version in one.versions]
        # again, and last: where two deployments share a host, a candidate is the one to blame for its end
        versions += [one.trial.candidate for one in self.deployments if one.trial is not None]
        found = {
            socket: HostConfig(
                socket=socket, digest=one.digest, bundle=one.bundle, trusted=self.trusted,
                deployment=one.deployment, version=one.version, device=one.device,
            )
            for one in versions
            for socket in one.hosts
        }  # fmt: skip
        return tuple(found.values())

    def hosted(self) -> frozenset[str]:
        """The deployments whose stable versions run in hosts."""
        return frozenset(one.stable.deployment for one in self.deployments if one.stable.hosts)

    def proven(self) -> Desired:
        """The same with the stable versions alone."""
        stable = tuple(Wished(stable=one.stable) for one in self.deployments)
        return Desired(revision=self.revision, deployments=stable, trusted=self.trusted)

    def unweighted(self) -> Desired:
        """The same but for weights and revision: what two of them have in common where only those differ."""
        shapes = []
        for one in self.deployments:
            trial = None if one.trial is None else msgspec.structs.replace(one.trial, weight=0)
            shapes.append(msgspec.structs.replace(one, trial=trial))
        return Desired(revision=0, deployments=tuple(shapes))


def write_desired(desired: Desired, path: Path) -> None:
    replace(path, msgspec.json.encode(desired))


def replace(path: Path, content: bytes) -> None:
    """Replace a file whole, so that a reader never sees half of it."""
    fresh = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    fresh.replace(path)


def read_desired(path: Path) -> Desired:
    return msgspec.json.decode(path.read_bytes(), type=Desired)


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What differs whenever the file was replaced; None where there is none."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size
    return None
