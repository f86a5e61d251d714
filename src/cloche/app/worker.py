"""A serving worker, wired: `python -m cloche.app.worker FD` is what the supervisor starts."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
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


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A WorkerConfig is what `cloche up` hands to each of its workers."""

    deployment: str
    model: str
    version: int
    digest: str
    bundle: str
    deadline_s: float
    #: For calls that no caller waits for: golden examples and warm-up.
    load_timeout_s: float = 300.0
    on_invalid: OnInvalid
    keys_required: bool
    loopback: bool
    max_body: int
    database: str
    device: str = "cpu"
    cache: CacheConfig | None = None
    limits: dict[str, Rate] = {}
    hosts: tuple[str, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    trusted: tuple[str, ...] = ()
    #: What pointed at the version when the server started.
    aliases: tuple[str, ...] = ()
    features: FeaturesConfig | None = None
    #: The files of the certificate and its key, where TLS is spoken.
    tls: tuple[str, str] | None = None

    @property
    def ref(self) -> str:
        return f"{self.model}:{self.version}"


class Loaded(msgspec.Struct, frozen=True):
    """Loaded is a version that has answered its golden examples and is warm."""

    bundle: Bundle
    runtime: Runtime
    golden: golden.Golden
    cost: CostLine


def load(config: WorkerConfig) -> Loaded:
    """Open, verify, load, check the golden examples, warm up. Raises ClocheError."""
    bundle = Bundle.open(Path(config.bundle), config.trusted, digest=config.digest)
    place = RuntimePlace(
        digest=config.digest, hosts=config.hosts, timeout_s=config.load_timeout_s, device=config.device
    )
    runtime = load_runtime(bundle.manifest.runtime, bundle.signature, bundle, place)
    golden.check(bundle, runtime)
    examples = bundle.golden()
    cost = warm_up(runtime.run, examples.inputs, bundle.signature, time.perf_counter)
    return Loaded(bundle, runtime, examples, cost)


def build(config: WorkerConfig, loaded: Loaded, place: Counting, state: WorkerState, keys: FollowedKeys) -> App:
    """The worker's ASGI callable; needs a running event loop."""
    signature, runtime = loaded.bundle.signature, loaded.runtime
    examples = take_rows(loaded.golden.inputs, 0, 4)
    answers: Columns | None = take_rows(loaded.golden.outputs, 0, 4)
    if config.features is not None:
        runtime = put_before(runtime, signature, config.features, config.deadline_s)
        signature, examples = outward(signature, examples, config.features)
        answers = None  # what the model answers to these keys, the table decides
    slot = place.slot
    cache = None if config.cache is None else Cache(size=config.cache.bytes, ttl_s=config.cache.ttl_s)
    engine = Engine(
        signature,
        runtime,
        ref=config.ref,
        digest=config.digest,
        on_invalid=config.on_invalid,
        cache=cache,
    )
    counters = DeploymentCounters(slot, config.deployment, str(config.version))
    batcher = Batcher(engine, counters, loaded.cost, batch_s=config.deadline_s / 4)
    live = Live(
        deployment=config.deployment,
        model=config.model,
        version=config.version,
        signature=signature,
        platform=loaded.bundle.manifest.runtime.kind,
        description=loaded.bundle.manifest.description,
        examples=examples,
        answers=answers,
        keys_required=config.keys_required,
        aliases=config.aliases,
        is_ready=state.answers,
    )
    dialects = dialects_for(live)
    policy = Policy(keys_required=config.keys_required, loopback=config.loopback, limits=config.limits)
    guard = Guard(policy, keys, RateLimiter(place.board, slot))
    deployment = Deployment(live, engine, batcher, counters, deadline_s=config.deadline_s)
    pages = Pages(live, dialects, place.board, state, engine.prepare)
    return App(Predictions(deployment, dialects, guard), pages, state, max_body=config.max_body)


async def _run(config: WorkerConfig, loaded: Loaded, member: Member) -> None:
    state = WorkerState()
    slot = member.slot

    def refused(code: str) -> None:
        slot.cells[slot.series(name="cloche_refused_total", reason=code)] += 1

    state.refused = refused
    keys = FollowedKeys(config.keys)
    if config.keys_required or config.limits:
        keys.follow(config.database)
    app = build(config, loaded, member, state, keys)
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
        loaded = load(config)
    except ClocheError as error:
        sys.exit(member.fail(error))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(config, loaded, member))
    loaded.runtime.close()
    logs.stop()
    sys.stderr.flush()
    os._exit(0)  # a call into a model that never returns must not hold up the exit


if __name__ == "__main__":
    main()
