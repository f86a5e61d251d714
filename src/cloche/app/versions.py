"""The versions that a process has loaded, and the table of paths that they make; fit for a side thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from cloche.app.desired import DeploymentConfig, Desired, Trial, Wished
from cloche.app.features import outward, put_before
from cloche.bundle import golden
from cloche.bundle.bundle import Bundle
from cloche.core.board import Board, Head, Slot, series_hash
from cloche.core.errors import BusyError
from cloche.core.signature import Columns, take_rows
from cloche.engine.batcher import Batcher
from cloche.engine.cache import Cache
from cloche.engine.cost import CostLine, warm_up
from cloche.engine.engine import Engine
from cloche.monitoring.counters import DeploymentCounters
from cloche.monitoring.latency import durations, quantile
from cloche.rollout.shadow import Tally
from cloche.runtimes.base import Runtime, RuntimePlace, load_runtime
from cloche.runtimes.hosted import HostedRuntime
from cloche.serving.guard import Guard, Policy
from cloche.serving.keyring import FollowedKeys
from cloche.serving.limits import RateLimiter
from cloche.serving.metered import MeteredSplit
from cloche.serving.mirror import Mirror
from cloche.serving.predictions import Deployment, Predictions
from cloche.serving.protocols.base import Live, dialects_for
from cloche.serving.split import Split
from cloche.serving.state import WorkerState
from cloche.serving.table import Served, Table

#: An answer is late when it took longer than so many times stable's p99, and so many seconds more than that: a
#: candidate does not run in the event loop, and may wait for the interpreter's lock twice (5 ms each).
_TIMES_P99, _LEAST_SLOWER_S = 1.5, 0.01
#: By fewer answers p99 is not known.
_LEAST_ANSWERS = 1_000
#: Between two looks for a host.
_LOOK_S = 0.05


class Counting(Protocol):
    """Counting is where a worker counts: a slot of a board."""

    board: Board
    slot: Slot


class Loaded(msgspec.Struct, frozen=True):
    """Loaded is a version that has answered its golden examples and is warm."""

    bundle: Bundle
    runtime: Runtime
    golden: golden.Golden
    cost: CostLine


def load(one: DeploymentConfig, trusted: tuple[str, ...], timeout_s: float) -> Loaded:
    """Open, verify, load (or ask the hosts that have), check the golden examples, warm up. Raises ClocheError.

    `timeout_s` is for calls that no caller waits for: golden examples and warm-up.
    """
    bundle = Bundle.open(Path(one.bundle), trusted, digest=one.digest)
    runtime: Runtime
    if one.hosts:
        runtime = HostedRuntime(bundle.signature, one.digest, timeout_s=timeout_s, hosts=one.hosts)
    else:
        place = RuntimePlace(digest=one.digest, timeout_s=timeout_s, device=one.device)
        runtime = load_runtime(bundle.manifest.runtime, bundle.signature, bundle, place)
    try:
        golden.check(bundle, runtime)
        examples = bundle.golden()
        cost = warm_up(runtime.run, examples.inputs, bundle.signature, time.perf_counter)
    except BaseException:
        runtime.close()
        raise
    return Loaded(bundle, runtime, examples, cost)


def await_host(one: DeploymentConfig, timeout_s: float, is_wanted: Callable[[], bool]) -> None:
    """Wait until a host of the version listens, where it runs in hosts.

    Raises BusyError CL-E603 where there is none in time, or the version is not wanted any more: what is desired
    instead must not wait for one that loads for minutes.
    """
    ends = time.monotonic() + timeout_s
    while one.hosts and not any(Path(host).exists() for host in one.hosts):
        if not is_wanted():
            raise BusyError(f"{one.ref} is not wanted any more, and its host is not up", code="CL-E603")
        if time.monotonic() > ends:
            raise BusyError(f"no host of {one.ref} was up within {timeout_s:g} s", code="CL-E603")
        time.sleep(_LOOK_S)


class Standing:
    """A Standing is one version that can answer; `live` may change, who is in its queue stays."""

    def __init__(self, one: DeploymentConfig, loaded: Loaded, slot: Slot, loop: asyncio.AbstractEventLoop) -> None:
        signature, runtime = loaded.bundle.signature, loaded.runtime
        examples = take_rows(loaded.golden.inputs, 0, 4)
        answers: Columns | None = take_rows(loaded.golden.outputs, 0, 4)
        if one.features is not None:
            runtime = put_before(runtime, signature, one.features, one.deadline_s)
            signature, examples = outward(signature, examples, one.features)
            answers = None  # what the model answers to these keys, the table decides
        cache = None if one.cache is None else Cache(size=one.cache.bytes, ttl_s=one.cache.ttl_s)
        self.loaded = loaded
        self.runtime = runtime
        self.engine = Engine(
            signature, runtime, ref=one.ref, digest=one.digest, on_invalid=one.on_invalid, cache=cache
        )
        self.counters = DeploymentCounters(slot, one.deployment, str(one.version))
        self.batcher = Batcher(self.engine, self.counters, loaded.cost, batch_s=one.deadline_s / 4, loop=loop)
        self.examples = examples
        self.answers = answers

    def close(self) -> None:
        """Give back what it holds; nobody may ask it any more."""
        self.batcher.close()
        self.runtime.close()


class Versions:
    """A Versions is all that a process serves for one event loop, and how that follows what is desired.

    `load` gives a version loaded. A candidate never runs in the event loop.
    """

    def __init__(
        self,
        load: Callable[[DeploymentConfig], Loaded],
        place: Counting,
        state: WorkerState,
        keys: FollowedKeys,
        loop: asyncio.AbstractEventLoop,
        *,
        loopback: bool,
    ) -> None:
        self._load = load
        self._place = place
        self._state = state
        self._keys = keys
        self._loop = loop
        self._loopback = loopback
        self._standing: dict[bytes, Standing] = {}
        self._guards: dict[str, Guard] = {}
        self._splits: dict[int, Split | Mirror] = {}

    def table(self, desired: Desired) -> Table:
        """The table of what is desired, having loaded what is new. Raises ClocheError where that can't be."""
        if desired.needs_keys:
            self._keys.follow()
        for one in desired.deployments:
            for version in one.versions:
                key = _key(version)
                if key not in self._standing:
                    self._standing[key] = self._stand(version)
        return Table([self._served(one, desired) for one in desired.deployments])

    def weigh(self, desired: Desired) -> None:
        """Take over the weights of what is desired, which `table` was made of but for these."""
        for one in desired.deployments:
            if one.trial is not None:
                self._splits[one.trial.rollout].weight = one.trial.weight

    def leave(self, desired: Desired) -> list[Standing]:
        """Forget what is not desired any more, and give it, to be closed once nobody is in its queues."""
        wanted = {_key(version) for one in desired.deployments for version in one.versions}
        rollouts = {one.trial.rollout for one in desired.deployments if one.trial is not None}
        self._splits = {number: split for number, split in self._splits.items() if number in rollouts}
        return [self._standing.pop(key) for key in list(self._standing) if key not in wanted]

    def tallies(self) -> dict[int, Tally]:
        """What shadows have found out, by the number of their rollout."""
        return {number: one.tally for number, one in self._splits.items() if isinstance(one, Mirror)}

    def close(self) -> None:
        for one in self._standing.values():
            one.close()
        self._standing.clear()

    def _stand(self, one: DeploymentConfig) -> Standing:
        slot = self._place.slot
        # should it end this process, its supervisor sees what did
        slot.set(Head.LOADING, series_hash({"deployment": one.deployment, "version": str(one.version)}))
        try:
            return Standing(one, self._load(one), slot, self._loop)
        finally:
            slot.set(Head.LOADING, 0)

    def _served(self, one: Wished, desired: Desired) -> Served:
        names = tuple(each.stable.deployment for each in desired.deployments)
        neighbours = names if len(names) > 1 else ()
        # in an A/B trial both are run the same way, or it would compare that
        alike = one.trial is not None and one.trial.kind == "ab"
        stable = self._predictions(one.stable, neighbours, proven=not alike)
        others = () if one.previous is None else (self._predictions(one.previous, neighbours, proven=True),)
        if one.trial is None:
            return Served(stable, others)
        candidate = self._predictions(one.trial.candidate, neighbours, proven=False)
        return Served(stable, others, candidate, self._split(one.stable, one.trial))

    def _predictions(self, one: DeploymentConfig, neighbours: tuple[str, ...], *, proven: bool) -> Predictions:
        standing = self._standing[_key(one)]
        standing.batcher.allow_inline(proven)
        manifest = standing.loaded.bundle.manifest
        live = Live(
            deployment=one.deployment,
            model=one.model,
            version=one.version,
            signature=standing.engine.signature,
            platform=manifest.runtime.kind,
            description=manifest.description,
            examples=standing.examples,
            answers=standing.answers,
            keys_required=one.keys_required,
            aliases=one.aliases,
            neighbours=neighbours,
            is_ready=self._state.answers,
        )
        deployment = Deployment(
            live, standing.engine, standing.batcher, standing.counters, deadline_s=one.deadline_s
        )
        return Predictions(deployment, dialects_for(live), self._guard(one))

    def _guard(self, one: DeploymentConfig) -> Guard:
        policy = Policy(keys_required=one.keys_required, loopback=self._loopback, limits=one.limits)
        guard = self._guards.get(one.deployment)
        if guard is None or guard.policy != policy:
            limiter = RateLimiter(self._place.board, self._place.slot, one.deployment)
            guard = self._guards[one.deployment] = Guard(policy, self._keys, limiter)
        return guard

    def _split(self, stable: DeploymentConfig, trial: Trial) -> Split | Mirror:
        split = self._splits.get(trial.rollout)
        if split is None:
            split = self._splits[trial.rollout] = self._make_split(stable, trial)
        split.weight = trial.weight
        return split

    def _make_split(self, stable: DeploymentConfig, trial: Trial) -> Split | Mirror:
        sticky = None if trial.sticky is None else trial.sticky.lower().encode()
        if trial.kind == "shadow":
            candidate = self._standing[_key(trial.candidate)].batcher
            return Mirror(candidate, rollout=trial.rollout, deadline_s=stable.deadline_s, sticky=sticky)
        buckets = durations(self._place.board, stable.deployment, stable.version)
        make = MeteredSplit if trial.kind == "ab" else Split
        return make(
            self._place.slot,
            deployment=stable.deployment,
            stable=stable.version,
            candidate=trial.candidate.version,
            rollout=trial.rollout,
            weight=0,
            policy=trial.policy,
            slow_s=trial.slow_s,
            sticky=sticky,
            late_s=late_after(buckets, trial.slow_s) if trial.policy.times else None,
        )


def late_after(buckets: Sequence[int], slow_s: float) -> float | None:
    """Seconds from which on an answer is late by stable's own measure; None where that is not known, or is bad.

    `buckets` are stable's answers so far, as `durations` gives them.
    """
    p99_s = quantile(buckets, 0.99)
    if p99_s is None or sum(buckets) < _LEAST_ANSWERS:
        return None
    late_s = max(_TIMES_P99 * p99_s, p99_s + _LEAST_SLOWER_S)
    return late_s if late_s < slow_s else None


def _key(one: DeploymentConfig) -> bytes:
    """What a loaded version depends on."""
    return msgspec.json.encode(msgspec.structs.replace(one, aliases=()))
