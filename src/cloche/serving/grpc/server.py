"""The gRPC server on sockets that it was given: the Open Inference Protocol and gRPC's health service."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

from cloche.serving.grpc.calls import Calls
from cloche.serving.grpc.connection import Connection
from cloche.serving.http import App
from cloche.serving.lookout import Lookout
from cloche.serving.server import BACKLOG, HANDSHAKE_S, HEADER_S, MOST_CONNECTIONS
from cloche.serving.state import WorkerState
from cloche.serving.tls import Certificates


class GrpcServer:
    """A GrpcServer answers what HTTP's App answers, by the same table, guard and limits."""

    def __init__(
        self,
        app: App,
        state: WorkerState,
        sockets: list[socket.socket],
        certificates: Certificates | None = None,
    ) -> None:
        self.calls = Calls(app, state)
        self._sockets = sockets
        self._certificates = certificates
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self.is_draining = False
        #: Told of each answer.
        self.answered: Callable[[float], None] = lambda now: None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.answered = Lookout(loop).answered
        tls: dict[str, Any] = {}
        if self._certificates is not None:
            tls = {"ssl": self._certificates.context, "ssl_handshake_timeout": HEADER_S}
        for listening in self._sockets:
            made = await loop.create_server(lambda: Connection(self), sock=listening, backlog=BACKLOG, **tls)
            self._servers.append(made)

    def add(self, connection: Connection) -> bool:
        """Whether there is room for one more connection."""
        if len(self._connections) >= MOST_CONNECTIONS:
            return False
        self._connections.add(connection)
        return True

    def remove(self, connection: Connection) -> None:
        self._connections.discard(connection)

    @property
    def connections(self) -> int:
        return len(self._connections)

    def tick(self) -> None:
        """Once a second: the certificate, what comes or is read too slowly, what nobody uses, who watches."""
        if self._certificates is not None:
            self._certificates.refresh()
        now = time.monotonic()
        for connection in list(self._connections):
            connection.tick(now)
            connection.tell_health()

    def drain(self) -> None:
        """Send callers elsewhere; who comes all the same is answered."""
        self.is_draining = True
        for connection in list(self._connections):
            connection.tell_health()
            connection.leave()

    async def stop(self, grace_s: float) -> None:
        """Accept no more, let what is in flight finish (at most `grace_s`), close."""
        await asyncio.sleep(0.01 if self._certificates is None else HANDSHAKE_S)
        for server in self._servers:
            server.close()
        ends = time.monotonic() + grace_s
        self.drain()  # who came in the meantime
        while time.monotonic() < ends and any(one.is_owed(time.monotonic()) for one in self._connections):
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)
