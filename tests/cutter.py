"""A proxy that cuts its connections in the middle."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit


class Cutter:
    """A Cutter is a proxy that cuts its connections once so many bytes went through it to the server."""

    def __init__(self, url: str, cut_after: int) -> None:
        parts = urlsplit(url)
        self._target = ("127.0.0.1", parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{parts.scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._left = cut_after
        self._held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._held += [client, server]
            threading.Thread(target=self._carry, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                part = data[: self._left] if counted else data
                target.sendall(part)
                if counted:
                    self._left -= len(part)
                    if self._left <= 0:
                        self.close()

    def close(self) -> None:
        for one in (self._listener, *self._held):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
