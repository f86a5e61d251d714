"""What `cloche up` refuses before it starts anything: code, devices, open doors, too little memory."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from cloche.app.choose import no_code
from cloche.bundle.bundle import Bundle
from cloche.core.errors import ConfigError, RefusedError
from cloche.core.keys import KeyRecord
from cloche.core.units import format_size
from cloche.runtimes.requirements import check_requirements

#: Runtime hosts of a bundle with code: one answers, one is a warm spare.
HOSTS = 2


def check_code(bundle: Bundle, *, allowed: bool) -> None:
    """RefusedError CL-E406 for a bundle with code where none is allowed; what that needs must be there."""
    if bundle.manifest.runtime.kind == "python" and not allowed:
        raise no_code(bundle.reference or bundle.name)
    check_requirements(bundle.manifest.requirements)


def check_device(bundle: Bundle, device: str) -> None:
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


def check_bind(host: str, keys: Sequence[KeyRecord], *, loopback: bool, encrypted: bool) -> None:
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


def check_storage(storage: Path | None, others: Sequence[str]) -> None:
    """ConfigError CL-E201 where other machines share the database and each would have bundles of its own."""
    if others and storage is None:
        raise ConfigError(
            f"other machines share this database ({', '.join(sorted(others))}), and the bundles are not shared",
            code="CL-E201",
            hint='name a folder that all of them have: storage = "/mnt/models" under [project]',
        )


def check_memory(bundles: Sequence[Bundle], workers: int, free: int | None) -> None:
    """Raise RefusedError CL-E412 when the processes with these models take more than is free.

    A worker holds every model without code, and loads one after the other; one with code has hosts of its own.
    """
    manifests = [bundle.manifest for bundle in bundles]
    inside = [what.measured for what in manifests if what.measured is not None and what.runtime.kind != "python"]
    hosted = [what.measured for what in manifests if what.measured is not None and what.runtime.kind == "python"]
    outside = sum(cost.load_bytes for cost in hosted)
    worker = sum(cost.memory_bytes for cost in inside)
    worker += max((cost.load_bytes - cost.memory_bytes for cost in inside), default=0)
    total = workers * worker + HOSTS * outside
    if free is None or total <= free:
        return
    names = ", ".join(bundle.reference or bundle.name for bundle in bundles)
    parts = [f"{format_size(worker)} in each of {workers} workers"] if workers > 1 and worker else []
    parts += [f"{format_size(outside)} in each of {HOSTS} hosts"] if outside else []
    shares = f" ({', '.join(parts)})" if parts else ""
    raise RefusedError(
        f"{names}: loading takes about {format_size(total)} of memory{shares}, and {format_size(free)} is free",
        code="CL-E412",
        hint="free some, or raise the container's limit" + ("; or start fewer with --workers" if worker else ""),
    )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
