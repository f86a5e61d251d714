"""The listening sockets: bound once, held open by the supervisor for its whole life."""

from __future__ import annotations

import errno
import socket

from cloche.core.errors import ClocheError, ConfigError, ConflictError, RefusedError

_BACKLOG = 1024


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, not blocking; port 0 takes a free one.

    Raises ConflictError CL-E503 (taken), RefusedError CL-E400 (not permitted), ConfigError CL-E201 (no such
    address).
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        # sets SO_REUSEADDR, so that a restart needn't wait for old connections
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise _explain(error, host, port) from None
    listener.setblocking(False)
    return listener


def address(listener: socket.socket) -> str:
    """`http://127.0.0.1:8080`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _explain(error: OSError, host: str, port: int) -> ClocheError:
    if error.errno == errno.EADDRINUSE:
        return ConflictError(
            f"port {port} of {host} is taken by another program",
            code="CL-E503",
            hint="choose another with --port, or port = … under [serve] in cloche.toml",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return RefusedError(f"this user may not listen on port {port} of {host}", hint="choose a port above 1023")
    return ConfigError(
        f"{host}:{port} is not an address of this machine ({error.strerror or error})",
        code="CL-E201",
        hint="127.0.0.1 is this machine only, 0.0.0.0 all of its addresses",
    )
