"""The listening sockets: bound once, held open by the supervisor for its whole life."""

from __future__ import annotations

import array
import contextlib
import errno
import socket
import struct
import sys

from cloche.core.errors import ClocheError, ConfigError, ConflictError, RefusedError

_BACKLOG = 1024
_SO_ATTACH_FILTER = 26  # Linux; the socket module doesn't name it
#: Classic BPF over a TCP header: SYN without ACK is dropped, all else passes.
_NO_SYN = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # is it SYN alone?
    (0x06, 0, 0, 0),  # yes: keep 0 bytes
    (0x06, 0, 0, 0xFFFFFFFF),  # no: keep all
)


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


def shut(listener: socket.socket) -> None:
    """Let no new connection into the queue, and leave those in it to be accepted; then close our end.

    Closing alone would reset what came in between the workers' last look at the queue and their close. On
    Linux a packet filter closes that gap; elsewhere the gap of microseconds stays.
    """
    if sys.platform == "linux":
        # Only what asks for a new connection is dropped: one whose last handshake packet is under way gets in,
        # for its client believes that it is connected.
        program = array.array("B", b"".join(struct.pack("HBBI", *step) for step in _NO_SYN))
        with contextlib.suppress(OSError):
            listener.setsockopt(
                socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), program.buffer_info()[0])
            )
    listener.close()


def _explain(error: OSError, host: str, port: int) -> ClocheError:
    if error.errno == errno.EADDRINUSE:
        return ConflictError(
            f"port {port} of {host} is taken by another program",
            code="CL-E503",
            hint="choose another with --port, or port, grpc or admin = … under [serve] in cloche.toml",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return RefusedError(f"this user may not listen on port {port} of {host}", hint="choose a port above 1023")
    return ConfigError(
        f"{host}:{port} is not an address of this machine ({error.strerror or error})",
        code="CL-E201",
        hint="127.0.0.1 is this machine only, 0.0.0.0 all of its addresses",
    )
