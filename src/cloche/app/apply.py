"""`cloche apply`: what cloche.toml says now is taken over by what runs; a plan says what that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cloche.app.choose import Chosen, choose_all
from cloche.app.deploy import check_served
from cloche.app.describe import MACHINE_FILE, Machine, read_machine, strategy_of
from cloche.app.desired import replace
from cloche.app.project import Project
from cloche.app.refusals import check_code, check_device, check_memory, is_loopback
from cloche.app.up import runtime_folder
from cloche.bundle.compatible import breaks
from cloche.control.rollouts import begin
from cloche.core.errors import RefusedError
from cloche.core.machine import free_memory
from cloche.core.masked import masked
from cloche.settings import Online
from cloche.store.deployments import DeploymentRow, Deployments

#: What is set by these is a matter of processes and sockets.
_AT_START = ("workers", "least_workers", "allow_code", "isolate_above", "load_timeout_s")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A Change is one line of a plan: what of a deployment is going to differ, and how it gets there."""

    deployment: str
    what: str
    before: str
    after: str
    how: str


def plan(project: Project, runtime: Path) -> tuple[list[Change], Machine, list[Chosen]]:
    """What would change, and what the machine would be then.

    Raises as `cloche up` does, and for each version that would be sent out as `Deployments.begin` does, or
    RefusedError CL-E414 where it breaks who calls: nothing is begun unless all can be.
    """
    check_served(project)
    running = read_machine(runtime / MACHINE_FILE)
    chosen = choose_all(project)
    for one in chosen:
        check_code(one.bundle, allowed=running.allow_code)
        check_device(one.bundle, one.online.device)
        one.bundle.verify()
    online = tuple(one.online for one in chosen)
    machine = msgspec.structs.replace(running, online=online, batch=project.settings.batch)
    deployments = Deployments(project.store)
    rows = {row.name: row for row in deployments.list()}
    changes = [*_gone(running, machine), *_restart(project, running), *_batches(running, machine)]
    held = {one.name: one for one in running.online}
    fresh = [one.bundle for one in chosen if one.online.name not in held]
    check_memory(fresh, running.workers, free_memory(), running.isolate_above)
    for one in chosen:
        row = rows.get(one.online.name)
        changes += _of_one(one, held.get(one.online.name), row)
        if row is not None and _sends_out(one, row):
            _check_breaks(project, one, row)
            deployments.check(row.name, one.version.version)
    return changes, machine, chosen


def carry_out(project: Project, runtime: Path, machine: Machine, chosen: Sequence[Chosen]) -> list[int]:
    """Take it over; the numbers of the rollouts that were begun. Raises as `Deployments.begin`."""
    deployments = Deployments(project.store)
    rows = {row.name: row for row in deployments.list()}
    begun = []
    for one in chosen:
        row, version = rows.get(one.online.name), one.version.version
        if row is None or row.model != one.version.model:
            deployments.start(one.online.name, one.version.model, one.asked, version, project.store.who)
        elif (row.asked, row.resolved) != (one.asked, version):
            if _sends_out(one, row):
                strategy = strategy_of(one.online)
                why = f"{one.asked} is asked for now"
                begun.append(
                    begin(deployments, row.name, version, strategy, project.store.now(), project.store.who, why)
                )
            deployments.ask(row.name, one.asked, version)
    replace(runtime / MACHINE_FILE, msgspec.json.encode(machine))
    deployments.touch()
    return begun


def apply(project: Project, *, dry_run: bool = False) -> tuple[list[Change], list[int]]:
    """The plan, and, unless it is only to be shown, the rollouts that it began."""
    runtime = runtime_folder(project.settings)
    changes, machine, chosen = plan(project, runtime)
    return changes, [] if dry_run or not changes else carry_out(project, runtime, machine, chosen)


def _of_one(one: Chosen, held: Online | None, row: DeploymentRow | None) -> Iterator[Change]:
    name, version = one.online.name, str(one.version)
    if held is None or row is None:
        yield Change(deployment=name, what="deployment", before="", after=version, how="at once")
        return
    if row.model != one.version.model:
        before = f"{row.model}:{row.stable}"
        yield Change(deployment=name, what="model", before=before, after=version, how="at once")
    elif _sends_out(one, row):
        steps = " → ".join(f"{step.weight / 100:g} %" for step in strategy_of(one.online).steps)
        before = f"{row.model}:{row.stable}"
        yield Change(deployment=name, what="model", before=before, after=version, how=f"by steps: {steps}")
    old, new = _flat(held), _flat(one.online)
    for key in sorted({*old, *new}):
        was, now = old.get(key), new.get(key)
        if was != now:
            yield Change(deployment=name, what=key, before=_told(was), after=_told(now), how="at once")


def _batches(running: Machine, machine: Machine) -> Iterator[Change]:
    """What becomes of batch runs, from the next on."""
    before, after = ({one.name: one for one in of.batch} for of in (running, machine))
    for name in sorted({*before, *after}):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        if was is None or now is None:
            words = ["" if one is None else str(one.schedule or "by hand") for one in (was, now)]
            yield Change(deployment=f"batch.{name}", what="batch", before=words[0], after=words[1], how="at once")
            continue
        for field in msgspec.structs.fields(now):
            old, new = getattr(was, field.name), getattr(now, field.name)
            if old != new:
                yield Change(
                    deployment=f"batch.{name}", what=field.name, before=_told_batch(old), after=_told_batch(new),
                    how="with the next run",
                )  # fmt: skip


def _told_batch(value: Any) -> str:
    return masked(_told(value))


def _sends_out(one: Chosen, row: DeploymentRow) -> bool:
    """Whether another version is asked for than the deployment was asked for, and serves."""
    version = one.version.version
    is_asked = row.model == one.version.model and (row.asked, row.resolved) != (one.asked, version)
    return is_asked and version != row.stable


def _gone(running: Machine, machine: Machine) -> Iterator[Change]:
    names = {one.name for one in machine.online}
    for one in running.online:
        if one.name not in names:
            yield Change(deployment=one.name, what="deployment", before=one.model, after="", how="at once")


def _restart(project: Project, running: Machine) -> Iterator[Change]:
    serve = project.settings.serve
    told = {name: getattr(serve, name) for name in _AT_START} | {"loopback": is_loopback(serve.host)}
    for name, value in told.items():
        before = getattr(running, name)
        if before != value:
            yield Change(
                deployment="", what=f"serve.{name}", before=_told(before), after=_told(value),
                how="with the next start of cloche up",
            )  # fmt: skip


def _flat(online: Online) -> dict[str, Any]:
    """Every setting but the model, by its path."""
    found: dict[str, Any] = {}

    def walk(place: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{place}.{name}" if place else name, inner)
        else:
            found[place] = value

    walk("", msgspec.to_builtins(online))
    return {name: value for name, value in found.items() if name not in ("name", "model", "features.source")}


def _told(value: Any) -> str:
    return "" if value is None else str(value)


def _check_breaks(project: Project, one: Chosen, row: DeploymentRow) -> None:
    stable = project.open(f"{row.model}:{row.stable}")
    broken = breaks(stable.signature, one.bundle.signature)
    if broken:
        raise RefusedError(
            f"{one.version} would break who calls {stable.reference} now: {'; '.join(broken)}",
            code="CL-E414",
            hint=f"if callers know of it: cloche deploy {one.version} --breaking",
        )
