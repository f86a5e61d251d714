"""A serving worker, wired: `python -m cloche.app.worker FD` is what the supervisor starts."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import uvloop

from cloche.app.features import FeaturesConfig, outward, put_before
from cloche.bundle import golden
from cloche.bundle.bundle import Bundle
from cloche.core.board import Board, Slot
from cloche.core.errors import ClocheError
from cloche.core.keys import KeyRecord
from cloche.core.member import Member
from cloche.core.signature import Columns, take_rows
from cloche.core.units import Rate
from cloche.engine.batcher import Batcher
from cloche.engine.cache import Cache
from cloche.engine.cost import CostLine, warm_up
from cloche.engine.engine import Engine
from cloche.engine.validate import OnInvalid
from cloche.monitoring import log
from cloche.monitoring.counters import DeploymentCounters
from cloche.runtimes.base import Runtime, RuntimePlace, load_runtime
from cloche.serving.guard import Guard, Policy
from cloche.serving.http import App
from cloche.serving.keyring import FollowedKeys
from cloche.serving.limits import RateLimiter
from cloche.serving.pages import Pages
from cloche.serving.predictions import Deployment, Predictions
from cloche.serving.protocols.base import Live, dialects_for
from cloche.serving.state import WorkerState
from cloche.serving.table import Table
from cloche.serving.tls import Certificates
from cloche.serving.worker import serve


class Counting(Protocol):
    """Counting is where a worker counts: a slot of a board."""

    board: Board
    slot: Slot


class CacheConfig(msgspec.Struct, frozen=True):
    """A CacheConfig is the size and the time to live of a deployment's cache."""

    bytes: int
    ttl_s: float | None = None


class DeploymentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A DeploymentConfig is one deployment, and the version that answers for it."""

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
    hosts: tuple[str, ...] = ()
    #: What pointed at the version when the server started.
    aliases: tuple[str, ...] = ()
    features: FeaturesConfig | None = None

    @property
    def ref(self) -> str:
        return f"{self.model}:{self.version}"


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A WorkerConfig is what `cloche up` hands to each of its workers; at least one deployment."""

    deployments: tuple[DeploymentConfig, ...]
    loopback: bool
    max_body: int
    database: str
    #: For calls that no caller waits for: golden examples and warm-up.
    load_timeout_s: float = 300.0
    keys: tuple[KeyRecord, ...] = ()
    trusted: tuple[str, ...] = ()
    #: The files of the certificate and its key, where TLS is spoken.
    tls: tuple[str, str] | None = None

    @property
    def needs_keys(self) -> bool:
        """Whether any deployment must know who calls."""
        return any(one.keys_required or one.limits for one in self.deployments)

    @property
    def deadline_s(self) -> float:
        return max(one.deadline_s for one in self.deployments)


class Loaded(msgspec.Struct, frozen=True):
    """Loaded is a version that has answered its golden examples and is warm."""

    bundle: Bundle
    runtime: Runtime
    golden: golden.Golden
    cost: CostLine


def load(config: WorkerConfig, one: DeploymentConfig) -> Loaded:
    """Open, verify, load, check the golden examples, warm up. Raises ClocheError."""
    bundle = Bundle.open(Path(one.bundle), config.trusted, digest=one.digest)
    place = RuntimePlace(digest=one.digest, hosts=one.hosts, timeout_s=config.load_timeout_s, device=one.device)
    runtime = load_runtime(bundle.manifest.runtime, bundle.signature, bundle, place)
    golden.check(bundle, runtime)
    examples = bundle.golden()
    cost = warm_up(runtime.run, examples.inputs, bundle.signature, time.perf_counter)
    return Loaded(bundle, runtime, examples, cost)


def build(
    config: WorkerConfig,
    loaded: Sequence[Loaded],
    place: Counting,
    state: WorkerState,
    keys: FollowedKeys,
    loop: asyncio.AbstractEventLoop,
) -> App:
    """The worker's ASGI callable for an event loop, over what was loaded for each deployment."""
    pairs = zip(config.deployments, loaded, strict=True)
    table = Table([_predictions(config, one, what, place, state, keys, loop) for one, what in pairs])
    return App(table, Pages(table, place.board, state), state, max_body=config.max_body)


def _predictions(
    config: WorkerConfig,
    one: DeploymentConfig,
    loaded: Loaded,
    place: Counting,
    state: WorkerState,
    keys: FollowedKeys,
    loop: asyncio.AbstractEventLoop,
) -> Predictions:
    signature, runtime = loaded.bundle.signature, loaded.runtime
    examples = take_rows(loaded.golden.inputs, 0, 4)
    answers: Columns | None = take_rows(loaded.golden.outputs, 0, 4)
    if one.features is not None:
        runtime = put_before(runtime, signature, one.features, one.deadline_s)
        signature, examples = outward(signature, examples, one.features)
        answers = None  # what the model answers to these keys, the table decides
    cache = None if one.cache is None else Cache(size=one.cache.bytes, ttl_s=one.cache.ttl_s)
    engine = Engine(signature, runtime, ref=one.ref, digest=one.digest, on_invalid=one.on_invalid, cache=cache)
    counters = DeploymentCounters(place.slot, one.deployment, str(one.version))
    batcher = Batcher(engine, counters, loaded.cost, batch_s=one.deadline_s / 4, loop=loop)
    live = Live(
        deployment=one.deployment,
        model=one.model,
        version=one.version,
        signature=signature,
        platform=loaded.bundle.manifest.runtime.kind,
        description=loaded.bundle.manifest.description,
        examples=examples,
        answers=answers,
        keys_required=one.keys_required,
        aliases=one.aliases,
        neighbours=tuple(each.deployment for each in config.deployments) if len(config.deployments) > 1 else (),
        is_ready=state.answers,
    )
    policy = Policy(keys_required=one.keys_required, loopback=config.loopback, limits=one.limits)
    guard = Guard(policy, keys, RateLimiter(place.board, place.slot, one.deployment))
    deployment = Deployment(live, engine, batcher, counters, deadline_s=one.deadline_s)
    return Predictions(deployment, dialects_for(live), guard)


async def _run(config: WorkerConfig, loaded: Sequence[Loaded], member: Member) -> None:
    state = WorkerState()
    slot = member.slot

    def refused(code: str) -> None:
        slot.cells[slot.series(name="cloche_refused_total", reason=code)] += 1

    state.refused = refused
    keys = FollowedKeys(config.keys)
    if config.needs_keys:
        keys.follow(config.database)
    app = build(config, loaded, member, state, keys, asyncio.get_running_loop())
    # what was made so far stays for good: the collector need not look at it again and again
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    certificates = Certificates(*map(Path, config.tls)) if config.tls else None
    await serve(member, app, state, deadline_s=config.deadline_s, certificates=certificates)


def main() -> None:
    member = Member.from_fd(int(sys.argv[1]))
    logs = log.start(sys.stderr, colour=member.colour)
    try:
        config = msgspec.convert(member.config, WorkerConfig)
        loaded = [load(config, one) for one in config.deployments]
    except ClocheError as error:
        sys.exit(member.fail(error))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(config, loaded, member))
    for one in loaded:
        one.runtime.close()
    logs.stop()
    sys.stderr.flush()
    os._exit(0)  # a call into a model that never returns must not hold up the exit


if __name__ == "__main__":
    main()
