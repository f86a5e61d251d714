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
from cloche.app.describe import Machine, Shelf
from cloche.app.desired import FILE, DeploymentConfig, Desired
from cloche.app.features import outward
from cloche.app.project import Project
from cloche.app.refusals import HOSTS, check_bind, check_code, check_device, check_memory, is_loopback
from cloche.bundle.bundle import Bundle
from cloche.control.adopt import live_slots
from cloche.core.board import Board
from cloche.core.extras import load_extra
from cloche.core.machine import free_memory
from cloche.core.reference import Reference
from cloche.registry import CHAMPION, ModelVersion
from cloche.serving.tls import Certificates
from cloche.settings.tree import Serve
from cloche.store.deployments import Deployments
from cloche.store.keys import Keys

_GRACE_S = 5.0
_LEAST_DRAIN_S = 30.0


def settle(project: Project, chosen: Sequence[Chosen], who: str) -> list[Chosen]:
    """What is chosen, with the versions that have the traffic by the store, which knows of each from now on."""
    deployments = Deployments(project.store)
    settled = []
    for one in chosen:
        version = one.version
        row = deployments.start(one.online.name, version.model, one.asked, version.version, who)
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
) -> tuple[dict[str, Any], Desired]:
    """The JSON wish for the supervisor, everything in it checked that can be checked before the start.

    What the workers are to serve comes with it; `chosen` is settled.
    """
    settings = project.settings
    serve = settings.serve
    loopback = is_loopback(serve.host)
    _check(project, chosen, runtime, loopback=loopback, tls_elsewhere=tls_elsewhere)
    worker = describe_worker(project, loopback=loopback) | {"desired": str(runtime / FILE)}
    hosts: list[dict[str, Any]] = []
    by_digest: dict[str, list[str]] = {}
    for one in chosen:
        if one.bundle.digest not in by_digest:
            own = _hosts(one.bundle, runtime, len(hosts), worker["trusted"])
            by_digest[one.bundle.digest] = [host["socket"] for host in own]
            hosts += own
    machine = Machine(
        id=project.machine,
        database=settings.database,
        bundles=str(project.bundles.root),
        online=tuple(one.online for one in chosen),
        loopback=loopback,
        workers=serve.workers,
        allow_code=serve.allow_code,
        load_timeout_s=serve.load_timeout_s,
        hosts=by_digest,
    )
    desired = Shelf(machine, project.store).desired()
    facts = [_facts(project, one, wished.stable) for one, wished in zip(chosen, desired.deployments, strict=True)]
    wish = {
        "runtime": str(runtime),
        "data": str(settings.data),
        "listen": [[serve.host, port] for port in _doors(serve).values()],
        "lame_duck_s": serve.lame_duck_s,
        "load_timeout_s": serve.load_timeout_s,
        "drain_s": max(_LEAST_DRAIN_S, desired.deadline_s + _GRACE_S),
        "model": ", ".join(str(one.version) for one in chosen),
    }
    # keys, trust and versions change while it runs: a wish that differs there is the same
    settled = [_without(worker, "keys", "trusted"), hosts]
    tables = [_without(msgspec.to_builtins(one.online), "model") for one in chosen]
    server = Server(
        host=serve.host,
        workers=serve.workers,
        encrypted=serve.tls is not None,
        data=settings.data,
        grpc=serve.grpc is not None,
    )
    controller = {"machine": msgspec.to_builtins(machine), "desired": str(runtime / FILE)}
    wish |= {
        "digest": _digest([_without(wish, "model"), settled, tables, serve.workers, sys.executable]),
        "banner": banner(server, facts, runtime, as_json=as_json),
        "groups": [
            _group("host", len(hosts), "cloche.app.host", hosts),
            _group("worker", serve.workers, "cloche.app.worker", worker),
            _group("controller", 1, "cloche.app.controller", controller),
        ],
    }
    return wish, desired


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
        check_memory([one.bundle for one in chosen], serve.workers, free_memory())


def _hosts(bundle: Bundle, runtime: Path, first: int, trusted: list[str]) -> list[dict[str, Any]]:
    """What the hosts of a bundle with code are told, numbered from `first` on; none for others."""
    if bundle.manifest.runtime.kind != "python":
        return []
    config = {"digest": bundle.digest, "bundle": str(bundle.path), "trusted": trusted}
    return [config | {"socket": str(runtime / f"host-{first + number}.sock")} for number in range(HOSTS)]


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
        "sockets": kind == "worker",
    }


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
