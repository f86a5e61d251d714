"""From the store's rows and the settings of each deployment to what the workers of this machine are to serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from cloche.app.desired import CacheConfig, DeploymentConfig, Desired, Trial, Wished
from cloche.app.features import FeaturesConfig, describe_features
from cloche.app.placement import HOST_SEATS, host_count, host_sockets
from cloche.bundle.bundle import Bundle
from cloche.core.errors import ClocheError, NotFoundError
from cloche.core.reference import LATEST, Reference, parse_reference
from cloche.registry import ModelVersion, Registry
from cloche.rollout.analysis import Policy
from cloche.rollout.machine import Rollout
from cloche.rollout.strategy import Metric, Strategy, make_strategy
from cloche.settings import Batch, Online
from cloche.store.blobs import BundleFolder
from cloche.store.database import Store
from cloche.store.deployments import DeploymentRow, Deployments
from cloche.store.trust import TrustedKeys

#: The share of bad answers above which a candidate is taken off where no objective was set: once it has all of the
#: traffic there is no stable version beside it to compare with.
_NOBODY_WANTS = 0.1


#: In the runtime folder: the Machine as it is served.
MACHINE_FILE = "machine.json"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A Machine is how this machine serves what the store says; `runtime` is its folder for sockets and board."""

    #: Tells it from others that share its database.
    id: str
    database: str
    bundles: str
    online: tuple[Online, ...]
    loopback: bool
    #: The most and the least that there may be.
    workers: int
    least_workers: int
    runtime: str
    #: Bytes from which on a model runs in a host.
    isolate_above: int
    #: How many hosts there is room for.
    host_seats: int = HOST_SEATS
    allow_code: bool = False
    load_timeout_s: float = 300.0
    #: What is run by a schedule, where this machine's controller leads.
    batch: tuple[Batch, ...] = ()


def read_machine(path: Path) -> Machine:
    return msgspec.json.decode(path.read_bytes(), type=Machine)


class Shelf:
    """A Shelf is a store with its bundles, opened: what `Machine` names."""

    def __init__(self, machine: Machine, store: Store) -> None:
        self.machine = machine
        self.store = store
        self.registry = Registry(store, BundleFolder(Path(machine.bundles)))
        self.deployments = Deployments(store)
        #: By digest and name: a look at a bundle, and at a table that inputs are read from, is not free.
        self._features: dict[tuple[str, str], FeaturesConfig | None] = {}
        self._host_counts: dict[str, int] = {}

    def trusted(self) -> frozenset[str]:
        return frozenset(TrustedKeys(self.store).public_keys())

    def version(self, model: str, number: int) -> ModelVersion:
        return self.registry.resolve(Reference(model=model, version=number))

    def bundle(self, version: ModelVersion) -> Bundle:
        found = Bundle.open(self.registry.folder.path(version.digest), self.trusted(), digest=version.digest)
        found.reference = str(version)
        return found

    def desired(self) -> Desired:
        """What is to be served now. Raises NotFoundError where the store has lost a deployment or a bundle."""
        revision = self.store.revision()  # first: what changes meanwhile is looked at again
        rows = {row.name: row for row in self.deployments.list()}
        missing = [one.name for one in self.machine.online if one.name not in rows]
        if missing:
            raise NotFoundError(f"the store has no deployment {missing[0]!r} any more", code="CL-E302")
        wished = tuple(self._wished(one, rows[one.name]) for one in self.machine.online)
        return Desired(revision=revision, deployments=wished, trusted=tuple(sorted(self.trusted())))

    def _wished(self, online: Online, row: DeploymentRow) -> Wished:
        trial = None
        if row.candidate is not None and row.rollout is not None:
            plan = msgspec.convert(self.deployments.rollout(row.rollout).state, Rollout)
            trial = Trial(
                candidate=self.described(online, row.model, row.candidate),
                rollout=row.rollout,
                weight=row.weight,
                # each worker has its share of the chance to be wrong, and so has the controller
                policy=policy_of(online, shares=self.machine.workers + 1),
                slow_s=slow_s(online),
                sticky=online.rollout.sticky,
                kind=plan.strategy.trial,
            )
        return Wished(
            stable=self.described(online, row.model, row.stable),
            trial=trial,
            previous=None if row.previous is None else self.described(online, row.model, row.previous),
        )

    def described(self, online: Online, model: str, number: int) -> DeploymentConfig:
        version = self.version(model, number)
        key = (version.digest, online.name)
        if key not in self._features:
            bundle = self.bundle(version)
            self._host_counts[version.digest] = host_count(bundle.manifest, self.machine.isolate_above)
            self._features[key] = features_of(online, bundle)
        aliases = self.registry.aliases(model)
        keys_required = online.access.keys or not self.machine.loopback
        return describe_deployment(
            online,
            version,
            self.registry.folder.path(version.digest),
            aliases=[name for name, target in aliases.items() if target == number],
            features=self._features[key],
            keys_required=keys_required,
            hosts=host_sockets(
                Path(self.machine.runtime), version.digest, online.device, self._host_counts[version.digest]
            ),
        )


def describe_deployment(
    online: Online,
    version: ModelVersion,
    bundle: Path,
    *,
    aliases: Sequence[str],
    features: FeaturesConfig | None,
    keys_required: bool,
    hosts: Sequence[str] = (),
) -> DeploymentConfig:
    """What a process is told of a deployment and a version of it."""
    return DeploymentConfig(
        deployment=online.name,
        model=version.model,
        version=version.version,
        digest=version.digest,
        bundle=str(bundle),
        deadline_s=online.deadline_s,
        cache=None if online.cache is None else CacheConfig(online.cache.size, online.cache.ttl_s),
        on_invalid=online.on_invalid,
        device=online.device,
        keys_required=keys_required,
        limits=dict(online.access.limits),
        hosts=tuple(hosts),
        aliases=tuple(aliases),
        features=features,
    )


def features_of(online: Online, bundle: Bundle) -> FeaturesConfig | None:
    """What is read for the caller, where something is; looks at the table. Raises as `describe_features`."""
    return None if online.features is None else describe_features(online.features, bundle.signature)


def strategy_of(
    online: Online, name: str | None = None, steps: str | None = None, metric: Metric = ""
) -> Strategy:
    """How a version of a deployment goes out: as it is set, unless a strategy, steps or a metric are named.

    `name` is canary, blue-green, shadow, ab or now; `steps` are as in "5% for 10m, 100%". ConfigError where they
    contradict each other.
    """
    plan = online.rollout
    if name is None:
        is_set = steps is None or plan.strategy != "blue-green"
        name = "ab" if metric else plan.strategy if is_set else "canary"
    texts = plan.steps if name == plan.strategy and name != "blue-green" else ()
    if steps is not None:
        texts = tuple(step.strip() for step in steps.split(","))
    strategy = make_strategy(name, texts, metric)
    if strategy.trial or name == "now":
        return strategy
    ramp_s = plan.ramp_s if name == "canary" else 0.0
    return msgspec.structs.replace(strategy, ramp_s=ramp_s, bake_s=plan.bake_s)


def policy_of(online: Online, *, shares: int) -> Policy:
    """How sure one of so many judges must be."""
    policy = Policy(margin=online.rollout.margin)
    objective = online.objectives.error_rate or _NOBODY_WANTS
    if online.objectives.p99_s is not None:
        objective += 0.01  # that many answers may be slower
    times = online.objectives.p99_s is None  # else that says what is slow
    return msgspec.structs.replace(policy, alpha=policy.alpha / shares, objective=objective, times=times)


def slow_s(online: Online) -> float:
    """Seconds from which on an answer is a bad one."""
    p99_s = online.objectives.p99_s
    return online.deadline_s if p99_s is None else min(p99_s, online.deadline_s)


def alias_of(asked: str) -> str | None:
    """The alias in what was asked for, where there is one that can be moved."""
    try:
        alias = parse_reference(asked).alias
    except ClocheError:  # a file
        return None
    return None if alias == LATEST else alias
