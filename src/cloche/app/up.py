"""`cloche up`: settings and a model become one wish, and this process becomes the supervisor that runs it."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from cloche.app.banner import Facts, banner
from cloche.app.choose import Chosen, choose, no_code
from cloche.app.features import describe_features, outward
from cloche.app.project import Project
from cloche.bundle.bundle import Bundle
from cloche.control import lock
from cloche.control.adopt import live_slots
from cloche.core.board import Board
from cloche.core.errors import ConfigError, RefusedError
from cloche.core.keys import KeyRecord
from cloche.core.machine import free_memory
from cloche.core.member import pass_json
from cloche.core.platform import runtime_directory
from cloche.core.units import format_size
from cloche.registry import CHAMPION, ModelVersion
from cloche.runtimes.requirements import check_requirements
from cloche.serving.tls import Certificates
from cloche.settings import Settings
from cloche.store.keys import Keys

if TYPE_CHECKING:
    from cloche.bundle.pack import Progress

#: One answers, one is a warm spare.
HOSTS = 2
_GRACE_S = 5.0
_LEAST_DRAIN_S = 30.0
#: A unix socket's path has at most 103 bytes on macOS, 107 on Linux; the longest of ours is this much more.
_LONGEST_RUNTIME = 103 - len("/member-63.sock")


def up(
    project: Project,
    model: str | None = None,
    *,
    tls_elsewhere: bool = False,
    as_json: bool = False,
    colour: bool = False,
    note: Callable[[str], None] | None = None,
    packing: AbstractContextManager[Progress | None] | None = None,
) -> NoReturn:
    """Serve `model`, or what `cloche.toml` describes; this process becomes the supervisor and does not return.

    `model` is a reference, a bundle's folder or archive, or a model file or class, which is packed first.
    `tls_elsewhere` says that a proxy in front ends TLS, `colour` that stderr takes it.

    Raises ConflictError CL-E501 when it runs already, RefusedError (CL-E405 signer, CL-E406 code, CL-E409
    network, CL-E412 memory), NotFoundError, ConfigError.
    """
    runtime = runtime_folder(project.settings)
    lock.check_free(runtime)
    with packing or nullcontext() as progress:
        chosen = choose(project, model, progress=progress)
    note_limits(project, chosen, note)
    wish = make_wish(project, chosen, runtime, tls_elsewhere=tls_elsewhere, as_json=as_json)
    project.close()
    become_supervisor(wish | {"colour": colour}, runtime)


def runtime_folder(settings: Settings) -> Path:
    """The private folder of sockets and board; ConfigError where its path is too long for a socket."""
    folder = runtime_directory(settings.runtime_root, settings.data)
    if len(os.fsencode(folder)) > _LONGEST_RUNTIME:
        raise ConfigError(
            f"{folder} is too long a path for sockets to lie in",
            code="CL-E201",
            hint="set XDG_RUNTIME_DIR or TMPDIR to a folder with a shorter path",
        )
    return folder


def make_wish(
    project: Project, chosen: Chosen, runtime: Path, *, tls_elsewhere: bool = False, as_json: bool = False
) -> dict[str, Any]:
    """The JSON wish for the supervisor, everything in it checked that can be checked before the start."""
    settings, online, bundle = project.settings, chosen.online, chosen.bundle
    serve = settings.serve
    keys = Keys(project.store).load()
    loopback = _is_loopback(serve.host)
    check_code(bundle, allowed=serve.allow_code)
    _check_device(bundle, online.device)
    bundle.verify()  # workers verify what they load; a changed card or profile is told here
    if serve.tls is not None:
        Certificates(serve.tls.cert, serve.tls.key)  # workers read them again: what is wrong is told here
    _check_bind(serve.host, keys, loopback=loopback, encrypted=serve.tls is not None or tls_elsewhere)
    is_code = bundle.manifest.runtime.kind == "python"
    if not is_served(runtime):  # what runs already has its memory
        check_memory(bundle, HOSTS if is_code else serve.workers, free_memory())
    keys_required = online.access.keys or not loopback
    trusted = sorted(project.trusted())
    sockets = [str(runtime / f"host-{index}.sock") for index in range(HOSTS)] if is_code else []
    worker = describe_worker(settings, chosen, keys_required=keys_required, loopback=loopback) | {
        "hosts": sockets,
        "tls": None if serve.tls is None else [str(serve.tls.cert), str(serve.tls.key)],
    }
    wish = {
        "runtime": str(runtime),
        "data": str(settings.data),
        "listen": [[serve.host, serve.port]],
        "lame_duck_s": serve.lame_duck_s,
        "load_timeout_s": serve.load_timeout_s,
        "drain_s": max(_LEAST_DRAIN_S, online.deadline_s + _GRACE_S),
        "model": str(chosen.version),
    }
    # keys and trust may change while it runs: a wish that differs in them alone is the same
    features = msgspec.to_builtins(online.features)
    digest = _digest([wish, worker, features, serve.workers, sys.executable])
    hosts = [
        {"digest": bundle.digest, "bundle": str(bundle.path), "socket": socket, "trusted": trusted}
        for socket in sockets
    ]
    signature, examples = bundle.signature, bundle.golden().inputs
    if online.features is not None:
        described = describe_features(online.features, signature)
        signature, examples = outward(signature, examples, described)
        worker["features"] = msgspec.to_builtins(described)
    worker |= {
        "keys": msgspec.to_builtins(keys),
        "trusted": trusted,
        "aliases": aliases_of(project, chosen.version),
    }
    facts = Facts(
        deployment=online.name,
        model=str(chosen.version),
        bundle=bundle,
        signature=signature,
        examples=examples,
        host=serve.host,
        workers=serve.workers,
        keys_required=keys_required,
        encrypted=serve.tls is not None,
        data=settings.data,
        champion=_other_champion(project, chosen.version),
    )
    return wish | {
        "digest": digest,
        "banner": banner(facts, runtime, as_json=as_json),
        "groups": [
            _group("host", len(hosts), "cloche.app.host", hosts),
            _group("worker", serve.workers, "cloche.app.worker", worker),
        ],
    }


def describe_worker(settings: Settings, chosen: Chosen, *, keys_required: bool, loopback: bool) -> dict[str, Any]:
    """What a worker is told of its deployment: a WorkerConfig but for keys, trust, aliases and the look-up."""
    online = chosen.online
    return {
        "deployment": online.name,
        "model": chosen.version.model,
        "version": chosen.version.version,
        "digest": chosen.bundle.digest,
        "bundle": str(chosen.bundle.path),
        "deadline_s": online.deadline_s,
        "load_timeout_s": settings.serve.load_timeout_s,
        "cache": None if online.cache is None else {"bytes": online.cache.size, "ttl_s": online.cache.ttl_s},
        "on_invalid": online.on_invalid,
        "device": online.device,
        "keys_required": keys_required,
        "limits": msgspec.to_builtins(dict(online.access.limits)),
        "database": settings.database,
        "loopback": loopback,
        "max_body": settings.serve.max_body,
    }


def aliases_of(project: Project, version: ModelVersion) -> list[str]:
    """What points at the version now."""
    known = project.registry.aliases(version.model)
    return [name for name, number in known.items() if number == version.version]


def become_supervisor(wish: dict[str, Any], runtime: Path) -> NoReturn:
    """Replace this process's program by the supervisor's and hand it the wish."""
    descriptor = pass_json(wish, runtime)
    os.set_inheritable(descriptor, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, _python("cloche.control.supervisor", str(descriptor)))


def _python(module: str, *words: str) -> list[str]:
    # -P: no module of ours or of Python's is looked for in the folder that we were started in
    return [sys.executable, "-P", "-m", module, *words]


def _group(kind: str, count: int, module: str, config: object) -> dict[str, Any]:
    return {
        "kind": kind,
        "count": count,
        "argv": _python(module),
        "config": config,
        "sockets": kind == "worker",
    }


def check_code(bundle: Bundle, *, allowed: bool) -> None:
    """RefusedError CL-E406 for a bundle with code where none is allowed; what that needs must be there."""
    if bundle.manifest.runtime.kind == "python" and not allowed:
        raise no_code(bundle.reference or bundle.name)
    check_requirements(bundle.manifest.requirements)


def _check_device(bundle: Bundle, device: str) -> None:
    if device == "cpu":
        return
    if bundle.manifest.runtime.kind != "onnx":
        raise ConfigError(
            f"device = {device!r} has no effect on a bundle with Python code, which chooses its own",
            code="CL-E201",
            hint="leave it out, and choose the device in the class",
        )
    # takes a moment, and serving on the processor needs it in the workers only
    import_module("cloche.runtimes.onnx").check_device(device)


def _check_bind(host: str, keys: Sequence[KeyRecord], *, loopback: bool, encrypted: bool) -> None:
    if loopback:
        return
    if not encrypted:
        raise RefusedError(
            f"{host} can be reached from other machines, and what would be said there is not encrypted",
            code="CL-E409",
            hint="write [serve] tls = { cert = …, key = … }, or put a proxy that ends TLS in front and say "
            "--i-terminate-tls-elsewhere, or use 127.0.0.1",
        )
    if not keys:
        raise RefusedError(
            f"{host} can be reached from other machines, and there is no API key yet",
            code="CL-E409",
            hint="make one first: cloche keys create NAME",
        )


def is_served(runtime: Path) -> bool:
    """Whether workers or hosts of a dead supervisor's still run, which this start takes over."""
    board = runtime / "board"
    return board.exists() and bool(live_slots(Board(board)))


def check_memory(bundle: Bundle, processes: int, free: int | None) -> None:
    """Raise RefusedError CL-E412 when so many processes with the model take more than is free."""
    measured = bundle.manifest.measured
    if measured is None or free is None or measured.load_bytes * processes <= free:
        return
    where = f"each of {processes} processes" if processes > 1 else "its process"
    raise RefusedError(
        f"{bundle.reference or bundle.name} takes about {format_size(measured.load_bytes)} of memory "
        f"in {where} while it loads, and {format_size(free)} is free",
        code="CL-E412",
        hint="free some, or raise the container's limit"
        + ("" if bundle.manifest.runtime.kind == "python" else "; or start fewer with --workers"),
    )


def note_limits(project: Project, chosen: Chosen, note: Callable[[str], None] | None) -> None:
    """Say which limits are nobody's: a name that is mistyped would leave its caller with the default."""
    known = sorted({key.name for key in Keys(project.store).load()})
    strange = sorted({*chosen.online.access.limits} - {*known, "default"})
    if strange and note is not None:
        keys = f"there are: {', '.join(known)}" if known else "there are none yet"
        note(f"warning: no API key has the name of these limits: {', '.join(strange)} ({keys})")


def _other_champion(project: Project, version: ModelVersion) -> str | None:
    number = project.registry.aliases(version.model).get(CHAMPION, version.version)
    return None if number == version.version else f"{version.model}:{number}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
