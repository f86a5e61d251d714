"""What a person does to deployments: send a version out, take it back, have more workers; by way of the store."""

from __future__ import annotations

import contextlib

import msgspec

from cloche.app.describe import MACHINE_FILE, alias_of, read_machine, strategy_of
from cloche.app.placement import host_count
from cloche.app.project import Project
from cloche.app.refusals import check_code, check_device, check_memory
from cloche.app.up import runtime_folder
from cloche.bundle.compatible import breaks
from cloche.control import lock
from cloche.control.meter import Meter
from cloche.control.rollouts import begin
from cloche.core.board import Board
from cloche.core.errors import BusyError, ConfigError, ConflictError, NotFoundError, RefusedError
from cloche.core.machine import free_memory
from cloche.rollout.machine import Command, Phase, Rollout
from cloche.rollout.strategy import Metric, Strategy
from cloche.settings import Online, default_online
from cloche.settings.kinds import MAX_WORKERS
from cloche.store.deployments import DeploymentRow, Deployments
from cloche.store.scale import Scale


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """A Deployed is a rollout that was begun; `breaks` are what callers of the stable version must change."""

    deployment: str
    rollout: int
    stable: str
    candidate: str
    strategy: Strategy
    breaks: tuple[str, ...]


def deploy(
    project: Project,
    reference: str,
    *,
    deployment: str | None = None,
    strategy: str | None = None,
    steps: str | None = None,
    metric: Metric = "",
    breaking: bool = False,
) -> Deployed:
    """Begin to send a version out; the controller takes it from there.

    `strategy`, `steps` and `metric` (see `describe.strategy_of`) are the deployment's own where none are given.
    With `breaking` a version goes out although callers must change something. Raises NotFoundError, RefusedError
    (CL-E412 memory, CL-E413 taken back before, CL-E414 breaks callers), ConflictError CL-E505, BusyError CL-E605
    where nothing is served.
    """
    version = project.registry.resolve(reference)
    row = find_deployment(project, version.model, deployment)
    online = online_of(project, row)
    candidate = project.open_version(version)
    candidate.verify()
    check_code(candidate, allowed=project.settings.serve.allow_code)
    check_device(candidate, online.device)
    stable = project.registry.resolve(f"{row.model}:{row.stable}")
    broken = breaks(project.open_version(stable).signature, candidate.signature)
    if broken and not breaking:
        raise RefusedError(
            f"{version} would break who calls {stable} now: {'; '.join(broken)}",
            code="CL-E414",
            hint="if callers know of it, add --breaking; or serve it beside, under a name of its own",
        )
    check_served(project)
    running = read_machine(runtime_folder(project.settings) / MACHINE_FILE)
    check_memory([candidate], running.workers, free_memory(), running.isolate_above)
    chosen = strategy_of(online, strategy, steps, metric)
    store = project.store
    number = begin(Deployments(store), row.name, version.version, chosen, store.now(), store.who, "")
    return Deployed(
        deployment=row.name,
        rollout=number,
        stable=str(stable),
        candidate=str(version),
        strategy=chosen,
        breaks=broken,
    )


def order(project: Project, name: str | None, command: Command) -> DeploymentRow:
    """Tell the controller what to do with the rollout of a deployment (the only one, where none is named).

    Raises ConflictError CL-E508 for a promotion of what is not loaded yet: nothing would come of it.
    """
    row = find_deployment(project, None, name)
    check_served(project)
    if command is Command.PROMOTE and row.rollout is not None:
        under_way = Deployments(project.store).rollout(row.rollout)
        if msgspec.convert(under_way.state, Rollout).phase is Phase.LOADING:
            raise ConflictError(
                f"{row.model}:{under_way.candidate} is not warm in every worker yet",
                code="CL-E508",
                hint=f"wait for its first step: cloche status {row.name} -w",
            )
    Deployments(project.store).order(row.name, command.value, project.store.who)
    return row


def roll_back(project: Project, name: str | None, version: int | None, why: str) -> DeploymentRow:
    """Back to the version before, or to `version`, at once; the one that had the traffic is blocked.

    Where a rollout is under way its candidate is taken off. Works on the store alone, whatever runs. Raises
    NotFoundError, ConflictError CL-E505 where there is no version to go back to.
    """
    row = find_deployment(project, None, name)
    deployments = Deployments(project.store)
    if version is None:
        version = row.stable if row.rollout is not None else row.previous or deployments.before(row)
    if version is None:
        raise ConflictError(
            f"{row.name} has had no version before {row.model}:{row.stable}",
            code="CL-E505",
            hint=f"name one: cloche rollback {row.name} 2; there are those of  cloche models ls {row.model}",
        )
    target = project.registry.resolve(f"{row.model}:{version}")
    project.open_version(target).verify()
    return deployments.roll_back(row.name, target.version, project.store.who, why, alias=alias_of(row.asked))


def scale(project: Project, workers: int | None) -> int | None:
    """Want so many workers here, whatever the load (None: as cloche.toml says); what was wanted before.

    Works on the store alone, whatever runs. Raises ConfigError, and RefusedError CL-E412 where memory is short.
    """
    if workers is not None:
        if not 1 <= workers <= MAX_WORKERS:
            raise ConfigError(f"there can't be {workers} workers", hint=f"1 to {MAX_WORKERS}, or auto")
        _check_room(project, workers)
    return Scale(project.store, project.machine).set(workers, project.store.who)


def _check_room(project: Project, workers: int) -> None:
    path = runtime_folder(project.settings) / "board"
    more = workers - (sum(Meter(Board(path)).counts()) if path.exists() else 0)
    inside, isolate_above = [], project.settings.serve.isolate_above
    for row in Deployments(project.store).list():
        with contextlib.suppress(NotFoundError):  # another machine's
            bundle = project.open(f"{row.model}:{row.stable}")
            inside += [] if host_count(bundle.manifest, isolate_above) else [bundle]
    if more > 0:
        check_memory(inside, more, free_memory(), isolate_above)


def find_deployment(project: Project, model: str | None, name: str | None) -> DeploymentRow:
    """The deployment of this name, else the only one (of a model, where one is given)."""
    deployments = Deployments(project.store)
    if name is not None:
        row = deployments.get(name)
        if model is not None and row.model != model:
            raise ConflictError(
                f"{name} answers with {row.model}, not with {model}",
                code="CL-E505",
                hint="name another deployment",
            )
        return row
    rows = [row for row in deployments.list() if model is None or row.model == model]
    if not rows:
        what = f"no deployment answers with {model}" if model is not None else "nothing was ever served here"
        raise NotFoundError(what, code="CL-E302", hint=f"serve it first: cloche up {model or 'fraud'}")
    if len(rows) > 1:
        names = ", ".join(row.name for row in rows)
        hint = "add --deployment NAME" if model is not None else "name one"
        raise ConfigError(f"there are several deployments: {names}", code="CL-E203", hint=hint)
    return rows[0]


def online_of(project: Project, row: DeploymentRow) -> Online:
    """How a deployment is run, by its table in cloche.toml, else by the defaults."""
    described = next((one for one in project.settings.online if one.name == row.name), None)
    return described or default_online(row.name, f"{row.model}:{row.stable}")


def is_served(project: Project) -> bool:
    """Whether a `cloche up` serves this data folder."""
    try:
        lock.check_free(runtime_folder(project.settings))
    except ConflictError:
        return True
    except OSError:
        pass
    return False


def check_served(project: Project) -> None:
    """BusyError CL-E605 where no `cloche up` serves this data folder."""
    if not is_served(project):
        raise BusyError("nothing is served here", code="CL-E605", hint="start it first: cloche up")
