"""From settings and the chosen versions to the one JSON wish that the supervisor runs."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cloche.app.banner import Facts, Server, banner
from cloche.app.choose import Chosen
from cloche.app.describe import MACHINE_FILE, Machine, Shelf
from cloche.app.desired import FILE, DeploymentConfig, Desired
from cloche.app.features import outward
from cloche.app.placement import host_seats
from cloche.app.project import Project
from cloche.app.refusals import check_bind, check_code, check_device, check_memory, is_loopback
from cloche.control.adopt import live_slots
from cloche.core.board import SLOTS, Board
from cloche.core.extras import load_extra
from cloche.core.machine import free_memory
from cloche.core.reference import Reference
from cloche.registry import CHAMPION, ModelVersion
from cloche.serving.tls import Certificates
from cloche.settings import Batch
from cloche.settings.carry import to_json
from cloche.settings.kinds import MAX_WORKERS
from cloche.settings.tree import Serve
from cloche.store.deployments import Deployments
from cloche.store.keys import Keys
from cloche.store.scale import Scale

_GRACE_S = 5.0
_LEAST_DRAIN_S = 30.0


def settle(project: Project, chosen: Sequence[Chosen]) -> list[Chosen]:
    """What is chosen, with the versions that have the traffic by the store, which knows of each from now on."""
    deployments = Deployments(project.store)
    settled = []
    for one in chosen:
        version = one.version
        row = deployments.start(one.online.name, version.model, one.asked, version.version, project.store.who)
        if row.stable != version.version:
            version = project.registry.resolve(Reference(model=row.model, version=row.stable))
            one = msgspec.structs.replace(one, version=version, bundle=project.open_version(version))  # noqa: PLW2901
        settled.append(one)
    return settled


def make_wish(
    project: Project,
    chosen: Sequence[Chosen],
    runtime: Path,
    *,
    tls_elsewhere: bool = False,
    as_json: bool = False,
    batch: tuple[Batch, ...] = (),
) -> tuple[dict[str, Any], Desired, Machine]:
    """The JSON wish for the supervisor, everything in it checked that can be checked before the start.

    What the workers are to serve, and the machine that it was made of, come with it; `chosen` is settled.
    """
    settings = project.settings
    serve = settings.serve
    loopback, has_admin = is_loopback(serve.host), serve.admin is not None
    _check(project, chosen, runtime, loopback=loopback, tls_elsewhere=tls_elsewhere)
    worker = describe_worker(project, loopback=loopback) | {"desired": str(runtime / FILE)}
    machine = Machine(
        id=project.machine,
        database=settings.database,
        bundles=str(project.bundles.root),
        online=tuple(one.online for one in chosen),
        loopback=loopback,
        workers=serve.workers,
        least_workers=serve.least_workers,
        runtime=str(runtime),
        isolate_above=serve.isolate_above,
        allow_code=serve.allow_code,
        load_timeout_s=serve.load_timeout_s,
        batch=batch,
    )
    scaled = Scale(project.store, project.machine).get()
    count = scaled or serve.least_workers
    desired = Shelf(machine, project.store).desired()
    # a candidate's come when the rest serves: it must not hold up the start
    hosts = [msgspec.to_builtins(one) for one in desired.proven().hosts()]
    seats = host_seats(len(hosts))
    machine = msgspec.structs.replace(machine, host_seats=seats)
    facts = [_facts(project, one, wished.stable) for one, wished in zip(chosen, desired.deployments, strict=True)]
    wish = {
        "runtime": str(runtime),
        "data": str(settings.data),
        "listen": [
            *([serve.host, port] for port in _doors(serve).values()),
            *([[serve.host, serve.admin, "controller"]] if has_admin else []),
        ],
        "lame_duck_s": serve.lame_duck_s,
        "load_timeout_s": serve.load_timeout_s,
        "drain_s": max(_LEAST_DRAIN_S, desired.deadline_s + _GRACE_S),
        "model": ", ".join(str(one.version) for one in chosen),
    }
    # keys, trust, versions and how each is run change while it runs: a wish that differs there is the same
    settled = [_without(worker, "keys", "trusted"), seats]
    server = Server(
        host=serve.host,
        workers=count,
        most_workers=scaled or serve.workers,
        encrypted=serve.tls is not None,
        data=settings.data,
        has_admin=has_admin,
        grpc=serve.grpc is not None,
    )
    controller: dict[str, Any] = {"machine": str(runtime / MACHINE_FILE), "desired": str(runtime / FILE)}
    controller |= {"admin": to_json(settings)} if has_admin else {}
    bounds = [serve.least_workers, serve.workers]
    wish |= {
        "digest": _digest([_without(wish, "model"), settled, bounds, sys.executable]),
        "banner": banner(server, facts, runtime, as_json=as_json),
        "groups": [
            _group("host", len(hosts), "cloche.app.host", hosts) | {"most": seats},
            _group("worker", count, "cloche.app.worker", worker) | {"most": _seats(count, seats)},
            _group("controller", 1, "cloche.app.controller", controller),
        ],
    }
    return wish, desired, machine


def _doors(serve: Serve) -> dict[str, int]:
    """What is spoken, and its port, in the order in which the workers inherit the sockets."""
    return {"http": serve.port} | ({} if serve.grpc is None else {"grpc": serve.grpc})


def _check(
    project: Project, chosen: Sequence[Chosen], runtime: Path, *, loopback: bool, tls_elsewhere: bool
) -> None:
    serve = project.settings.serve
    for one in chosen:
        check_code(one.bundle, allowed=serve.allow_code)
        check_device(one.bundle, one.online.device)
        one.bundle.verify()  # workers verify what they load; a changed card or profile is told here
    if serve.grpc is not None:
        load_extra("cloche.serving.grpc.server", "gRPC", "grpc")
    if serve.tls is not None:
        Certificates(serve.tls.cert, serve.tls.key)  # workers read them again: what is wrong is told here
    keys = Keys(project.store).load()
    check_bind(serve.host, keys, loopback=loopback, encrypted=serve.tls is not None or tls_elsewhere)
    if not is_served(runtime):  # what runs already has its memory
        scaled = Scale(project.store, project.machine).get()
        bundles = [one.bundle for one in chosen]
        check_memory(bundles, scaled or serve.workers, free_memory(), serve.isolate_above)


def _without(told: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in names}


def describe_worker(project: Project, *, loopback: bool) -> dict[str, Any]:
    """What a worker is told besides its deployments: a WorkerConfig."""
    settings = project.settings
    tls = settings.serve.tls
    return {
        "loopback": loopback,
        "doors": list(_doors(settings.serve)),
        "max_body": settings.serve.max_body,
        "database": settings.database,
        "load_timeout_s": settings.serve.load_timeout_s,
        "keys": msgspec.to_builtins(Keys(project.store).load()),
        "trusted": sorted(project.trusted()),
        "tls": None if tls is None else [str(tls.cert), str(tls.key)],
    }


def is_served(runtime: Path) -> bool:
    """Whether workers or hosts of a dead supervisor's still run, which this start takes over."""
    board = runtime / "board"
    return board.exists() and bool(live_slots(Board(board)))


def _facts(project: Project, chosen: Chosen, served: DeploymentConfig) -> Facts:
    bundle = chosen.bundle
    signature, examples = bundle.signature, bundle.golden().inputs
    if served.features is not None:
        signature, examples = outward(signature, examples, served.features)
    return Facts(
        deployment=chosen.online.name,
        model=str(chosen.version),
        bundle=bundle,
        signature=signature,
        examples=examples,
        keys_required=served.keys_required,
        is_hosted=bool(served.hosts),
        champion=_other_champion(project, chosen.version),
    )


def _other_champion(project: Project, version: ModelVersion) -> str | None:
    number = project.registry.aliases(version.model).get(CHAMPION, version.version)
    return None if number == version.version else f"{version.model}:{number}"


def python_command(module: str, *words: str) -> list[str]:
    # -P: no module of ours or of Python's is looked for in the folder that we were started in
    return [sys.executable, "-P", "-m", module, *words]


def _group(kind: str, count: int, module: str, config: object) -> dict[str, Any]:
    return {
        "kind": kind,
        "count": count,
        "argv": python_command(module),
        "config": config,
    }


def _seats(count: int, hosts: int) -> int:
    """How many workers there is room for, beside the hosts, the supervisor and the controller."""
    return max(count, min(MAX_WORKERS, SLOTS - 2 - hosts))


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
