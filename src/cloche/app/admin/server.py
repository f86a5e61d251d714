"""The admin API's server: a thread with an event loop of its own, beside whatever else its process does."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Sequence

import uvicorn
from starlette.types import ASGIApp

from cloche.serving.tls import Certificates

#: Connections at a time; what is beyond hears 503.
_CONNECTIONS = 64
_IDLE_S = 10
_STOP_S = 5
_log = logging.getLogger("cloche.admin")


class AdminServer:
    """An AdminServer answers on listening sockets from `start` to `close`; `on_death` is called if it fails."""

    def __init__(
        self,
        app: ASGIApp,
        sockets: Sequence[socket.socket],
        certificates: Certificates | None,
        on_death: Callable[[], None],
    ) -> None:
        async def refresh() -> None:
            if certificates is not None:
                certificates.refresh()

        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=_STOP_S,
            callback_notify=refresh,
            timeout_notify=1,
        )
        config.load()
        config.ssl = None if certificates is None else certificates.context
        self._server = uvicorn.Server(config)
        self._sockets = list(sockets)
        self._on_death = on_death
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Finish what is in flight, and accept no more."""
        self._server.should_exit = True
        self._thread.join(2 * _STOP_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._server.serve(self._sockets))
        except Exception:  # noqa: BLE001 - the edge of the thread: without it nobody would hear of its end
            _log.exception("the admin API ended", extra={"action": "admin_died"})
            self._on_death()
