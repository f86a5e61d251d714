"""What can be set, decided: one frozen tree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from cloche.batch.schedule import Schedule
from cloche.core.units import Rate

OnInvalid = Literal["reject", "flag", "allow"]
Device = Literal["cpu", "cuda"]
OnMissing = Literal["reject", "null"]
StrategyName = Literal["canary", "blue-green", "shadow", "ab"]


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """A Tls is a certificate with its chain and the key to it, two PEM files."""

    cert: Path
    key: Path


class Serve(msgspec.Struct, frozen=True, kw_only=True):
    """A Serve is how this machine serves; `grpc` and `admin` are ports, None for none.

    `max_body` is bytes, and so is `isolate_above`.

    `workers` is the most that there may be, `least_workers` the least: the same, unless the load decides.
    """

    host: str
    port: int
    grpc: int | None
    admin: int | None
    workers: int
    least_workers: int
    allow_code: bool
    isolate_above: int
    load_timeout_s: float
    lame_duck_s: float
    max_body: int
    tls: Tls | None


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """A Cache is how many bytes of answers a worker remembers, and for how long."""

    size: int
    ttl_s: float


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """An Access is who may call a deployment, and how often by name of key; `default` is every other."""

    keys: bool
    limits: Mapping[str, Rate]


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """A Features is the table that inputs are read from by a key that the caller sends; `source` is its URL."""

    source: str
    table: str
    key: str
    columns: tuple[str, ...]
    ttl_s: float
    missing: OnMissing


class Objectives(msgspec.Struct, frozen=True, kw_only=True):
    """An Objectives is what was promised to callers; None where nothing was. `error_rate` is a share, 0 to 1."""

    p99_s: float | None
    error_rate: float | None


class RolloutPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A RolloutPlan is how another version gets a deployment's traffic; `margin` is a share, 0 to 1."""

    strategy: StrategyName
    #: () where the strategy's own are meant.
    steps: tuple[str, ...]
    ramp_s: float
    bake_s: float
    margin: float
    sticky: str | None
    keep_previous_warm_s: float


class Online(msgspec.Struct, frozen=True, kw_only=True):
    """An Online is one deployment that answers at once; `model` is a reference or an absolute path."""

    name: str
    model: str
    deadline_s: float
    on_invalid: OnInvalid
    device: Device
    cache: Cache | None
    access: Access
    features: Features | None
    objectives: Objectives
    rollout: RolloutPlan


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A Batch is one batch run that is described, and when it is due; `fail_above` is a share, 0 to 1.

    `source` and `sink` have absolute paths; `env:NAME` and `file:PATH` in them are followed by who runs it.
    """

    name: str
    model: str
    source: str
    sink: str
    key: str | None
    #: None carries all columns but inputs.
    keep: tuple[str, ...] | None
    schedule: Schedule | None
    chunk: int
    deadline_s: float | None
    rejects: Path | None
    fail_above: float
    at_least_once: bool

    def __repr__(self) -> str:
        # Neither source nor sink: their URLs may hold passwords.
        return f"Batch({self.name}, {self.model}, {self.schedule or 'no schedule'})"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A Settings is the whole tree. Its paths are absolute, and none of them is made by reading it."""

    #: The file that was read, if any.
    file: Path | None
    #: The folder of the file; without one, the folder that was started in.
    root: Path
    project: str | None
    data: Path
    database: str
    #: The folder of the bundles, where one was named.
    storage: Path | None
    runtime_root: Path
    serve: Serve
    online: tuple[Online, ...]
    batch: tuple[Batch, ...] = ()

    def __repr__(self) -> str:
        # Not the database: its URL may hold a password.
        return f"Settings({self.file or 'no file'}, data {self.data}, {self.serve}, {self.online})"
