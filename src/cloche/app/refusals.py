"""What `cloche up` refuses before it starts anything: code, devices, open doors, too little memory."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from cloche.app.choose import no_code
from cloche.app.placement import need
from cloche.bundle.bundle import Bundle
from cloche.core.errors import ConfigError, RefusedError
from cloche.core.keys import KeyRecord
from cloche.core.units import format_size
from cloche.runtimes.requirements import check_requirements


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


def check_memory(bundles: Sequence[Bundle], workers: int, free: int | None, isolate_above: int) -> None:
    """Raise RefusedError CL-E412 when workers and hosts with these models take more than is free."""
    takes = need([(bundle.digest, bundle.manifest) for bundle in bundles], workers, isolate_above)
    if free is None or takes.total_bytes <= free:
        return
    names = ", ".join(bundle.reference or bundle.name for bundle in bundles)
    inside, hosts = takes.worker_bytes, takes.hosts
    parts = [f"{format_size(inside)} in each of {workers} workers"] if workers > 1 and inside else []
    if hosts > 1 or (hosts and inside):
        parts.append(f"{format_size(takes.hosts_bytes)} in {hosts} host{'s' * (hosts > 1)}")
    shares = f" ({', '.join(parts)})" if parts else ""
    hint = "free some, or raise the container's limit"
    if workers > 1 and inside:
        hint += "; or start fewer with --workers, or lower isolate_above under [serve]: then they share one host"
    raise RefusedError(
        f"{names}: loading takes about {format_size(takes.total_bytes)} of memory{shares}, "
        f"and {format_size(free)} is free",
        code="CL-E412",
        hint=hint,
    )


def check_seats(hosts: int, seats: int) -> None:
    """RefusedError CL-E412 where there is room for fewer runtime hosts than these."""
    if hosts > seats:
        raise RefusedError(
            f"{hosts} runtime hosts would run, and there is room for {seats}",
            code="CL-E412",
            hint="serve fewer models with code or above isolate_above on this machine",
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
